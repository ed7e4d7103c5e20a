"""Dead-letter topics: writing letters durably, and reading them back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from oomstream.schemas.errors import StoreUnavailable
from oomstream.streams.broker import Broker
from oomstream.streams.dead_letters import DeadLetter, DeadLetterSink

LARGEST_LETTER_BYTES = 128 << 20
"""What this side lets through; the topic's own ``max.message.bytes`` decides."""

OnDelivery = Callable[[KafkaError | None, Message], None]

_READ_AT_ONCE = 500


class KafkaDeadLetterSink(DeadLetterSink):
    """Writes each letter to ``<topic>.dlq`` with acks=all, and waits until the broker has all of them.

    Args:
        broker: Where.
        timeout_s: Deadline of one `send`, seconds.
    """

    def __init__(self, broker: Broker, *, timeout_s: float) -> None:
        self._broker = broker
        self._timeout_s = timeout_s
        self._producer: Producer | None = None

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        """Write letters durably; see `DeadLetterSink.send`."""
        if letters:
            # librdkafka has its own deadline for each message, so the thread always comes back.
            await asyncio.to_thread(self._send, letters)

    def _send(self, letters: Sequence[DeadLetter]) -> None:
        producer = self._open()
        # Another partition's thread may run these callbacks: appending is the one step that needs no lock.
        outcomes: list[KafkaError | None] = []

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            outcomes.append(error)

        deadline = time.monotonic() + self._timeout_s
        for letter in letters:
            self._produce(producer, letter, on_delivery, deadline)
        while len(outcomes) < len(letters) and time.monotonic() < deadline:
            producer.poll(0.05)
        topic = dlq_topic(letters[0].topic)
        error = next((each for each in outcomes if each is not None), None)
        if error is not None:
            raise self._failed(topic, error, producer)
        if len(outcomes) < len(letters):
            raise StoreUnavailable(
                f"dead-letter topic {topic}: broker {self._broker.url}: not acknowledged within {self._timeout_s:g} s"
            )

    def _produce(self, producer: Producer, letter: DeadLetter, on_delivery: OnDelivery, deadline: float) -> None:
        while True:
            try:
                producer.produce(
                    dlq_topic(letter.topic),
                    key=letter.key,
                    value=letter.value,
                    headers=cast(Any, letter.message_headers()),
                    on_delivery=on_delivery,
                )
            except BufferError as exc:
                if time.monotonic() > deadline:
                    raise StoreUnavailable(f"broker {self._broker.url} takes no dead letters") from exc
                producer.poll(0.05)
            except KafkaException as exc:
                raise self._failed(dlq_topic(letter.topic), exc, producer) from exc
            else:
                return

    def _failed(self, topic: str, error: object, producer: Producer) -> StoreUnavailable:
        # Always to be tried again: a broker that restarts may for a moment refuse a user whom it let in before.
        return StoreUnavailable(str(self._broker.error(error, f"dead-letter topic {topic}", producer)))

    def _open(self) -> Producer:
        if self._producer is None:
            self._producer = Producer(
                {
                    **self._broker.client_config(self._timeout_s),
                    "acks": "all",
                    "enable.idempotence": True,  # letters stay in order through retries
                    "message.max.bytes": LARGEST_LETTER_BYTES,
                    "message.timeout.ms": int(self._timeout_s * 1000),
                    "linger.ms": 5,
                    "partitioner": "murmur2_random",
                }
            )
        return self._producer


def dlq_topic(topic: str) -> str:
    """Name of a topic's dead-letter topic."""
    return f"{topic}.dlq"


def read_dead_letters(
    broker: Broker, topic: str, *, timeout_s: float, limit: int | None = None
) -> Iterator[DeadLetter]:
    """Dead letters of a topic, from the beginning of its dead-letter topic to the end it has now.

    Each identity comes once, however often it was written. Memory holds the identities (not the letters) and one
    chunk of messages. Messages that are not letters of ours are left out.

    Args:
        broker: Where.
        topic: The topic whose records were rejected.
        timeout_s: How long to wait for the broker before giving up, seconds.
        limit: At most this many.

    Raises:
        StoreUnavailable: The broker does not answer; what was yielded is right but not all.
    """
    consumer = Consumer(
        {
            **broker.client_config(timeout_s),
            "group.id": "oomstream-dlq-reader",  # required by the client; this reader joins and commits nothing
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "queued.max.messages.kbytes": 16_384,
            "fetch.wait.max.ms": 50,
        }
    )
    try:
        yield from _letters(consumer, broker, dlq_topic(topic), timeout_s, limit)
    finally:
        consumer.close()


def _letters(
    consumer: Consumer, broker: Broker, name: str, timeout_s: float, limit: int | None
) -> Iterator[DeadLetter]:
    ends = _ends(consumer, broker, name, timeout_s)
    if not ends or limit == 0:
        return
    consumer.assign([TopicPartition(name, partition, OFFSET_BEGINNING) for partition in ends])
    seen: set[tuple[str, int, int]] = set()
    heard_at = time.monotonic()
    while ends:
        messages = consumer.consume(_READ_AT_ONCE, timeout=min(0.2, timeout_s))
        if messages:
            heard_at = time.monotonic()
        elif time.monotonic() - heard_at > timeout_s:
            raise StoreUnavailable(f"dead-letter topic {name}: broker {broker.url}: no answer within {timeout_s:g} s")
        for message in messages:
            letter = _letter(message, ends, broker, name)
            if letter is not None and letter.identity not in seen:
                seen.add(letter.identity)
                yield letter
                if limit is not None and len(seen) >= limit:
                    return


def _letter(message: Message, ends: dict[int, int], broker: Broker, name: str) -> DeadLetter | None:
    """The letter in a message, if there is one; takes partitions that are read to their end out of `ends`."""
    partition, offset, error = message.partition() or 0, message.offset() or 0, message.error()
    if error is not None:
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return None  # of the group that the client wants to have, and this reader has no use for
        if error.code() != KafkaError._PARTITION_EOF:
            raise broker.error(error, f"dead-letter topic {name}")
        ends.pop(partition, None)
        return None
    if partition not in ends:
        return None
    inside = offset < ends[partition]
    if offset >= ends[partition] - 1:
        del ends[partition]
    if not inside:
        return None
    return DeadLetter.from_message(message.key(), message.value(), cast(Any, message.headers() or ()))


def _ends(consumer: Consumer, broker: Broker, name: str, timeout_s: float) -> dict[int, int]:
    """End of every partition that is not empty; none if the topic does not exist."""
    try:
        topic = consumer.list_topics(name, timeout=timeout_s).topics[name]
        if topic.error is not None:
            if topic.error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
                return {}
            raise KafkaException(topic.error)
        ends: dict[int, int] = {}
        for partition in topic.partitions:
            first, end = consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=timeout_s)
            if end > first:
                ends[partition] = end
    except KafkaException as exc:
        raise broker.error(exc, f"dead-letter topic {name}", consumer) from exc
    return ends
