"""Faust's Kafka transport, fed with whole partition batches.

Faust's own consumer wraps every record in an event, which costs ten times what the pipeline does with it, and its
bookkeeping of acknowledgements can commit past an unfinished record (faust #606). Here one message carries one
partition's fetched batch; where a partition begins is decided by its runner, from the database, not by Kafka's
committed offset; and what is committed is only a hint for lag monitors.

Source:
    traps.md, Faust 2, 3, 4, 7 and 9; written for faust-streaming 0.15.3 (`self_check` refuses any other).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import aiokafka
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError, NoOffsetForPartitionError
from faust.transport.drivers.aiokafka import (
    AIOKafkaConsumerThread,
    ConsumerRebalanceListener,
    Transport,
    server_list,
)
from faust.transport.drivers.aiokafka import Consumer as AIOKafkaConsumer
from faust.types import TP, ConsumerMessage
from mode.threads import ServiceThread, WorkerThread

from oomstream.agents.worker.assignment import Assignment
from oomstream.agents.worker.batches import FetchedBatch, record_bytes
from oomstream.agents.worker.consumer_options import ConsumerOptions
from oomstream.schemas.events import Record

if TYPE_CHECKING:
    from oomstream.agents.worker.app import WorkerApp

log = logging.getLogger(__name__)

POLL_S = 0.25
"""How long one poll waits; a partition that is willing again, or a record that arrives, ends it at once."""

COMMIT_S = 3.0
"""How long a commit may take, seconds; without a limit it waits for a coordinator for ever."""

LATE_SYNC_S = 0.05
"""How long after the leader of a group on the embedded broker its other members may be, seconds."""

_HEARTBEAT_MS = 1000
"""How often the group's coordinator is asked at least, milliseconds."""

_BEGINNING_S = 0.01
"""How often a thread that is just beginning is looked at, seconds."""

_FIRST_STEP = 16
_LARGEST_STEP = 512


def _leave_records_as_they_are(fetched: Any) -> None:
    """Have aiokafka give the records that its parser made: its own class for them costs more than the parsing."""
    if isinstance(fetched, FetchResult) and fetched._partition_records is not None:
        fetched._partition_records._consumer_record = _second


def _second(_: object, record: Record) -> Record:
    return record


class EmbeddedAssignor(RoundRobinPartitionAssignor):  # type: ignore[misc]  # aiokafka has no types
    """Round robin that gives the other members of a group on the embedded broker time to ask for what they get.

    librdkafka's mock cluster refuses a member (INVALID_REQUEST) whose SyncGroup arrives after the leader's; it then
    joins again, and so must all others. Without the wait three workers took up to ten rounds to settle.
    """

    @classmethod
    def assign(cls, cluster: Any, members: Any) -> Any:
        """Assign as usual, a moment later; the leader's consumer thread can wait so long."""
        if len(members) > 1:
            time.sleep(LATE_SYNC_S)
        return super().assign(cluster, members)


class BatchScheduler:
    """Hands over each partition's batch as it is."""

    def iterate(self, records: Mapping[TP, FetchedBatch]) -> Iterator[tuple[TP, FetchedBatch]]:
        """Partitions and their batches."""
        return iter(records.items())


class PausingListener(ConsumerRebalanceListener):
    """Keeps a newly assigned partition from being fetched before its runner has said where it begins."""

    async def on_partitions_assigned(self, assigned: Any) -> None:
        """Pause each partition at offset 0, then go Faust's way."""
        consumer = self._thread._ensure_consumer()
        for tp in assigned:
            consumer.pause(tp)
            consumer.seek(tp, 0)
        await super().on_partitions_assigned(assigned)


class _Thread(WorkerThread):
    """Python does not wait for it at its own end: what Faust could not end in time holds no drained process up."""

    def __init__(self, service: ServiceThread, **kwargs: Any) -> None:
        super().__init__(service, **kwargs)
        self.daemon = True


class EndedThread(ServiceThread):
    """A service in a thread that can be ended at any time."""

    abstract = True
    Worker = _Thread

    async def stop(self) -> None:
        """End the thread, also one that is only beginning: mode would let that go on for ever."""
        # It is the other thread that says so, in its own event loop: there is no event to wait for.
        while self._thread is not None and self._thread.is_alive() and not self._started.is_set():  # noqa: ASYNC110
            await asyncio.sleep(_BEGINNING_S)
        await super().stop()


class BatchConsumerThread(EndedThread, AIOKafkaConsumerThread):
    """The consumer's thread: fetches, seeks and commits in an event loop of its own, beside the pipeline's."""

    consumer: BatchConsumer
    logger = logging.getLogger("faust.worker")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._wake = asyncio.Event()

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        options = self.consumer.options
        app = cast("WorkerApp", self.app)
        security = app.broker_security
        return aiokafka.AIOKafkaConsumer(
            client_id="oomstream-worker",
            group_id=self.app.conf.id,
            bootstrap_servers=server_list(transport.url, transport.default_port),
            partition_assignment_strategy=[EmbeddedAssignor if app.embedded else RoundRobinPartitionAssignor],
            enable_auto_commit=False,
            auto_offset_reset="none",  # a position outside the log is the runner's to judge, never to be skipped
            isolation_level="read_committed",
            fetch_max_wait_ms=options.fetch_wait_ms,
            max_partition_fetch_bytes=options.partition_fetch_bytes,
            session_timeout_ms=options.session_timeout_ms,
            # By its heartbeat a worker learns that another one joins or leaves: until then nobody can go on.
            heartbeat_interval_ms=min(options.session_timeout_ms // 3, _HEARTBEAT_MS),
            rebalance_timeout_ms=options.rebalance_timeout_ms,
            max_poll_interval_ms=options.rebalance_timeout_ms,
            request_timeout_ms=options.request_timeout_ms,
            metadata_max_age_ms=options.metadata_max_age_ms,
            **(security.aiokafka_options() if security is not None else {}),
        )

    def wake(self) -> None:
        """End a poll that waits; from any thread."""
        self.thread_loop.call_soon_threadsafe(self._wake.set)

    async def _fetch_records(  # type: ignore[override]  # a batch takes the place of a list of records
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109 (Faust's signature)
        max_records: int | None = None,
    ) -> dict[TP, FetchedBatch]:
        """Batches of the partitions whose runners have room; at once if there are any, else after a wait."""
        if not self.consumer.flow_active:
            return {}
        fetcher = consumer._fetcher
        with fetcher._subscriptions.fetch_context():
            batches = await self._drain(consumer, active_partitions)
            if batches or not timeout:
                return batches
            arrived = fetcher._create_fetch_waiter()
            woken = asyncio.ensure_future(self._wake.wait())
            try:
                await asyncio.wait({arrived, woken}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if arrived.done():
                    arrived.result()  # raises what the group's coordinator refuses
            finally:
                arrived.cancel()
                woken.cancel()
            self._wake.clear()
            return await self._drain(consumer, active_partitions)

    async def _drain(self, consumer: aiokafka.AIOKafkaConsumer, wanted: set[TP]) -> dict[TP, FetchedBatch]:
        subscriptions = consumer._fetcher._subscriptions
        if subscriptions.reassignment_in_progress:
            return {}
        batches = {}
        for tp in wanted:
            if subscriptions.is_assigned(tp):
                batch = await self._drain_one(consumer, tp)
                if batch is not None:
                    batches[tp] = batch
        return batches

    async def _drain_one(self, consumer: aiokafka.AIOKafkaConsumer, tp: TP) -> FetchedBatch | None:
        """What was fetched of one partition, within the limits of a batch.

        `fetched_records` with no timeout never lets go of the loop, so nothing can seek in between, and the positions
        before and after say exactly which stretch of the log was read.
        """
        options = self.consumer.options
        state = consumer._fetcher._subscriptions.subscription.assignment.state_value(tp)
        if not state.has_valid_position or state.paused:
            return None
        start, size, step = state.position, 0, _FIRST_STEP
        records: list[Record] = []
        try:
            while len(records) < options.batch_rows and size < options.batch_bytes:
                step = min(step, options.batch_rows - len(records))
                _leave_records_as_they_are(consumer._fetcher._records.get(tp))
                drained = await consumer._fetcher.fetched_records({tp}, timeout=0, max_records=step)
                more = drained.get(TopicPartition(tp.topic, tp.partition), ())
                if not more:
                    break
                records += more
                size += sum(map(record_bytes, more))
                # A compressed fetch can unfold to any size: go on in steps of about what still fits.
                fits = (options.batch_bytes - size) * len(records) // max(size, 1)
                step = max(1, min(step * 2, _LARGEST_STEP, fits))
        except NoOffsetForPartitionError:
            return None  # from before the runner's seek
        except KafkaError as exc:
            if not records:
                return FetchedBatch(start, start, error=exc)
        end = state.position
        return FetchedBatch(start, end, records, size) if end > start else None

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit as a hint for lag monitors; that it fails is nobody's trouble."""
        consumer = self._ensure_consumer()
        held = {tp: offset for tp, offset in offsets.items() if tp in self.assignment()}
        if not held:
            return False
        try:
            async with asyncio.timeout(COMMIT_S):
                await consumer.commit({TopicPartition(*tp): offset for tp, offset in held.items()})
        except (KafkaError, TimeoutError) as exc:
            log.info("offsets not committed to the group: %s", type(exc).__name__)
            return False
        return True

    async def on_thread_stop(self) -> None:
        """End the consumer; with the broker away aiokafka lets a cancellation of its own out."""
        with contextlib.suppress(asyncio.CancelledError):
            try:
                await super().on_thread_stop()
            except AttributeError:
                # aiokafka 0.14: of a connection that is closed while it is being made it has no reader's task to end,
                # and stumbles; by then it is closed, and the others are not.
                await self._ensure_consumer()._client.close()

    async def run_here(self, coroutine: Any, timeout_s: float) -> Any:
        """Run a coroutine in this thread's loop, from the main loop, within a deadline."""
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self.thread_loop)
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(future)
        finally:
            if self.thread_loop.is_closed():
                coroutine.close()  # the thread has ended, and will never run it

    async def begin_at(self, tp: TP, offset: int) -> bool:
        """Read a partition from an offset on; False if it is not assigned any more."""
        consumer = self._ensure_consumer()
        if tp not in self.assignment():
            return False
        consumer.seek(tp, offset)
        consumer.resume(TopicPartition(tp.topic, tp.partition))
        return True

    async def bounds(self, tp: TP, time_ms: int | None) -> tuple[int, int, int | None]:
        """First offset and end of a partition's log, and the first offset at or after a time, if one was asked."""
        consumer = self._ensure_consumer()
        first = (await consumer.beginning_offsets([tp]))[tp]
        end = (await consumer.end_offsets([tp]))[tp]
        if time_ms is None:
            return first, end, None
        found = (await consumer.offsets_for_times({tp: time_ms}))[tp]
        return first, end, end if found is None else found.offset

    def position_of(self, tp: TP) -> int | None:
        """Offset of the next record that this consumer would hand over, if there is one; from any thread."""
        subscription = self._ensure_consumer()._fetcher._subscriptions.subscription
        state = subscription.assignment.state_value(tp) if subscription and subscription.assignment else None
        return state.position if state is not None and state.has_valid_position else None

    async def coordination_error(self) -> tuple[Exception | None, bool]:
        """What went wrong in the group since the last call, and whether coordination has ended for good.

        aiokafka stops rejoining after an unexpected answer until somebody has taken the error from it. Its own polls
        do that; Faust goes round them, and would wait for an assignment for ever.
        """
        coordinator = self._ensure_consumer()._coordinator
        ended = coordinator._coordination_task.done()
        try:
            coordinator.check_errors()
        except KafkaError as exc:
            return exc, ended
        return None, ended

    async def ends(self) -> dict[TP, int]:
        """End of the log of every assigned partition."""
        held = self.assignment()
        found: dict[TP, int] = await self._ensure_consumer().end_offsets(held) if held else {}
        return found


class BatchConsumer(AIOKafkaConsumer):
    """Faust's consumer with one message per partition batch, its positions left to the runners."""

    RebalanceListener = PausingListener
    logger = logging.getLogger("faust.worker")

    options: ConsumerOptions
    partitions: Assignment
    thread: BatchConsumerThread

    def _new_consumer_thread(self) -> BatchConsumerThread:
        app = cast("WorkerApp", self.app)
        self.options = app.consumer_options
        self.partitions = app.partitions
        self.thread = BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)
        return self.thread

    def _to_message(self, tp: TP, record: FetchedBatch) -> ConsumerMessage:
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            record.end - 1,
            0.0,
            0,
            [],
            None,
            cast(Any, record),
            None,
            None,
            None,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """A batch's offset is its last record's, so gaps between messages mean nothing."""

    def _new_offset(self, tp: TP) -> int | None:
        """Runners acknowledge in order, so everything up to the greatest is done."""
        acked = self._acked[tp]
        if not acked:
            return None
        offset: int = max(acked) + 1
        acked.clear()
        self._acked_index[tp].clear()
        return offset

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Kafka's committed offsets are never read: each runner seeks when it has claimed its source."""
        return {}

    async def _wait_next_records(self, timeout: float) -> tuple[Any, set[TP] | None]:  # noqa: ASYNC109
        if not self.flow_active:
            await self.wait(cast(Any, self.can_resume_flow))
        wanted = self.partitions.wanting()
        return await self._getmany(active_partitions=wanted, timeout=POLL_S), wanted

    def verify_event_path(self, now: float, tp: TP) -> None:
        """The worker's own watchdog looks for a stopped stream, and does something about it."""

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let the runners finish or drop what they hold, commit the hint, then go Faust's way."""
        await self.partitions.revoke(revoked)
        await self.commit()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Go Faust's way, then give each partition a runner."""
        await super().on_partitions_assigned(assigned, generation_id)
        self.partitions.assign(assigned)

    def forget_read_offset(self, tp: TP) -> None:
        """Faust drops messages below the last one it saw; after a seek back they are wanted."""
        self._read_offset[tp] = None


class BatchTransport(Transport):
    """Faust's transport with our consumer."""

    Consumer = BatchConsumer
