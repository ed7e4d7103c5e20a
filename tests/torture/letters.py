"""Dead letters, read as they come: the embedded broker keeps only the last 5 MB of a partition."""

from __future__ import annotations

import time
import zlib
from typing import Any, NamedTuple, cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from oomstream.streams.broker import Broker
from tests.torture.errors import TortureFailed

_PREFIX = "oomstream.error."
_TIMEOUT_S = 60.0


class Place(NamedTuple):
    """Identity of a record: its topic, the topic's id (the embedded broker has one for all), partition and offset."""

    topic: str
    incarnation: str
    partition: int
    offset: int


class Letter(NamedTuple):
    """What is kept of a dead letter.

    Attributes:
        reason: Its reason code.
        content: Checksum of the key, the value and the headers of the record that was refused.
    """

    reason: str
    content: int


def content_sum(key: bytes | None, value: bytes | None, headers: Any) -> int:
    """Checksum of what a dead letter must keep of its record."""
    return zlib.crc32(repr((key, headers)).encode(), 0 if value is None else zlib.crc32(value, 1))


class LetterBox:
    """Reads the dead-letter topics of a run, from their first record on; for one thread.

    Memory holds a few words per letter, and nothing of its content.

    Args:
        broker: Where.
        topics: The dead-letter topics.
    """

    def __init__(self, broker: Broker, topics: list[str]) -> None:
        self.letters: dict[Place, Letter] = {}
        self.written = 0
        self.differing: list[Place] = []
        self._topics = topics
        self._consumer = Consumer(
            {
                **broker.client_config(_TIMEOUT_S),
                "group.id": "torture-letters",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 20,
            }
        )
        self._next: dict[tuple[str, int], int] = {}
        for topic in topics:
            for partition in self._consumer.list_topics(topic, timeout=_TIMEOUT_S).topics[topic].partitions:
                self._next[topic, partition] = 0
        self._consumer.assign([TopicPartition(*each, OFFSET_BEGINNING) for each in self._next])

    def read(self) -> None:
        """Read what has come, without waiting."""
        while messages := self._consumer.consume(1_000, timeout=0.0):
            for message in messages:
                self._take(message)

    def finish(self) -> None:
        """Read to the end that the topics have now.

        Raises:
            TortureFailed: The broker does not give all of them.
        """
        deadline = time.monotonic() + _TIMEOUT_S
        for (topic, partition), _ in list(self._next.items()):
            _, end = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), _TIMEOUT_S)
            while self._next[topic, partition] < end:
                if time.monotonic() > deadline:
                    raise TortureFailed(f"topic {topic}[{partition}] ends at {end} and cannot be read to its end")
                for message in self._consumer.consume(1_000, timeout=0.1):
                    self._take(message)

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()

    def _take(self, message: Message) -> None:
        if (error := message.error()) is not None:
            if error.code() == KafkaError._AUTO_OFFSET_RESET:
                raise TortureFailed(f"dead letters were dropped by the broker before they were read: {error}")
            return  # the broker is away for a moment
        self._next[message.topic() or "", message.partition() or 0] = cast(int, message.offset()) + 1
        self.written += 1
        headers = cast("list[tuple[str, bytes]]", message.headers() or [])
        ours = {name.removeprefix(_PREFIX): value.decode() for name, value in headers if name.startswith(_PREFIX)}
        original = [(name, value) for name, value in headers if not name.startswith(_PREFIX)]
        place = Place(ours["topic"], ours["topic_id"], int(ours["partition"]), int(ours["offset"]))
        key: Any = message.key()
        value: Any = message.value()
        letter = Letter(ours["reason"], content_sum(key, value, original))
        if self.letters.setdefault(place, letter) != letter:
            self.differing.append(place)
