"""Dead-letter topics: letters are there when the sink returns, and come back once each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from oomstream.agents.broker import EmbeddedBroker
from oomstream.schemas.errors import StoreUnavailable
from oomstream.streams.broker import Broker
from oomstream.streams.dead_letters import DeadLetter
from oomstream.streams.dlq_topic import KafkaDeadLetterSink, read_dead_letters


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A broker with the dead-letter topic of `plane`; the embedded one."""
    with EmbeddedBroker() as embedded:
        embedded.create_topic("plane.dlq", 3)
        yield embedded.broker


def letter(offset: int, value: bytes | None = b"\0bad", key: bytes | None = b"N1") -> DeadLetter:
    """A dead letter of partition 2."""
    headers = (("trace", b"\xff\0"), ("trace", None))
    return DeadLetter(
        "plane", "id-1", 2, offset, 1_700_000_000_000, "decode", "malformed_avro", "no", key, value, headers
    )


def test_letters_come_back_as_they_were(broker: Broker) -> None:
    """Key, value and headers of the record are exactly the original ones; no value and no key are kept apart."""
    letters = [letter(1), letter(2, value=None), letter(3, key=None), letter(4, value=b"")]
    asyncio.run(KafkaDeadLetterSink(broker, timeout_s=10).send(letters))
    found = sorted(read_dead_letters(broker, "plane", timeout_s=10), key=lambda each: each.offset)
    assert found == letters


def test_a_letter_written_twice_comes_once(broker: Broker) -> None:
    """Whatever was written again after an outage is one letter to who reads."""

    async def twice() -> None:
        sink = KafkaDeadLetterSink(broker, timeout_s=10)
        for _ in range(2):
            await asyncio.gather(*(sink.send([letter(at) for at in range(n, n + 100)]) for n in range(0, 500, 100)))

    asyncio.run(twice())
    offsets = sorted(each.offset for each in read_dead_letters(broker, "plane", timeout_s=10))
    assert offsets == list(range(500))


def test_reading_ends_at_the_limit_and_at_the_end(broker: Broker) -> None:
    """At most `limit` letters are given; an empty or missing topic gives none; strangers' messages are left out."""
    assert list(read_dead_letters(broker, "plane", timeout_s=10)) == []
    assert list(read_dead_letters(broker, "boat", timeout_s=10)) == []
    asyncio.run(KafkaDeadLetterSink(broker, timeout_s=10).send([letter(at) for at in range(9)]))
    producer = Producer(broker.client_config(10))
    producer.produce("plane.dlq", b"a stranger's message", headers={"oomstream.error.topic": b"plane"})
    assert producer.flush(10) == 0
    assert len(list(read_dead_letters(broker, "plane", timeout_s=10, limit=4))) == 4
    assert len(list(read_dead_letters(broker, "plane", timeout_s=10))) == 9


def test_a_large_letter_fits(broker: Broker) -> None:
    """A record of 1 MiB is a dead letter like any other, though its headers make it larger."""
    large = letter(1, value=bytes(1 << 20))
    asyncio.run(KafkaDeadLetterSink(broker, timeout_s=10).send([large]))
    assert list(read_dead_letters(broker, "plane", timeout_s=10)) == [large]


def test_without_a_broker_the_sink_says_so_in_time() -> None:
    """A sink whose broker is gone raises StoreUnavailable by its deadline, and so does the reader."""
    with EmbeddedBroker() as embedded:
        broker = embedded.broker
    with pytest.raises(StoreUnavailable, match=r"dead-letter topic plane\.dlq: broker embedded://"):
        asyncio.run(KafkaDeadLetterSink(broker, timeout_s=1).send([letter(1)]))
    with pytest.raises(StoreUnavailable, match=r"dead-letter topic plane\.dlq: broker embedded://"):
        list(read_dead_letters(broker, "plane", timeout_s=1))
