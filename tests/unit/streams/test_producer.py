"""FeatureProducer: events arrive as the pipeline reads them, at the partition of their entity, or an error says so."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka.partitioner import murmur2
from confluent_kafka import Consumer, Message, TopicPartition

from oomstream.agents.broker import EmbeddedBroker
from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.catalog import Catalog
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.errors import InvalidEvent, InvalidKey, InvalidRequest, StoreUnavailable, UnknownGroup
from oomstream.schemas.framing import EVENT_TIME_HEADER, detect
from oomstream.stores.testing import samples
from oomstream.streams.broker import Broker
from oomstream.streams.producer import FeatureProducer, Sent
from oomstream.streams.room import UNREAD_BYTES, Room
from oomstream.streams.topics import Topic, ensure_topics
from tests.unit.agents.harness import apply, group, settings_for

AT = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A broker with no topics; the embedded one."""
    with EmbeddedBroker() as embedded:
        yield embedded.broker


@pytest.fixture
def catalog(tmp_path: Path, broker: Broker) -> Catalog:
    """A catalog with the group `plane`, its topic made."""
    return apply(settings_for(tmp_path, broker), broker, group())


def messages(broker: Broker, topic: str, partitions: int = 4) -> list[Message]:
    """Everything in a topic, partition by partition."""
    config = {**broker.client_config(10), "group.id": "reader", "enable.partition.eof": True}
    consumer = Consumer({**config, "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    found: list[Message] = []
    left = partitions
    while left:
        for message in consumer.consume(1_000, timeout=0.1):
            if message.error():
                left -= 1
            else:
                found.append(message)
    consumer.close()
    return sorted(found, key=lambda each: (each.partition() or 0, each.offset() or 0))


def values(tail: str = "N1", delay: int = 7, **more: Any) -> dict[str, Any]:
    """An event's values."""
    return {"tail": tail, "at": AT, "delay": delay, **more}


def test_send_says_where_the_event_is(tmp_path: Path, broker: Broker, catalog: Catalog) -> None:
    """An event sent is at the offset that was returned, framed with the newest definition's fingerprint."""
    with FeatureProducer(broker, settings_for(tmp_path, broker), catalog) as producer:
        sent = [producer.send("plane", values(delay=number)) for number in range(3)]
    assert {(each.topic, each.partition) for each in sent} == {("plane", sent[0].partition)}
    assert [each.offset for each in sent] == [0, 1, 2]
    codec = BodyCodec(catalog.groups["plane"])
    for number, message in enumerate(messages(broker, "plane")):
        framed = detect(message.value() or b"")
        assert message.key() == b"N1"
        assert framed.fingerprint == codec.group.fingerprint
        assert codec.read(framed.fingerprint, framed.body) == (number, None)


def test_an_entity_stays_in_its_partition(tmp_path: Path, broker: Broker, catalog: Catalog) -> None:
    """The partition is murmur2 of the key text as Kafka's Java client takes it, and order within it is kept."""
    tails = [f"N{number}" for number in range(50)]
    with FeatureProducer(broker, settings_for(tmp_path, broker), catalog) as producer:
        for delay in range(20):
            for tail in tails:
                producer.produce("plane", values(tail, delay))
    codec = BodyCodec(catalog.groups["plane"])
    seen: dict[bytes, list[int]] = {}
    for message in messages(broker, "plane"):
        key = message.key() or b""
        assert message.partition() == (murmur2(key) & 0x7FFFFFFF) % 4
        framed = detect(message.value() or b"")
        seen.setdefault(key, []).append(int(codec.read(framed.fingerprint, framed.body)[0] or 0))
    assert seen == {tail.encode(): list(range(20)) for tail in tails}


def test_deletes_are_tombstones(tmp_path: Path, broker: Broker, catalog: Catalog) -> None:
    """A delete has no value, the entity's key, and its event time in a header if one was given."""
    with FeatureProducer(broker, settings_for(tmp_path, broker), catalog) as producer:
        assert isinstance(producer.delete("plane", ["N1"], AT), Sent)
        producer.produce_delete("plane", ["N1"])
    timed, untimed = messages(broker, "plane")
    assert (timed.key(), timed.value()) == (untimed.key(), untimed.value()) == (b"N1", None)
    assert timed.headers() == [(EVENT_TIME_HEADER, str(int(AT.timestamp() * 1e6)).encode())]
    assert not untimed.headers()


def test_composite_keys_do_not_collide(tmp_path: Path, broker: Broker) -> None:
    """The message key of a composite entity key is a JSON array of its parts."""
    both = group_from_avsc(
        {
            "type": "record",
            "name": "leg",
            "entity": "leg",
            "keys": ["day", "number"],
            "event_time": "at",
            "fields": [
                {"name": "day", "type": {"type": "int", "logicalType": "date"}},
                {"name": "number", "type": "long"},
                {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            ],
        }
    )
    catalog = apply(settings_for(tmp_path, broker), broker, both)
    with FeatureProducer(broker, settings_for(tmp_path, broker), catalog) as producer:
        producer.send("leg", {"day": date(2024, 5, 1), "number": 11, "at": AT})
    (message,) = messages(broker, "leg", 8)
    assert message.key() == b'["2024-05-01",11]'


def test_what_is_wrong_is_named(tmp_path: Path, broker: Broker, catalog: Catalog) -> None:
    """A wrong value, key or group is an error that names it, and nothing is produced."""
    with FeatureProducer(broker, settings_for(tmp_path, broker), catalog) as producer:
        with pytest.raises(InvalidEvent, match=r"plane\.delay"):
            producer.produce("plane", {"tail": "N1", "at": AT, "delay": "7"})
        with pytest.raises(InvalidEvent, match="longer than 1048576 bytes"):
            producer.produce("plane", values(carrier="x" * (1 << 20)))
        with pytest.raises(InvalidKey, match="tail"):
            producer.delete("plane", [""])
        with pytest.raises(UnknownGroup, match="'boat'"):
            producer.produce("boat", {})
    assert messages(broker, "plane") == []


def test_batch_groups_are_refused(tmp_path: Path, broker: Broker) -> None:
    """Events cannot be produced to a batch group."""
    catalog = apply(settings_for(tmp_path, broker), broker, samples.group("plane", category="batch"))
    with (
        FeatureProducer(broker, settings_for(tmp_path, broker), catalog) as producer,
        pytest.raises(InvalidRequest, match="'plane' is a batch group"),
    ):
        producer.produce("plane", values())


def test_it_opens_where_a_loop_runs_and_finds_later_groups(tmp_path: Path, broker: Broker, catalog: Catalog) -> None:
    """In a notebook, definitions are read from the history database, and again for a group that came later."""
    settings = settings_for(tmp_path, broker)

    async def notebook() -> None:
        with FeatureProducer.open(settings) as producer:
            assert producer.send("plane", values()).offset == 0
            await asyncio.to_thread(apply, settings, broker, group("boat"))
            assert producer.send("boat", values()).offset == 0

    asyncio.run(notebook())


def test_it_finds_later_features(tmp_path: Path, broker: Broker, catalog: Catalog) -> None:
    """A feature that came after the producer was opened is taken, queued or sent; one that never came is refused."""
    settings = settings_for(tmp_path, broker)
    later = group()
    schema = {**later.schema, "fields": [*later.schema["fields"], {"name": "gate", "type": ["null", "string"]}]}
    with FeatureProducer.open(settings) as producer:
        producer.send("plane", values())
        newest = apply(settings, broker, group_from_avsc(schema)).group("plane")
        producer.produce("plane", values(gate="A1"))
        assert producer.send("plane", values(gate="A2")).offset == 2
        with pytest.raises(InvalidEvent, match="gates"):
            producer.send("plane", values(gates="A3"))
    fingerprints = [(each.value() or b"")[2:10] for each in messages(broker, "plane")]
    assert fingerprints == [catalog.group("plane").fingerprint, newest.fingerprint, newest.fingerprint]


def test_events_that_cannot_be_delivered_are_errors(tmp_path: Path) -> None:
    """When the broker is gone, `flush`, `send` and the end of the context raise; nothing is lost silently."""
    with EmbeddedBroker() as embedded:
        broker = embedded.broker
        settings = settings_for(tmp_path, broker, call_timeout_us=1_500_000)
        catalog = apply(settings, broker, group())
        producer = FeatureProducer(broker, settings, catalog)
        producer.send("plane", values())
    for _ in range(3):
        producer.produce("plane", values())
    with pytest.raises(
        StoreUnavailable, match=r"events not acknowledged by embedded://.*: 3, the first to topic 'plane'"
    ):
        producer.flush()
    producer.flush()
    with pytest.raises(StoreUnavailable, match="the event was not acknowledged by topic 'plane'"):
        producer.send("plane", values())
    with pytest.raises(StoreUnavailable, match=r"events not acknowledged by .*: 1, the first"), producer:
        producer.produce("plane", values())


def test_without_a_reader_the_broker_is_not_overrun(tmp_path: Path, broker: Broker, catalog: Catalog) -> None:
    """With no worker, producing stops with an error before the broker drops an event; all accepted ones are there."""
    settings = settings_for(tmp_path, broker, call_timeout_us=500_000)
    accepted = 0

    def fill() -> None:
        nonlocal accepted
        with FeatureProducer(broker, settings, catalog) as producer:
            while True:
                producer.produce("plane", values(carrier="x" * 5_000))
                accepted += 1

    with pytest.raises(StoreUnavailable, match="has no room"):
        fill()
    found = messages(broker, "plane")
    # The one that found no room was not accepted, and not produced either.
    assert len(found) == accepted
    assert sum(len(each.value() or b"") for each in found) >= UNREAD_BYTES * 0.8


def test_producers_share_the_room_with_a_slow_reader(tmp_path: Path, broker: Broker, catalog: Catalog) -> None:
    """Three producers far beyond the broker's size, and a reader that commits as it goes: not one event is dropped."""
    settings = settings_for(tmp_path, broker)
    each, writers = 4_000, 3

    def write() -> None:
        with FeatureProducer(broker, settings, catalog) as producer:
            for number in range(each):
                producer.produce("plane", values(delay=number, carrier="x" * 1_500))

    threads = [threading.Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    options = {"group.id": settings.consumer_group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    reader = Consumer({**broker.client_config(10), **options, "queued.max.messages.kbytes": 1_024})
    reader.subscribe(["plane"])
    offsets: list[int] = []
    heard_at = time.monotonic()
    while len(offsets) < each * writers:
        batch = reader.consume(200, timeout=0.1)
        heard_at = time.monotonic() if batch else heard_at
        assert time.monotonic() - heard_at < 30, "the reader starved: events were dropped"
        assert not [message.error() for message in batch if message.error()]
        offsets += [message.offset() or 0 for message in batch]
        if batch:
            reader.commit(asynchronous=False)
    for thread in threads:
        thread.join()
    reader.close()
    assert sorted(offsets) == list(range(each * writers))


def test_room_counts_what_is_unread(broker: Broker) -> None:
    """A share is flushed before the producer looks, and looking costs nothing while the share is not used up."""
    flushed: list[str] = []
    ensure_topics(broker, [Topic("plane", 1)], timeout_s=5)
    room = Room(broker, "workers", timeout_s=5)
    for _ in range(100):
        room.take("plane", 2_000, lambda: flushed.append("plane"))
    assert flushed == []
    for _ in range(100):
        room.take("plane", 2_000, lambda: flushed.append("plane"))
    assert flushed == ["plane"]
    room.close()
