"""What the worker's tests share: a small group, settings on a folder, a pipeline that writes down its input."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from oomstream.agents.worker import Worker
from oomstream.agents.worker.runner import Pipeline
from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.catalog import Catalog
from oomstream.schemas.errors import Fenced, LostRange
from oomstream.schemas.events import Record
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.plan import make_plan
from oomstream.stores.base import SourceName
from oomstream.stores.catalog_cache import CatalogCache
from oomstream.stores.opening import Stores, open_stores
from oomstream.stores.settings import Settings, load_settings
from oomstream.streams.broker import Broker
from oomstream.streams.ingest import IngestCounts
from oomstream.streams.topics import ensure_topics, topics_of

DEADLINE_S = 60.0
"""Nothing that a test waits for takes longer on the slowest machine."""


def group(name: str = "plane", partitions: int = 4, **more: Any) -> FeatureGroup:
    """A stream group with one key, an event time and two features."""
    return group_from_avsc(
        {
            "type": "record",
            "name": name,
            "entity": "plane",
            "keys": ["tail"],
            "event_time": "at",
            "partitions": partitions,
            "fields": [
                {"name": "tail", "type": "string"},
                {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
                {"name": "delay", "type": "long"},
                {"name": "carrier", "type": ["null", "string"]},
            ],
            **more,
        }
    )


def settings_for(folder: Path, broker: Broker, **more: Any) -> Settings:
    """Settings on a folder and a broker, with a short session timeout."""
    return load_settings(**{"data_dir": folder, "broker_url": broker.url, "session_timeout_us": 1_500_000, **more})


def apply(settings: Settings, broker: Broker, *groups: FeatureGroup) -> Catalog:
    """Register groups and make their topics; from a thread without an event loop."""
    return asyncio.run(apply_async(settings, broker, *groups))


async def apply_async(settings: Settings, broker: Broker, *groups: FeatureGroup) -> Catalog:
    """As `apply`, in an event loop."""
    async with open_stores(settings) as stores:
        catalog = await stores.history.apply(make_plan(await stores.history.load_catalog(), list(groups)))
    ensure_topics(broker, topics_of(each.group for each in catalog.groups.values()), timeout_s=10)
    return catalog


async def until(condition: Callable[[], bool], *, task: asyncio.Future[Any] | None = None) -> None:
    """Wait until a condition holds; fails if it never does, or raises what a task that must go on ended with."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if task is not None and task.done():
            task.result()
            raise AssertionError("the task ended before the condition held")
        assert time.monotonic() < deadline, "the condition never held"
        await asyncio.sleep(0.01)


def produce(broker: Broker, topic: str, messages: Sequence[tuple[int, bytes]], **config: Any) -> None:
    """Write raw values to given partitions and wait until all are acknowledged."""
    producer = Producer({**broker.client_config(10), "linger.ms": 1, "enable.idempotence": True, **config})
    failed: list[str] = []
    for partition, value in messages:
        while True:
            try:
                producer.produce(
                    topic,
                    value,
                    partition=partition,
                    on_delivery=lambda error, _: failed.append(error.str()) if error else None,
                )
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(DEADLINE_S) == 0
    assert not failed


def committed(broker: Broker, group_id: str, topic: str, partitions: int) -> dict[int, int]:
    """Offsets that a consumer group has committed; partitions with none are left out."""
    consumer = Consumer({**broker.client_config(10), "group.id": group_id})
    try:
        found = consumer.committed([TopicPartition(topic, number) for number in range(partitions)], timeout=10)
    finally:
        consumer.close()
    return {each.partition: each.offset for each in found if each.offset >= 0}


def commit(broker: Broker, group_id: str, topic: str, offsets: dict[int, int]) -> None:
    """Set a consumer group's offsets, as a member of it (the embedded broker takes them from nobody else)."""
    options = {"group.id": group_id, "enable.auto.commit": False, "session.timeout.ms": 1_500}
    consumer = Consumer({**broker.client_config(10), **options, "heartbeat.interval.ms": 500})
    consumer.subscribe([topic])
    deadline = time.monotonic() + DEADLINE_S
    try:
        while len(consumer.assignment()) < len(offsets):
            consumer.poll(0.1)
            assert time.monotonic() < deadline, "the group never let a new member in"
        consumer.commit(
            offsets=[TopicPartition(topic, number, offset) for number, offset in offsets.items()], asynchronous=False
        )
    finally:
        consumer.close()


class Written:
    """What recording pipelines have ingested, and the positions that they share as a database would.

    Attributes:
        records: (offset, value) of every ingested record by partition, in the order of ingest.
        batches: Rows of every batch.
        positions: Next offset by source.
        owners: Times that a source was claimed.
        hold: Partitions whose ingest waits until they are taken out.
    """

    def __init__(self) -> None:
        self.records: dict[int, list[tuple[int, bytes | None]]] = defaultdict(list)
        self.batches: list[int] = []
        self.positions: dict[SourceName, int] = {}
        self.owners: dict[SourceName, int] = defaultdict(int)
        self.hold: dict[int, asyncio.Event] = {}

    @property
    def count(self) -> int:
        """How many records were ingested."""
        return sum(map(len, self.records.values()))


class RecordingPipeline:
    """A pipeline whose database is a `Written`: fenced like the real one, and writing down what it is given."""

    def __init__(self, written: Written, name: SourceName) -> None:
        self.counts = IngestCounts()
        self._written = written
        self._name = name
        self._owner = 0

    async def start(self, first: int, last: int, *, begin: int) -> int:
        """Claim the source."""
        self._written.owners[self._name] += 1
        self._owner = self._written.owners[self._name]
        position = self._written.positions.setdefault(self._name, begin)
        if not first <= position <= last:
            raise LostRange(f"position {position} is outside the log, {first} to {last}")
        return position

    async def advance(self, records: Sequence[Record]) -> None:
        """Write down what is new."""
        if held := self._written.hold.get(self._name.partition):
            await held.wait()
        await asyncio.sleep(0)
        if self._owner != self._written.owners[self._name]:
            raise Fenced("another owner has claimed the source")
        position = self._written.positions[self._name]
        new = [record for record in records if record.offset >= position]
        self._written.records[self._name.partition] += [(record.offset, record.value) for record in new]
        self._written.positions[self._name] = records[-1].offset + 1
        self._written.batches.append(len(records))
        self.counts.events += len(new)
        self.counts.batches += 1

    async def settle(self) -> None:
        """Nothing is behind."""

    def passed(self, end: int) -> None:
        """Nothing to remember."""

    async def flush(self) -> None:
        """Nothing to store."""


class RecordingWorker(Worker):
    """The worker, on recording pipelines."""

    def __init__(self, written: Written, settings: Settings, broker: Broker, **more: Any) -> None:
        super().__init__(settings, broker=broker, **more)
        self._written = written

    def _pipelines(self, stores: Stores, catalog: CatalogCache, broker: Broker) -> Callable[[SourceName], Pipeline]:
        return lambda name: RecordingPipeline(self._written, name)
