"""The Kafka broker of the tests, through the product's client."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.services.server import Server

_TIMEOUT_S = 30.0


_Config = dict[str, str | int | float | bool]


def _config(url: str) -> _Config:
    return {"bootstrap.servers": url.removeprefix("kafka://"), "log_level": 0}


def _make_topic(server: Server, **config: str) -> str:
    topic = f"test_{uuid.uuid4().hex[:12]}"
    admin = AdminClient(_config(server.url))
    admin.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result(_TIMEOUT_S)
    return topic


def _delete_topic(server: Server, topic: str) -> None:
    admin = AdminClient(_config(server.url))
    admin.delete_topics([topic])[topic].result(_TIMEOUT_S)


def _topic_id(admin: AdminClient, topic: str, other_than: str = "") -> str:
    """The topic's id; the broker learns of a new topic some milliseconds after the controller made it."""
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            found = str(admin.describe_topics(TopicCollection([topic]))[topic].result(_TIMEOUT_S).topic_id)
        except KafkaException as exc:
            if exc.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
        else:
            if found != other_than:
                return found
    raise TimeoutError(f"{topic} has no other id than {other_than!r}")


def _produce(url: str, topic: str, *values: bytes, **config: str | int | float | bool) -> list[KafkaError | None]:
    errors: list[KafkaError | None] = []
    settings: _Config = {**_config(url), "acks": "all", "message.timeout.ms": int(_TIMEOUT_S * 1000), **config}
    producer = Producer(settings)
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(_TIMEOUT_S * 2) == 0
    return errors


def _read(url: str, topic: str, count: int) -> list[bytes]:
    settings: _Config = {
        **_config(url),
        "group.id": "unused",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    consumer = Consumer(settings)
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        messages: list[Message] = consumer.consume(count, _TIMEOUT_S)
        return [value for message in messages if (value := message.value()) is not None]
    finally:
        consumer.close()


@pytest.fixture
def topic(kafka_server: Server) -> Iterator[str]:
    """An empty topic with one partition."""
    name = _make_topic(kafka_server)
    yield name
    kafka_server.heal()
    _delete_topic(kafka_server, name)


def test_events_come_back_in_order(kafka_server: Server, topic: str) -> None:
    """What is produced is consumed, in order."""
    assert _produce(kafka_server.url, topic, b"1", b"2", b"3") == [None] * 3
    assert _read(kafka_server.url, topic, 3) == [b"1", b"2", b"3"]


def test_no_topic_springs_up(kafka_server: Server) -> None:
    """Producing to a topic that does not exist is an error."""
    errors = _produce(kafka_server.url, "not-there", b"1", **{"topic.metadata.propagation.max.ms": 0})
    assert [error.code() for error in errors if error] == [KafkaError.UNKNOWN_TOPIC_OR_PART]


def test_topics_have_an_identity(kafka_server: Server) -> None:
    """A topic that is deleted and made again has another id."""
    topic = _make_topic(kafka_server)
    admin = AdminClient(_config(kafka_server.url))

    first = _topic_id(admin, topic)
    _delete_topic(kafka_server, topic)
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(_TIMEOUT_S)
    assert _topic_id(admin, topic, other_than=first)
    _delete_topic(kafka_server, topic)


def test_larger_dead_letters(kafka_server: Server) -> None:
    """A topic may take larger messages than the broker's limit of 1 MiB and a bit."""
    large = b"x" * (1_048_576 + 32_768)
    limit: _Config = {"message.max.bytes": 2_000_000}
    narrow, wide = _make_topic(kafka_server), _make_topic(kafka_server, **{"max.message.bytes": "1114124"})
    (error,) = _produce(kafka_server.url, narrow, large, **limit)
    assert error is not None
    assert error.code() == KafkaError.MSG_SIZE_TOO_LARGE
    assert _produce(kafka_server.url, wide, large, **limit) == [None]


def test_short_sessions(kafka_server: Server, topic: str) -> None:
    """A group member may have a session of half a second, and gets its partition."""
    _produce(kafka_server.url, topic, b"1")
    sessions: _Config = {"session.timeout.ms": 500, "heartbeat.interval.ms": 100, "auto.offset.reset": "earliest"}
    consumer = Consumer({**_config(kafka_server.url), "group.id": topic, **sessions})
    try:
        consumer.subscribe([topic])
        (message,) = consumer.consume(1, _TIMEOUT_S)
        assert message.value() == b"1"
    finally:
        consumer.close()


@pytest.mark.parametrize("kill", [False, True])
def test_restart_keeps_events(kafka_server: Server, topic: str, kill: bool) -> None:
    """After a restart, or a kill, the same address has the same events, and takes more."""
    _produce(kafka_server.url, topic, b"1")
    if kill:
        kafka_server.kill()
    kafka_server.restart()
    assert _produce(kafka_server.url, topic, b"2") == [None]
    assert _read(kafka_server.url, topic, 2) == [b"1", b"2"]


def test_proxied_clients_never_go_round_the_proxy(kafka_server: Server, topic: str) -> None:
    """A client that starts at the proxy is told the proxy's address, and is cut off with it; others are not."""
    before = kafka_server.proxy.traffic.to_server
    assert _produce(kafka_server.proxied_url, topic, b"1" * 1000) == [None]
    assert kafka_server.proxy.traffic.to_server > before + 1000
    metadata = AdminClient(_config(kafka_server.proxied_url)).list_topics(timeout=_TIMEOUT_S)
    assert [broker.port for broker in metadata.brokers.values()] == [kafka_server.proxy.port]

    kafka_server.proxy.refuse()
    admin = AdminClient(_config(kafka_server.proxied_url))
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=1)
    assert _read(kafka_server.url, topic, 1) == [b"1" * 1000]


def test_frozen_broker_goes_on(kafka_server: Server, topic: str) -> None:
    """A frozen broker takes what was sent to it in the meantime once it goes on."""
    kafka_server.pause()
    producer = Producer({**_config(kafka_server.url), "acks": "all"})
    producer.produce(topic, b"1")
    assert producer.flush(0.5) == 1
    kafka_server.resume()
    assert producer.flush(_TIMEOUT_S) == 0
    assert _read(kafka_server.url, topic, 1) == [b"1"]
