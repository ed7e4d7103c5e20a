"""A partition's runner: in order, without a gap, whatever reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

import pytest
from faust.types import TP

from oomstream.agents.worker.batches import FetchedBatch, pieces, record_bytes
from oomstream.agents.worker.metrics import METRICS, WorkerMetrics
from oomstream.agents.worker.runner import PartitionRunner
from oomstream.schemas.errors import DlqLimitReached, Fatal, Fenced
from oomstream.schemas.events import RawRecord, Record
from oomstream.stores.settings import load_settings
from oomstream.streams.ingest import IngestCounts
from tests.unit.agents.harness import until

TOPIC = TP("plane", 0)


def batch(start: int, end: int, *offsets: int) -> FetchedBatch:
    """A batch of a stretch of the log; records at every offset of it if none are given."""
    records = [RawRecord(at, None, b"x", 0) for at in (offsets or range(start, end))]
    return FetchedBatch(start, end, records, len(records))


class Log:
    """A partition's log that writes down where it was asked to begin."""

    def __init__(self, end: int = 1_000) -> None:
        self.end = end
        self.sought: list[int] = []
        self.ours = True

    async def bounds(self) -> tuple[int, int, int]:
        """The log holds offsets from 0."""
        return 0, self.end, 0

    async def begin_at(self, offset: int) -> bool:
        """Seek."""
        self.sought.append(offset)
        return self.ours

    def wake(self) -> None:
        """Nobody polls here."""


class Ingested:
    """A pipeline that writes down offsets, and fails when told to."""

    def __init__(self, position: int = 0) -> None:
        self.counts = IngestCounts()
        self.position = position
        self.offsets: list[int] = []
        self.batches: list[int] = []
        self.flushes = self.claims = self.passed_to = 0
        self.failure: BaseException | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.online = asyncio.Event()
        self.online.set()

    async def start(self, first: int, last: int, *, begin: int) -> int:
        """Claim."""
        self.claims += 1
        return self.position

    async def advance(self, records: Sequence[Record]) -> None:
        """Take a batch; what came before it is online then."""
        if self.offsets:
            await self.online.wait()
        await self.gate.wait()
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        self.offsets += [record.offset for record in records]
        self.batches.append(len(records))
        self.position = records[-1].offset + 1
        self.counts.events += len(records)
        self.counts.batches += 1

    async def settle(self) -> None:
        """Wait for the last batch."""
        await self.online.wait()

    def passed(self, end: int) -> None:
        """There is nothing more before `end`."""
        self.passed_to = end

    async def flush(self) -> None:
        """Store the position."""
        self.flushes += 1


class Stage:
    """A runner on a `Log` and an `Ingested`, and what it acknowledged and failed with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **limits: Any) -> None:
        monkeypatch.setattr("oomstream.agents.worker.runner.AGAIN_S", 0.0)
        self.log = Log()
        self.pipeline = Ingested()
        self.metrics = WorkerMetrics()
        self.acknowledged: list[int] = []
        self.failures: list[BaseException] = []
        self.runner = PartitionRunner(
            TOPIC,
            partition_log=self.log,
            pipeline=lambda: self.pipeline,
            settings=load_settings(**limits),
            metrics=self.metrics,
            fail=self.failures.append,
        )

    async def started(self) -> PartitionRunner:
        """The runner, once it waits for batches."""
        self.runner.start()
        await until(lambda: self.runner.idle_at is not None)
        return self.runner

    def offer(self, *batches: FetchedBatch) -> None:
        """Hand batches over."""
        for each in batches:
            self.runner.offer(each, partial(self.acknowledged.append, each.end))


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A stage with small batches."""
    return Stage(monkeypatch, batch_rows=10)


def play(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario."""
    asyncio.run(asyncio.wait_for(scenario, 30))


def test_batches_are_ingested_and_acknowledged_in_order(stage: Stage) -> None:
    """What comes in while a batch is in hand is taken together, within the limit, and acknowledged in order."""

    async def scenario() -> None:
        runner = await stage.started()
        stage.pipeline.gate.clear()
        stage.offer(batch(0, 4))
        await asyncio.sleep(0)
        stage.offer(batch(4, 8), batch(8, 12), batch(12, 16))
        stage.pipeline.gate.set()
        await until(lambda: runner.done == 16)
        assert stage.pipeline.offsets == list(range(16))
        assert max(stage.pipeline.batches) <= 10
        assert stage.acknowledged == [4, 8, 12, 16]
        assert stage.metrics.events == 16
        await runner.stop(5)
        assert stage.pipeline.flushes

    play(scenario())


def test_nothing_is_acknowledged_that_is_not_online(stage: Stage) -> None:
    """A batch that is in history is acknowledged when its online rows are there, though a batch behind it waits too."""

    async def scenario() -> None:
        runner = await stage.started()
        stage.pipeline.online.clear()
        stage.offer(batch(0, 8))
        await until(lambda: stage.pipeline.position == 8)
        stage.offer(batch(8, 16))
        for _ in range(10):
            await asyncio.sleep(0)
        assert (stage.acknowledged, runner.done, runner.idle_at) == ([], 0, None)
        stage.pipeline.online.set()
        await until(lambda: runner.idle_at == 16)
        assert (stage.acknowledged, runner.done) == ([8, 16], 16)
        await runner.stop(1)

    play(scenario())


def test_a_gap_without_records_is_passed(stage: Stage) -> None:
    """Case 25: transaction markers and compacted stretches count as read, so that lag reaches zero."""

    async def scenario() -> None:
        runner = await stage.started()
        stage.offer(batch(0, 5, 1, 3), FetchedBatch(5, 9), batch(9, 10))
        await until(lambda: runner.done == 10)
        assert stage.pipeline.offsets == [1, 3, 9]
        assert stage.acknowledged == [5, 9, 10]
        stage.offer(FetchedBatch(10, 12))
        await until(lambda: stage.pipeline.passed_to == 12)
        await runner.stop(5)

    play(scenario())


def test_a_batch_that_does_not_continue_the_last_is_dropped(stage: Stage) -> None:
    """After a dropped batch the log is read again from where the last one ended; nothing is left out."""

    async def scenario() -> None:
        runner = await stage.started()
        stage.offer(batch(0, 5), batch(7, 9))
        assert not runner.willing
        await until(lambda: stage.log.sought == [0, 5])
        stage.offer(batch(5, 9))
        await until(lambda: runner.done == 9)
        assert stage.pipeline.offsets == list(range(9))
        assert stage.acknowledged == [5, 9]
        await runner.stop(5)

    play(scenario())


def test_a_consumer_that_read_past_the_runner_is_called_back(stage: Stage) -> None:
    """If the last batch before silence was lost on the way, `realign` makes the consumer read it again."""

    async def scenario() -> None:
        runner = await stage.started()
        runner.realign()
        await until(lambda: stage.log.sought == [0, 0])
        assert runner.willing
        await runner.stop(5)

    play(scenario())


def test_it_holds_little(stage: Stage) -> None:
    """With a batch in hand it takes one more and then is not willing; it is again when there is room."""

    async def scenario() -> None:
        runner = await stage.started()
        stage.pipeline.gate.clear()
        stage.offer(batch(0, 10))
        await until(lambda: runner.busy_since is not None)
        assert runner.willing
        stage.offer(batch(10, 20))
        assert not runner.willing
        stage.pipeline.gate.set()
        await until(lambda: runner.done == 20)
        assert runner.willing
        await runner.stop(5)

    play(scenario())


def test_fenced_claims_again_and_repeats_only_what_was_not_done(stage: Stage) -> None:
    """A fenced batch is not acknowledged; after a new claim the log is read from the database's position."""

    async def scenario() -> None:
        runner = await stage.started()
        stage.pipeline.failure = Fenced("another owner")
        stage.offer(batch(0, 5), batch(5, 6))
        await until(lambda: stage.pipeline.claims == 2 and runner.idle_at == 0)
        assert stage.acknowledged == []
        stage.offer(batch(0, 6))
        await until(lambda: stage.acknowledged == [6])
        assert stage.metrics.claims == 2
        await runner.stop(5)

    play(scenario())


def test_an_unreadable_log_makes_it_begin_anew(stage: Stage) -> None:
    """An error of the consumer leads to a new look at the log's bounds, not to a guess."""

    async def scenario() -> None:
        runner = await stage.started()
        stage.offer(FetchedBatch(0, 0, error=RuntimeError("offset out of range")))
        await until(lambda: stage.pipeline.claims == 2 and runner.idle_at == 0)
        await runner.stop(5)

    play(scenario())


@pytest.mark.parametrize("error", [DlqLimitReached("too many"), Fatal("no"), ValueError("bug")])
def test_what_must_stop_the_worker_is_reported_once(stage: Stage, error: Exception) -> None:
    """Case 24: fatal errors pass as they are, a programming error as one that names the partition; nothing is acked."""

    async def scenario() -> None:
        await stage.started()
        stage.pipeline.failure = error
        stage.offer(batch(0, 5))
        await until(lambda: bool(stage.failures))
        (failure,) = stage.failures
        assert failure is error if isinstance(error, Fatal) else str(failure).startswith("plane[0]: unexpected Value")
        assert isinstance(failure, Fatal)
        assert stage.acknowledged == []
        await stage.runner.stop(5)

    play(scenario())


def test_stop_finishes_the_batch_in_hand(stage: Stage) -> None:
    """Case 23: a batch in hand is finished and acknowledged at a stop; what waits behind it is dropped."""

    async def scenario() -> None:
        runner = await stage.started()
        stage.pipeline.gate.clear()
        stage.offer(batch(0, 10), batch(10, 20))
        await until(lambda: runner.busy_since is not None)
        stopping = asyncio.create_task(runner.stop(20))
        await asyncio.sleep(0)
        stage.pipeline.gate.set()
        await stopping
        assert stage.pipeline.offsets == list(range(10))
        assert stage.acknowledged == [10]
        stage.offer(batch(20, 21))
        assert not runner.willing

    play(scenario())


def test_stop_drops_what_does_not_end(stage: Stage) -> None:
    """Case 23: a batch that does not end by the deadline is dropped, unacknowledged; no rebalance is held up."""

    async def scenario() -> None:
        runner = await stage.started()
        stage.pipeline.gate.clear()
        stage.offer(batch(0, 10))
        await until(lambda: runner.busy_since is not None)
        await runner.stop(0.01)
        assert stage.acknowledged == []
        assert stage.failures == []

    play(scenario())


def test_pieces_keep_both_limits() -> None:
    """Runs of records keep to rows and bytes, in order; a record larger than the limit stands alone."""
    records = [RawRecord(at, b"k", bytes(size), 0) for at, size in enumerate([9, 9, 9, 99, 1, 1, 1, 1])]
    runs = [[record.offset for record in run] for run in pieces(records, max_rows=3, max_bytes=25)]
    assert runs == [[0, 1], [2], [3], [4, 5, 6], [7]]
    assert record_bytes(RawRecord(0, None, None, 0)) == 0
    assert list(pieces([], max_rows=3, max_bytes=25)) == []


def test_every_metric_is_a_figure() -> None:
    """The typed list names exactly the figures of `WorkerMetrics`."""
    assert set(WorkerMetrics().snapshot()) == {metric.name for metric in METRICS} == set(WorkerMetrics.__slots__)
