"""What happens to topics on a real Kafka while workers read them: gaps, new incarnations, more partitions, no DLQ."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
)

from oomstream.agents.worker import Worker
from oomstream.schemas.errors import Fatal
from oomstream.schemas.groups import FeatureGroup
from oomstream.stores.settings import Settings
from oomstream.streams.broker import Broker, parse_broker
from oomstream.streams.dlq_topic import dlq_topic, read_dead_letters
from oomstream.streams.topics import partition_counts
from tests.faults.harness import Left, left
from tests.integration.feed import plane_group
from tests.services.server import Server
from tests.unit.agents.harness import apply, produce, settings_for, until

AT = 1_700_000_000_000_000


def event(tail: str, at: int, delay: int) -> bytes:
    """A JSON event of the group `plane`."""
    return json.dumps({"tail": tail, "at": AT + at, "delay": delay, "carrier": None}).encode()


class Place:
    """A real broker, embedded stores, and the group `plane` on a topic of its own.

    Attributes:
        broker: The broker.
        admin: Its administration.
        settings: Of the workers.
        group: The group.
    """

    def __init__(self, folder: Path, kafka: Server, partitions: int = 1) -> None:
        self.broker: Broker = parse_broker(kafka.url)
        self.admin = AdminClient(self.broker.client_config(30))
        self.group: FeatureGroup = plane_group(partitions)
        self.settings: Settings = settings_for(
            folder, self.broker, consumer_group=f"workers-{self.topic}", call_timeout_us=5_000_000
        )

    @property
    def topic(self) -> str:
        """Name of the topic."""
        return self.group.topic

    def apply(self) -> None:
        """Register the group and make its topics, as far as they are missing."""
        apply(self.settings, self.broker, self.group)

    def produce(self, *values: bytes, partition: int = 0) -> None:
        """Write values."""
        produce(self.broker, self.topic, [(partition, value) for value in values])

    def end(self) -> int:
        """End of the log of partition 0."""
        consumer = Consumer({**self.broker.client_config(30), "group.id": "looks-at-ends"})
        try:
            _, end = consumer.get_watermark_offsets(TopicPartition(self.topic, 0), 30)
        finally:
            consumer.close()
        return end

    @asynccontextmanager
    async def working(self) -> AsyncIterator[tuple[Worker, asyncio.Task[None]]]:
        """A worker that is drained in the end."""
        worker = Worker(self.settings, broker=self.broker)
        task = asyncio.create_task(worker.run())
        try:
            yield worker, task
        finally:
            worker.stop()
            await task

    async def read_to_the_end(self, events: int) -> None:
        """Run a worker until it has ingested so many events and its lag is zero."""
        async with self.working() as (worker, task):
            await until(lambda: worker.metrics.events >= events and worker.metrics.lag == 0, task=task)

    def left(self) -> Left:
        """What is in the stores."""
        return left(self.settings)


@pytest.fixture
def place(tmp_path: Path, kafka_server: Server) -> Iterator[Place]:
    """A place whose topic is not made yet."""
    place = Place(tmp_path, kafka_server)
    yield place
    for future in place.admin.delete_topics([place.topic, dlq_topic(place.topic)]).values():
        future.exception(30)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that Kafka does by itself."""
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def test_transactions_leave_no_lag_and_no_loss(place: Place) -> None:
    """Case 25: transaction markers count as read in the database too, and are not missed when the log drops them."""
    place.apply()
    producer = Producer({**place.broker.client_config(30), "transactional.id": place.topic})
    producer.init_transactions(30)
    for number, commits in enumerate([True, False, True, False]):
        producer.begin_transaction()
        for at in range(5):
            producer.produce(place.topic, event("N1", at, number), partition=0)
        producer.flush(30)
        producer.commit_transaction(30) if commits else producer.abort_transaction(30)
    end = place.end()
    assert end == 24
    asyncio.run(place.read_to_the_end(10))
    found = place.left()
    assert [row.values[0] for row in found.history] == [0] * 5 + [2] * 5
    assert [(each.next_sequence, each.online_sequence) for each in found.sources] == [(end, end)]

    future = place.admin.delete_records([TopicPartition(place.topic, 0, end)])
    assert next(iter(future.values())).result(30).low_watermark == end
    place.produce(event("N1", 9, 4))
    asyncio.run(place.read_to_the_end(1))
    assert len(place.left().history) == 11


def test_a_compacted_topic_is_read_to_its_end(place: Place, kafka_server: Server) -> None:
    """Case 25: offsets that compaction has taken out of the middle are passed; lag is zero, nothing else is missing."""
    quick = {"cleanup.policy": "compact", "segment.ms": "50", "min.cleanable.dirty.ratio": "0.01"}
    place.admin.create_topics([NewTopic(place.topic, 1, 1, config=quick)])[place.topic].result(30)
    place.apply()
    set_cleaner_pause(place.admin, "200")
    try:
        keyed = Producer(place.broker.client_config(30))
        for number in range(200):
            keyed.produce(place.topic, event(f"N{number % 4}", number, number), f"N{number % 4}", 0)
            if number % 40 == 39:
                keyed.flush(30)
                time.sleep(0.1)  # old enough for a segment of its own: what is being written is never compacted
        keyed.flush(30)
        wait_until(lambda: len(offsets_of(place)) < 150)
        left_over = offsets_of(place)
        assert left_over[-1] == 199
    finally:
        set_cleaner_pause(place.admin, "15000")
    asyncio.run(place.read_to_the_end(1))
    found = place.left()
    read = [row.sequence for row in found.history]
    assert len(read) < 150
    assert read[-1] == 199
    assert set(offsets_of(place)) <= set(read) <= set(left_over)
    assert found.sources[0].next_sequence == place.end()
    assert {key: values[0] for key, (_, values) in found.online.items()} == {(f"N{n}",): 196 + n for n in range(4)}


def set_cleaner_pause(admin: AdminClient, milliseconds: str) -> None:
    """How long Kafka's compaction rests when there was nothing to do."""
    change = ConfigEntry("log.cleaner.backoff.ms", milliseconds, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.BROKER, "1", incremental_configs=[change])
    admin.incremental_alter_configs([resource])[resource].result(30)


def offsets_of(place: Place) -> list[int]:
    """Offsets that the log of partition 0 still has."""
    options = {"group.id": "looks-at-offsets", "enable.partition.eof": True, "enable.auto.commit": False}
    consumer = Consumer({**place.broker.client_config(30), **options})
    consumer.assign([TopicPartition(place.topic, 0, 0)])
    offsets: list[int] = []
    try:
        while (message := consumer.poll(30)) is not None and message.error() is None:
            offsets.append(message.offset() or 0)
    finally:
        consumer.close()
    return offsets


def test_a_topic_made_again_is_another_source(place: Place) -> None:
    """Case 27: a topic made again is read from its beginning, once, and its older events do not win."""
    place.apply()
    place.produce(event("N1", 50, 1), event("N2", 10, 2))
    asyncio.run(place.read_to_the_end(2))
    make_again(place)
    place.produce(event("N1", 40, 3), event("N2", 20, 4), event("N2", 10, 5))
    asyncio.run(place.read_to_the_end(3))
    asyncio.run(place.read_to_the_end(0))
    found = place.left()
    assert [(row.source_id, row.sequence, row.values[0]) for row in found.history] == [
        (1, 0, 1), (1, 1, 2), (2, 0, 3), (2, 1, 4), (2, 2, 5)
    ]  # fmt: skip
    assert {key: values[0] for key, (_, values) in found.online.items()} == {("N1",): 1, ("N2",): 4}


def test_a_topic_made_again_while_it_is_read(place: Place) -> None:
    """Case 27: the worker stops with a sentence; the next one reads the new topic whole, and the old rows stay."""
    place.apply()
    place.produce(event("N1", 1, 1))

    async def scenario() -> None:
        worker = Worker(place.settings, broker=place.broker)
        task = asyncio.create_task(worker.run())
        await until(lambda: worker.metrics.events == 1, task=task)
        await asyncio.to_thread(make_again, place)
        await asyncio.wait_for(task, 60)

    with pytest.raises(Fatal, match=f"topic '{place.topic}' was deleted"):
        asyncio.run(scenario())
    place.produce(event("N1", 2, 2), event("N1", 3, 3))
    asyncio.run(place.read_to_the_end(2))
    assert [row.values[0] for row in place.left().history] == [1, 2, 3]


def make_again(place: Place) -> None:
    """Delete the topic, wait until it is gone, and make it again."""
    place.admin.delete_topics([place.topic])[place.topic].result(30)
    wait_until(lambda: place.topic not in partition_counts(place.broker, timeout_s=10))
    place.admin.create_topics([NewTopic(place.topic, 1, 1)])[place.topic].result(30)


def test_added_partitions_are_ingested(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 27: partitions that a topic gets while it is read are sources of their own, read from their beginning."""
    monkeypatch.setattr("oomstream.agents.worker.consumer_options.METADATA_MAX_AGE_MS", 500)
    place.apply()

    async def scenario() -> None:
        async with place.working() as (worker, task):
            await asyncio.to_thread(place.produce, event("N1", 1, 1))
            await until(lambda: worker.metrics.events == 1, task=task)
            made = place.admin.create_partitions([NewPartitions(place.topic, 3)])[place.topic]
            await asyncio.to_thread(made.result, 30)
            await asyncio.to_thread(place.produce, event("N2", 1, 2), event("N3", 1, 3), partition=2)
            await until(lambda: worker.metrics.events == 3 and worker.metrics.lag == 0, task=task)

    asyncio.run(scenario())
    found = place.left()
    assert {(each.name.partition, each.next_sequence) for each in found.sources} == {(0, 1), (1, 0), (2, 2)}
    assert sorted(row.values[0] or 0 for row in found.history) == [1, 2, 3]


def test_a_dead_letter_topic_that_goes_missing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Case 9: while the dead-letter topic is missing nothing behind the letter is done; when it is back, all is."""
    place.apply()
    letters = dlq_topic(place.topic)

    async def scenario() -> None:
        async with place.working() as (worker, task):
            await asyncio.to_thread(place.produce, event("N1", 1, 1))
            await until(lambda: worker.metrics.events == 1, task=task)
            await asyncio.to_thread(place.admin.delete_topics([letters])[letters].result, 30)
            await asyncio.to_thread(place.produce, b"garbage", event("N1", 2, 2))
            await until(lambda: f"dead-letter topic {letters}" in caplog.text, task=task)
            assert [row.values[0] for row in (await asyncio.to_thread(place.left)).history] == [1]
            await asyncio.to_thread(place.apply)
            await until(lambda: worker.metrics.events == 2 and worker.metrics.lag == 0, task=task)

    asyncio.run(scenario())
    [letter] = read_dead_letters(place.broker, place.topic, timeout_s=30)
    assert (letter.offset, letter.value) == (1, b"garbage")
    assert [row.values[0] for row in place.left().history] == [1, 2]
