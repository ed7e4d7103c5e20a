"""The Faust app: one agent per topic, each handing partition batches to the runners."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

import faust
from aiokafka.errors import KafkaError
from faust.app.base import BootStrategy
from faust.serializers.schemas import Schema
from faust.types import TP
from yarl import URL

from oomstream.agents.worker.assignment import Assignment
from oomstream.agents.worker.consumer_options import ConsumerOptions
from oomstream.agents.worker.transport import BatchConsumer, BatchScheduler, BatchTransport
from oomstream.schemas.errors import StoreUnavailable
from oomstream.streams.broker import Broker

CALL_S = 30.0
"""Deadline of one call into the consumer's thread."""

_ENV_PREFIX = "_OOMSTREAM_NO_SUCH_VARIABLE"


class ConsumerOnly(BootStrategy):
    """No producer, no web server (Faust opens one on all interfaces), no tables."""

    enable_kafka_producer = False
    enable_web = False


class BatchSchema(Schema[Any, Any]):
    """A message's value is a fetched batch already; nothing is decoded here, and no codec can be chosen by anybody."""

    def loads_key(self, app: Any, message: Any, **_: Any) -> None:
        """No key."""

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:
        """The batch itself."""
        return message.value


class WorkerApp(faust.App):
    """A Faust app that keeps nothing on disk and says when it crashes, for Faust itself goes on in silence.

    Args:
        broker: Where.
        group: Kafka consumer group.
        options: How the consumer is set.
        partitions: Runners by partition.
        failed: Called with the reason of a crash.
    """

    BootStrategy = ConsumerOnly
    logger = logging.getLogger("faust.worker")

    def __init__(
        self,
        broker: Broker,
        group: str,
        options: ConsumerOptions,
        partitions: Assignment,
        failed: Callable[[BaseException], None],
    ) -> None:
        self.consumer_options = options
        self.broker_security = broker.security
        self.embedded = broker.embedded
        self.partitions = partitions
        self._failed = failed
        super().__init__(
            group,
            broker=[URL(f"kafka://{server}") for server in broker.servers],
            # Without a prefix Faust would take its settings from variables such as BROKER_URL and DEBUG.
            env_prefix=_ENV_PREFIX,
            autodiscover=False,
            broker_commit_interval=options.commit_interval_s,
            broker_request_timeout=options.request_timeout_ms / 1000,
            broker_session_timeout=options.session_timeout_ms / 1000,
            consumer_auto_offset_reset="earliest",  # Faust's own; the consumer is made with "none"
            key_serializer="raw",
            value_serializer="raw",
            store="memory://",
            stream_wait_empty=False,
            stream_recovery_delay=0.0,
            table_standby_replicas=0,
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
            ConsumerScheduler=BatchScheduler,
        )
        self.transport = BatchTransport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """Faust would make a data folder for tables."""

    async def crash(self, reason: BaseException) -> None:
        """Stop the worker: a crashed app would stay and do nothing."""
        self._failed(reason)
        await super().crash(reason)

    def add_topics(self, topics: Iterable[str]) -> None:
        """Give each topic its agent."""
        partitions, failed = self.partitions, self._failed

        async def hand_over(stream: Any) -> None:
            # Of Faust's ways to read a stream only this one acknowledges nothing by itself (traps.md, Faust 1).
            async for event in stream.noack().events():
                try:
                    partitions.offer(event.message.tp, event.value, event.ack)
                except Exception as exc:  # Faust would start the agent again and go on
                    failed(exc)
                    raise

        for topic in topics:
            channel = self.topic(topic, schema=BatchSchema(), internal=False)
            self.agent(channel, name=f"ingest {topic}")(hand_over)

    @property
    def batch_consumer(self) -> BatchConsumer:
        """The consumer."""
        return cast(BatchConsumer, self.consumer)


class ConsumerLog:
    """A runner's view of its partition, through the consumer's thread.

    Args:
        app: The app.
        tp: The partition.
        start: Where a source never seen begins: ``earliest``, ``latest``, or a time in UTC milliseconds.
        check: Makes sure that the topic is still the one that the source is of; raises Fatal if not.
    """

    def __init__(self, app: WorkerApp, tp: TP, start: str | int, check: Callable[[], Awaitable[None]]) -> None:
        self._app = app
        self._tp = tp
        self._start = start
        self._check = check

    async def bounds(self) -> tuple[int, int, int]:
        """First offset, end, and the offset where a source never seen begins."""
        await self._check()
        time_ms = self._start if isinstance(self._start, int) else None
        first, end, at_time = await self._call(lambda thread: thread.bounds(self._tp, time_ms))
        return first, end, at_time if at_time is not None else end if self._start == "latest" else first

    async def begin_at(self, offset: int) -> bool:
        """Fetch from an offset on; False if the partition is not ours any more."""
        self._app.batch_consumer.forget_read_offset(self._tp)
        ours: bool = await self._call(lambda thread: thread.begin_at(self._tp, offset))
        return ours

    def wake(self) -> None:
        """There is room for another batch."""
        self._app.batch_consumer.thread.wake()

    async def _call(self, make: Callable[[Any], Any]) -> Any:
        return await call_consumer(self._app, make, f"{self._tp.topic}[{self._tp.partition}]")


async def call_consumer(app: WorkerApp, make: Callable[[Any], Any], where: str) -> Any:
    """Run a coroutine of the consumer's thread there.

    Args:
        app: The app.
        make: Makes the coroutine from the `BatchConsumerThread`.
        where: Names what asks, for messages.

    Raises:
        StoreUnavailable: The broker or the thread does not answer in time.
    """
    thread = app.batch_consumer.thread
    try:
        return await thread.run_here(make(thread), CALL_S)
    except KafkaError as exc:  # first: it is a RuntimeError
        raise StoreUnavailable(f"{where}: the broker does not answer: {type(exc).__name__}") from exc
    except (TimeoutError, RuntimeError) as exc:
        raise StoreUnavailable(f"{where}: the Kafka consumer does not answer") from exc
