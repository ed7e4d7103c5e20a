"""One partition's work, in order, from its assignment to its revocation."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from faust.types import TP

from oomstream.agents.worker.batches import FetchedBatch, pieces
from oomstream.agents.worker.metrics import WorkerMetrics
from oomstream.schemas.errors import Fatal, Fenced, OomstreamError
from oomstream.schemas.events import Record
from oomstream.stores.crash_points import reach
from oomstream.stores.settings import Settings
from oomstream.streams.backoff import Backoff
from oomstream.streams.ingest import IngestCounts

log = logging.getLogger(__name__)

IDLE_S = 1.0
"""After how long with nothing to do the position of the online rows is stored."""

AGAIN_S = 1.0
"""How long to wait before claiming again: by then a worker that lost the partition has heard of it from Kafka."""

Acknowledge = Callable[[], object]


class PartitionLog(Protocol):
    """What a runner needs of one partition of the log."""

    async def bounds(self) -> tuple[int, int, int]:
        """First offset, end, and the offset where a source never seen begins.

        Raises:
            StoreUnavailable: The broker does not answer.
        """

    async def begin_at(self, offset: int) -> bool:
        """Fetch from an offset on; False if the partition is not ours any more.

        Raises:
            StoreUnavailable: The consumer does not answer.
        """

    def wake(self) -> None:
        """There is room for another batch."""


class Pipeline(Protocol):
    """What a runner needs of `oomstream.streams.ingest.SourceIngest`."""

    counts: IngestCounts

    async def start(self, first: int, last: int, *, begin: int) -> int:
        """Claim and recover; the offset to read next."""

    async def advance(self, records: Sequence[Record]) -> None:
        """Take one batch as far as history, and wait until everything before it is online."""

    async def settle(self) -> None:
        """Wait until everything that was taken is online."""

    def passed(self, end: int) -> None:
        """The log holds nothing more before `end`."""

    async def flush(self) -> None:
        """Store how far the log is read and online rows are written."""


class _Held(NamedTuple):
    batch: FetchedBatch
    acknowledge: Acknowledge


class PartitionRunner:
    """Claims a partition's source, takes its batches through the pipeline, and acknowledges them in order.

    While the online rows of one batch are written, the next one goes to history. It holds at most the batch in hand,
    the one before it and about one more; beyond that it is not `willing`, and its partition is not fetched, so a slow
    partition holds up no other and memory stays bounded. A batch is taken only where the last one ended: whatever the
    consumer drops or repeats on the way (rebalances, seeks), nothing is left out.

    Args:
        tp: The partition.
        partition_log: Its log.
        pipeline: Makes its pipeline.
        settings: Limits of a batch, and the outage budget.
        metrics: Figures to add to.
        fail: Called once with what must stop the worker.
    """

    def __init__(
        self,
        tp: TP,
        *,
        partition_log: PartitionLog,
        pipeline: Callable[[], Pipeline],
        settings: Settings,
        metrics: WorkerMetrics,
        fail: Callable[[BaseException], None],
    ) -> None:
        self.tp = tp
        self._where = f"{tp.topic}[{tp.partition}]"
        self._log = partition_log
        self._make_pipeline = pipeline
        self._settings = settings
        self._metrics = metrics
        self._fail = fail
        self._queue: deque[_Held] = deque()
        self._taken: list[_Held] = []  # in history, and soon online
        self._rows = self._bytes = 0
        self._expected: int | None = None
        self._done = 0
        self._astray = False
        self._stopping = False
        self._busy_since: float | None = None
        self._counted = IngestCounts()
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def willing(self) -> bool:
        """Whether another batch may be fetched."""
        return (
            self._expected is not None
            and not self._astray
            and not self._stopping
            and self._rows < self._settings.batch_rows
            and self._bytes < self._settings.batch_bytes
        )

    @property
    def done(self) -> int | None:
        """Offset up to which everything is ingested; None before the source is claimed."""
        return None if self._expected is None else self._done

    @property
    def idle_at(self) -> int | None:
        """The offset it waits for with nothing in hand; None while it has work, or before the source is claimed."""
        return self._expected if self._busy_since is None and not self._queue else None

    @property
    def busy_since(self) -> float | None:
        """Loop time at which the batch in hand, or the claim, began; None while it waits."""
        return self._busy_since

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name=f"runner-{self._where}")

    async def stop(self, deadline_s: float) -> None:
        """Finish the batch in hand and drop the rest; past the deadline drop that too.

        What is dropped was not acknowledged and its position was not moved: the next owner reads it again.
        """
        self._stopping = True
        self._ready.set()
        task = self._task
        if task is None:
            return
        reach("during_drain")
        if self._expected is None:
            task.cancel()  # still claiming: there is no batch to finish
        done, _ = await asyncio.wait({task}, timeout=deadline_s)
        if not done:
            log.warning("%s: the batch in hand was not finished within %g s; dropped", self._where, deadline_s)
            task.cancel()
            await asyncio.wait({task}, timeout=deadline_s)
        self._drop()

    def offer(self, batch: FetchedBatch, acknowledge: Acknowledge) -> None:
        """Take a fetched batch; one that does not continue the last is dropped, and the log is read again from there.

        Args:
            batch: What was fetched.
            acknowledge: To be called when everything in it is ingested.
        """
        if self._expected is None or self._stopping:
            return
        if batch.error is not None:
            log.warning("%s: reading the log failed: %s", self._where, type(batch.error).__name__)
            self._expected = None
        elif batch.start != self._expected:
            self._astray = True
        else:
            self._astray = False
            self._expected = batch.end
            self._queue.append(_Held(batch, acknowledge))
            self._rows += len(batch.records)
            self._bytes += batch.size
        self._ready.set()

    def realign(self) -> None:
        """The consumer does not stand where this runner waits: make it go back there."""
        if self._expected is not None:
            self._astray = True
            self._ready.set()

    async def _run(self) -> None:
        try:
            while not self._stopping:
                try:
                    await self._work(await self._begin())
                except Fenced as exc:
                    log.warning("%s", exc)
                    self._drop()
                if not self._stopping:
                    await asyncio.sleep(AGAIN_S)
        except asyncio.CancelledError:
            raise
        except OomstreamError as exc:
            self._fail(exc)
        except Exception as exc:
            log.exception("%s: unexpected error", self._where)
            error = Fatal(f"{self._where}: unexpected {type(exc).__name__} in the pipeline; nothing was acknowledged")
            error.__cause__ = exc
            self._fail(error)

    async def _begin(self) -> Pipeline:
        """Claim the source, finish what its last owner left, and make the consumer read on from its position."""
        self._busy_since = asyncio.get_running_loop().time()
        backoff = Backoff(self._settings.outage_budget_us / 1e6, where=self._where)
        first, end, begin = await backoff.call(self._log.bounds)
        pipeline = self._make_pipeline()
        self._counted = IngestCounts()
        position = await pipeline.start(first, end, begin=begin)
        self._metrics.claims += 1
        log.info("%s: claimed at offset %d (the log holds %d to %d)", self._where, position, first, end)
        self._done = self._expected = position
        self._astray = not await backoff.call(lambda: self._log.begin_at(position))
        self._busy_since = None
        self._log.wake()
        return pipeline

    async def _work(self, pipeline: Pipeline) -> None:
        """Take batches until the runner is stopped or the log cannot be read on."""
        while not self._stopping:
            if self._queue:
                await self._take(pipeline)
            elif self._taken:
                await self._settle(pipeline)
            elif self._expected is None:
                return  # begin anew: the log's bounds say what has happened
            elif self._astray:
                await self._go_back(self._expected)
            else:
                await self._wait(pipeline)
        await self._settle(pipeline)
        await pipeline.flush()

    async def _wait(self, pipeline: Pipeline) -> None:
        self._ready.clear()
        try:
            async with asyncio.timeout(IDLE_S):
                await self._ready.wait()
        except TimeoutError:
            await pipeline.flush()
            await self._ready.wait()

    async def _take(self, pipeline: Pipeline) -> None:
        """Take what has come in, as one batch if the limits allow, and acknowledge what came before it."""
        held, records = self._pop()
        self._busy_since = asyncio.get_running_loop().time()
        limits = self._settings
        for piece in pieces(records, max_rows=limits.batch_rows, max_bytes=limits.batch_bytes):
            await pipeline.advance(piece)
            self._acknowledge(pipeline)
        self._taken += held

    async def _settle(self, pipeline: Pipeline) -> None:
        """Wait until all that was taken is online, and acknowledge it."""
        await pipeline.settle()
        self._busy_since = None
        self._acknowledge(pipeline)

    def _acknowledge(self, pipeline: Pipeline) -> None:
        taken, self._taken = self._taken, []
        if taken:
            self._done = taken[-1].batch.end
            pipeline.passed(self._done)
            reach("before_ack")
            for each in taken:
                each.acknowledge()
        self._count(pipeline.counts)

    def _pop(self) -> tuple[list[_Held], Sequence[Record]]:
        """Whole batches that fit into one together; at least one."""
        first = self._queue.popleft()
        held, rows, size = [first], len(first.batch.records), first.batch.size
        while self._queue:
            following = self._queue[0].batch
            rows += len(following.records)
            size += following.size
            if rows > self._settings.batch_rows or size > self._settings.batch_bytes:
                break
            held.append(self._queue.popleft())
        for each in held:
            self._rows -= len(each.batch.records)
            self._bytes -= each.batch.size
        self._log.wake()
        if len(held) == 1:
            return held, first.batch.records
        return held, [record for each in held for record in each.batch.records]

    async def _go_back(self, offset: int) -> None:
        """Read the log again from where the last batch ended."""
        self._ready.clear()
        backoff = Backoff(self._settings.outage_budget_us / 1e6, where=self._where)
        if await backoff.call(lambda: self._log.begin_at(offset)):
            self._astray = False
            self._log.wake()
        else:
            await self._ready.wait()  # not ours any more: the revocation is on its way

    def _drop(self) -> None:
        """Forget what is held, unacknowledged."""
        self._queue.clear()
        self._taken.clear()
        self._rows = self._bytes = 0
        self._expected = None
        self._astray = False
        self._busy_since = None

    def _count(self, now: IngestCounts) -> None:
        before = self._counted
        self._metrics.events += now.events - before.events
        self._metrics.dead_letters += now.dead_letters - before.dead_letters
        self._metrics.ignored_fields += now.ignored_fields - before.ignored_fields
        self._metrics.batches += now.batches - before.batches
        self._counted = IngestCounts(now.events, now.dead_letters, now.ignored_fields, now.batches)
