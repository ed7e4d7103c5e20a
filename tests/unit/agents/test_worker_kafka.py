"""What only a real broker can do: topics that come again, transactions, partitions added, admin requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions  # type: ignore[attr-defined]

from oomstream.schemas.errors import Fatal, InvalidRequest
from oomstream.streams.broker import MAX_MESSAGE_BYTES, Broker, parse_broker
from oomstream.streams.producer import FeatureProducer
from oomstream.streams.topics import DLQ_EXTRA_BYTES, Incarnations, Topic, ensure_topics, partition_counts
from tests.services.server import Server
from tests.unit.agents.conftest import clear
from tests.unit.agents.harness import (
    RecordingWorker,
    Written,
    apply,
    committed,
    group,
    produce,
    settings_for,
    until,
)


@pytest.fixture
def broker(kafka_server: Server) -> Iterator[Broker]:
    """A real broker with no topics."""
    broker = parse_broker(kafka_server.url)
    yield broker
    clear(broker)


def make_again(broker: Broker, topic: str, partitions: int) -> None:
    """Delete a topic, wait until it is gone, and make it again."""
    admin = AdminClient(broker.client_config(30))
    admin.delete_topics([topic])[topic].result(30)
    deadline = time.monotonic() + 30
    while topic in partition_counts(broker, timeout_s=10):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ensure_topics(broker, [Topic(topic, partitions)], timeout_s=10)


def test_topics_are_made_once_with_room_for_dead_letters(broker: Broker) -> None:
    """A dead-letter topic takes messages 64 KiB larger than its topic's; making both again does no harm."""
    topics = [Topic("plane", 3), Topic("plane.dlq", 3, letters_of="plane")]
    assert ensure_topics(broker, topics, timeout_s=30) == ["plane", "plane.dlq"]
    assert ensure_topics(broker, topics, timeout_s=30) == []
    counts = partition_counts(broker, timeout_s=30)
    assert (counts["plane"], counts["plane.dlq"]) == (3, 3)
    resource = ConfigResource(ConfigResource.Type.TOPIC, "plane.dlq")
    admin = AdminClient(broker.client_config(30))
    entries = admin.describe_configs([resource])[resource].result(30)
    assert entries["max.message.bytes"].value == str(MAX_MESSAGE_BYTES + DLQ_EXTRA_BYTES)


def test_a_topic_made_again_is_another_incarnation(broker: Broker) -> None:
    """The incarnation is Kafka's topic id; a topic that is not there has none."""
    ensure_topics(broker, [Topic("plane", 1)], timeout_s=30)
    incarnations = Incarnations(broker, timeout_s=30)
    before = incarnations.of(["plane", "boat"])
    assert list(before) == ["plane"]
    make_again(broker, "plane", 1)
    after = incarnations.of(["plane"])
    assert after["plane"] != before["plane"]


def test_a_topic_made_again_stops_the_worker(tmp_path: Path, broker: Broker) -> None:
    """Case 27: a worker never goes on at an old offset of a new topic: it stops with a sentence that names it."""
    settings = settings_for(tmp_path, broker)
    apply(settings, broker, group(partitions=1))
    produce(broker, "plane", [(0, b"x")] * 10)
    written = Written()

    async def scenario() -> None:
        task = asyncio.create_task(RecordingWorker(written, settings, broker).run())
        await until(lambda: written.count == 10, task=task)
        await asyncio.to_thread(make_again, broker, "plane", 1)
        await asyncio.wait_for(task, 60)

    with pytest.raises(Fatal, match="topic 'plane' was deleted"):
        asyncio.run(scenario())
    assert written.count == 10


def test_transactions_are_read_when_committed_and_lag_ends(tmp_path: Path, broker: Broker) -> None:
    """Case 25: aborted events are never seen; markers count as read, so that lag reaches zero behind one."""
    settings = settings_for(tmp_path, broker)
    apply(settings, broker, group(partitions=1))
    producer = Producer({**broker.client_config(30), "transactional.id": "t"})
    producer.init_transactions(30)
    for number, commits in enumerate([True, False, True, False]):
        producer.begin_transaction()
        for _ in range(5):
            producer.produce("plane", str(number).encode(), partition=0)
        producer.flush(30)
        producer.commit_transaction(30) if commits else producer.abort_transaction(30)
    written = Written()

    async def scenario() -> None:
        worker = RecordingWorker(written, settings, broker)
        task = asyncio.create_task(worker.run())
        await until(lambda: written.count == 10, task=task)
        await until(lambda: worker.metrics.lag == 0, task=task)
        worker.stop()
        await task

    asyncio.run(scenario())
    assert [value for _, value in written.records[0]] == [b"0"] * 5 + [b"2"] * 5
    assert committed(broker, "oomstream", "plane", 1) == {0: 24}


def test_added_partitions_are_read(tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 27: partitions that a topic gets while it is read are read from their beginning."""
    monkeypatch.setattr("oomstream.agents.worker.consumer_options.METADATA_MAX_AGE_MS", 500)
    settings = settings_for(tmp_path, broker)
    apply(settings, broker, group(partitions=1))
    written = Written()

    async def scenario() -> None:
        worker = RecordingWorker(written, settings, broker)
        task = asyncio.create_task(worker.run())
        await asyncio.to_thread(produce, broker, "plane", [(0, b"x")] * 10)
        await until(lambda: written.count == 10, task=task)
        admin = AdminClient(broker.client_config(30))
        await asyncio.to_thread(admin.create_partitions([NewPartitions("plane", 3)])["plane"].result, 30)
        await asyncio.to_thread(produce, broker, "plane", [(2, b"y")] * 10)
        await until(lambda: written.count == 20, task=task)
        worker.stop()
        await task

    asyncio.run(scenario())
    assert [offset for offset, _ in written.records[2]] == list(range(10))


def test_a_missing_topic_is_named(tmp_path: Path, broker: Broker) -> None:
    """Case 9: a worker whose dead-letter topic is missing stops at its start; a producer refuses a missing topic."""
    settings = settings_for(tmp_path, broker)
    catalog = apply(settings, broker, group(partitions=1))
    admin = AdminClient(broker.client_config(30))
    admin.delete_topics(["plane.dlq"])["plane.dlq"].result(30)
    with pytest.raises(Fatal, match=r"has no topic plane\.dlq: `oomstream apply` makes it"):
        asyncio.run(RecordingWorker(Written(), settings, broker).run())
    admin.delete_topics(["plane"])["plane"].result(30)
    with (
        FeatureProducer(broker, settings, catalog) as producer,
        pytest.raises(InvalidRequest, match="has no topic 'plane'"),
    ):
        producer.produce("plane", {})


def test_a_restarted_broker_is_read_on(tmp_path: Path, broker: Broker, kafka_server: Server) -> None:
    """Case 30: a broker goes away and comes back with its log: the worker goes on where it was, and loses nothing."""
    settings = settings_for(tmp_path, broker)
    apply(settings, broker, group(partitions=2))
    produce(broker, "plane", [(at % 2, b"x") for at in range(100)])
    written = Written()

    async def scenario() -> None:
        worker = RecordingWorker(written, settings, broker)
        task = asyncio.create_task(worker.run())
        await until(lambda: written.count == 100, task=task)
        await asyncio.to_thread(kafka_server.kill)
        await asyncio.to_thread(kafka_server.restart)
        await asyncio.to_thread(produce, broker, "plane", [(at % 2, b"y") for at in range(100)])
        await until(lambda: written.count == 200, task=task)
        worker.stop()
        await task

    asyncio.run(scenario())
    for partition in range(2):
        assert [offset for offset, _ in written.records[partition]] == list(range(100))
