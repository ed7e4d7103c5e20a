"""Writing feature events to their topics.

An event goes to its group's topic as Avro single-object encoding under the newest definition. The message key is the
entity key's text (`oomstream.schemas.framing.tombstone_key`), and the partition is murmur2 of that key modulo the
number of partitions, as Kafka's Java client and every client that follows it choose it; so all events of an entity are
in one partition, in the order they were produced.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from types import TracebackType
from typing import Any, NamedTuple, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from oomstream.schemas.catalog import Catalog
from oomstream.schemas.codec import BodyCodec, Encoded
from oomstream.schemas.errors import InvalidEvent, InvalidRequest, Reason, StoreUnavailable
from oomstream.schemas.framing import EVENT_TIME_HEADER, frame, tombstone_key
from oomstream.schemas.groups import Category, FeatureGroup
from oomstream.schemas.keys import key_from_python
from oomstream.schemas.online_value import encode_key
from oomstream.schemas.types import us_from_time
from oomstream.stores.catalog_cache import SHORTEST_INTERVAL_S
from oomstream.stores.opening import history_store
from oomstream.stores.settings import Settings, load_settings
from oomstream.streams.broker import MAX_MESSAGE_BYTES, Broker, need_broker
from oomstream.streams.room import Room
from oomstream.streams.topics import ensure_topics, partition_counts, topics_of

Headers = list[tuple[str, str | bytes | None]]

_FULL_QUEUE_POLL_S = 0.05
_SERVE_EVERY = 512


class Sent(NamedTuple):
    """Where an acknowledged event is.

    Attributes:
        topic: Its topic.
        partition: Its partition.
        offset: Its offset.
        event_time_us: When it happened, UTC microseconds; 0 if that is not known (a delete).
        stored_key: Its entity's key in the online store; empty if that is not known (a delete).
    """

    topic: str
    partition: int
    offset: int
    event_time_us: int = 0
    stored_key: bytes = b""


class FeatureProducer:
    """Produces events of registered groups; for use from one thread or several.

    ``with FeatureProducer.open() as producer:`` delivers everything before it ends, or raises. `produce` only queues:
    `flush` waits for the broker's acknowledgements and raises if any event was not acknowledged. `send` waits for one.
    Retries do not double or reorder events (idempotent, acks=all).

    Args:
        broker: Where.
        settings: Deadlines and the workers' consumer group.
        catalog: Definitions; None = read them from the history database, and again when a group or a field is unknown.
    """

    def __init__(self, broker: Broker, settings: Settings, catalog: Catalog | None = None) -> None:
        self._broker = broker
        self._settings = settings
        self._timeout_s = settings.call_timeout_us / 1e6
        self._catalog = catalog
        self._reads_catalog = catalog is None
        self._read_at = float("-inf")
        self._codecs: dict[str, BodyCodec] = {}
        self._lock = threading.Lock()
        self._failures: list[tuple[str, str]] = []
        self._since_poll = 0
        self._room: Room | None = None
        self._producer = Producer(
            {
                **broker.client_config(self._timeout_s),
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "message.max.bytes": MAX_MESSAGE_BYTES,
                "message.timeout.ms": max(int(self._timeout_s * 1000), 1000),
                # Snappy costs least; on the embedded broker nothing travels far enough to be worth it.
                "compression.type": "none" if broker.embedded else "snappy",
            }
        )

    @classmethod
    def open(cls, settings: Settings | None = None, *, catalog: Catalog | None = None) -> Self:
        """A producer on the broker that the settings name, or that runs on the data folder.

        Args:
            settings: None = from the environment.
            catalog: Definitions; None = read them from the history database.

        Raises:
            InvalidSetting: There is no broker, or a setting is wrong.
            StoreUnavailable: The history database cannot be read.
        """
        settings = settings or load_settings()
        producer = cls(need_broker(settings), settings, catalog)
        if catalog is None:
            producer._catalog = producer._load_catalog()
        return producer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        except StoreUnavailable:
            if error is None:  # else the error on its way says more
                raise
        finally:
            if self._room is not None:
                self._room.close()

    def close(self) -> None:
        """Deliver everything.

        Raises:
            StoreUnavailable: Some events were not acknowledged; they may be in the log all the same.
        """
        self.__exit__(None, None, None)

    def produce(self, group: str, values: Mapping[str, Any]) -> None:
        """Queue one event; `flush` delivers.

        Args:
            group: Name of the feature group.
            values: Every key field, the event-time field (a datetime or an integer in its unit; missing = now) and
                features, in python form. A feature left out takes its default.

        Raises:
            InvalidEvent: A value is wrong; names the field.
            UnknownGroup: No such group.
            StoreUnavailable: The broker takes no more.
        """
        definition, (encoded,) = self._encoded(group, [values])
        self._enqueue(definition.topic, *_message(definition, encoded), None, self._delivered)

    def produce_delete(self, group: str, key: Sequence[Any], event_time: datetime | None = None) -> None:
        """Queue the deletion of an entity from a group, as of a time (None = now); `flush` delivers.

        Args:
            group: Name of the feature group.
            key: One value per key field, in order.
            event_time: When it was deleted; naive = UTC.

        Raises:
            InvalidKey: The key is wrong; names the part.
            UnknownGroup: No such group.
            StoreUnavailable: The broker takes no more.
        """
        topic, raw, headers = self._tombstone(group, key, event_time)
        self._enqueue(topic, raw, None, headers, self._delivered)

    def send(self, group: str, values: Mapping[str, Any]) -> Sent:
        """Deliver one event.

        Returns:
            Where it is; the broker has acknowledged it.

        Raises:
            InvalidEvent: A value is wrong; names the field.
            UnknownGroup: No such group.
            StoreUnavailable: It was not acknowledged; it may be in the log all the same.
        """
        (sent,) = self.send_rows(group, [values])
        return sent

    def send_rows(self, group: str, rows: Sequence[Mapping[str, Any]]) -> list[Sent]:
        """Deliver several events of a group; all of them are found to be right before the first is sent.

        Returns:
            Where each is; the broker has acknowledged them.

        Raises:
            InvalidEvent: A value is wrong; names the field. Nothing was sent.
            UnknownGroup: No such group.
            StoreUnavailable: Some were not acknowledged; they may be in the log all the same.
        """
        definition, encoded = self._encoded(group, rows)
        sent = self._deliver(definition.topic, [(*_message(definition, each), None) for each in encoded])
        return [
            place._replace(event_time_us=each.event_time_us, stored_key=encode_key(definition.id, each.entity))
            for place, each in zip(sent, encoded, strict=True)
        ]

    def delete(self, group: str, key: Sequence[Any], event_time: datetime | None = None) -> Sent:
        """Deliver the deletion of an entity from a group, as of a time (None = now); see `produce_delete`.

        Raises:
            StoreUnavailable: It was not acknowledged; it may be in the log all the same.
        """
        topic, raw, headers = self._tombstone(group, key, event_time)
        (sent,) = self._deliver(topic, [(raw, None, headers)])
        return sent

    def flush(self) -> None:
        """Wait until every queued event is acknowledged.

        Raises:
            StoreUnavailable: Some were not acknowledged (they may be in the log all the same); says how many, and why
                the first was not.
        """
        left = self._producer.flush(self._timeout_s + 1.0)
        with self._lock:
            failures, self._failures = self._failures, []
        if failures:
            topic, why = failures[0]
            raise StoreUnavailable(
                f"events not acknowledged by {self._broker.url}: {len(failures)}, the first to topic {topic!r}: {why}"
            )
        if left:
            raise StoreUnavailable(f"events not acknowledged by {self._broker.url} in time: {left}")

    def _encoded(self, group: str, rows: Sequence[Mapping[str, Any]]) -> tuple[FeatureGroup, list[Encoded]]:
        """Events under the newest definition that is known; a field that is not may be newer than that."""
        codec = self._codec(group)
        try:
            return codec.group, [self._encode_event(codec, values) for values in rows]
        except InvalidEvent as exc:
            if exc.reason is not Reason.UNKNOWN_FIELD or not self._reads_catalog:
                raise
            codec = self._newer_codec(group, codec)
        return codec.group, [self._encode_event(codec, values) for values in rows]

    @staticmethod
    def _encode_event(codec: BodyCodec, values: Mapping[str, Any]) -> Encoded:
        event_time = codec.group.event_time_field
        if event_time.name not in values:
            now_us = time.time_ns() // 1000
            values = {**values, event_time.name: now_us // event_time.unit.microseconds}
        return codec.encode_python(values)

    def _tombstone(
        self, group: str, key: Sequence[Any], event_time: datetime | None
    ) -> tuple[str, bytes, Headers | None]:
        definition = self._codec(group).group
        plain = key_from_python(key, definition.keys, where=f"delete of {group}")
        headers: Headers | None = None
        if event_time is not None:
            headers = [(EVENT_TIME_HEADER, str(us_from_time(event_time)).encode())]
        return definition.topic, tombstone_key(plain, definition.keys), headers

    def _deliver(self, topic: str, messages: Sequence[tuple[bytes, bytes | None, Headers | None]]) -> list[Sent]:
        """Send messages to a topic and wait until all of them are acknowledged; gives where each is."""
        outcomes: dict[int, Sent | KafkaError] = {}

        def deliver(at: int) -> Callable[[KafkaError | None, Message], None]:
            def delivered(error: KafkaError | None, message: Message) -> None:
                outcomes[at] = error or Sent(topic, message.partition() or 0, message.offset() or 0)

            return delivered

        for at, (key, value, headers) in enumerate(messages):
            self._enqueue(topic, key, value, headers, deliver(at))
        deadline = time.monotonic() + self._timeout_s + 1.0
        while len(outcomes) < len(messages) and time.monotonic() < deadline:
            self._producer.poll(_FULL_QUEUE_POLL_S)
        sent = [each for _, each in sorted(outcomes.items()) if isinstance(each, Sent)]
        if len(sent) == len(messages):
            return sent
        failed = next((each for each in outcomes.values() if isinstance(each, KafkaError)), None)
        raise self._broker.error(failed, f"the event was not acknowledged by topic {topic!r}", self._producer)

    def _enqueue(
        self,
        topic: str,
        key: bytes,
        value: bytes | None,
        headers: Headers | None,
        delivered: Callable[[KafkaError | None, Message], None],
    ) -> None:
        if self._room is not None:
            self._room.take(topic, len(key) + len(value or b"") + (64 if headers else 0), self.flush)
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                self._producer.produce(topic, key=key, value=value, headers=headers or [], on_delivery=delivered)
                break
            except BufferError as exc:
                if time.monotonic() > deadline:
                    raise StoreUnavailable(f"broker {self._broker.url} takes no more events") from exc
                self._producer.poll(_FULL_QUEUE_POLL_S)
            except KafkaException as exc:
                if exc.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    raise InvalidEvent(Reason.TOO_LARGE, f"topic {topic!r}: the event is larger than 1 MiB") from exc
                raise self._broker.error(exc, f"the event was not acknowledged by topic {topic!r}") from exc
        self._since_poll += 1
        if self._since_poll >= _SERVE_EVERY:
            self._since_poll = 0
            self._producer.poll(0)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            with self._lock:
                self._failures.append((message.topic() or "", error.str()))

    def _codec(self, group: str) -> BodyCodec:
        codec = self._codecs.get(group)
        if codec is None:
            with self._lock:
                codec = self._codecs[group] = self._make_codec(group)
        return codec

    def _newer_codec(self, group: str, known: BodyCodec) -> BodyCodec:
        """That of the newest definition; whoever sends nothing but unknown fields does not read without a pause."""
        with self._lock:
            if self._codecs.get(group) is known:
                time.sleep(max(0.0, self._read_at + SHORTEST_INTERVAL_S - time.monotonic()))
                self._catalog = self._load_catalog()
                self._codecs.clear()
        return self._codec(group)

    def _make_codec(self, name: str) -> BodyCodec:
        if self._catalog is None or name not in self._catalog.groups:
            self._catalog = self._load_catalog()
        group = self._catalog.group(name)
        if group.category is not Category.STREAM:
            raise InvalidRequest(f"group {name!r} is a batch group: import a file instead of producing events")
        # Naming a topic to a broker can make it spring up with as many partitions as the broker likes.
        if not self._broker.embedded:
            if group.topic not in partition_counts(self._broker, timeout_s=self._timeout_s):
                raise InvalidRequest(
                    f"broker {self._broker.url} has no topic {group.topic!r}: `oomstream apply` makes it"
                )
        else:
            ensure_topics(self._broker, topics_of([group]), timeout_s=self._timeout_s)
            if self._room is None:
                self._room = Room(self._broker, self._settings.consumer_group, timeout_s=self._timeout_s)
        return BodyCodec(self._catalog.groups[name])

    def _load_catalog(self) -> Catalog:
        """Read the definitions, also where an event loop runs already (a notebook)."""

        async def load() -> Catalog:
            self._read_at = time.monotonic()
            async with history_store(self._settings.history, self._settings) as history:
                return await history.load_catalog()

        with ThreadPoolExecutor(1, thread_name_prefix="oomstream-catalog") as pool:
            return pool.submit(asyncio.run, load()).result()


def _message(group: FeatureGroup, encoded: Encoded) -> tuple[bytes, bytes]:
    """Key and value of an event's message."""
    return tombstone_key(encoded.key, group.keys), frame(group.fingerprint, encoded.body)
