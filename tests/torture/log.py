"""The log that is the truth: Kafka's topics from their beginning, or the producers' own where the broker forgets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from confluent_kafka import Message

from oomstream.streams.broker import Broker
from tests.topic_log import TopicReader
from tests.torture.produced import Logged, produced_records


class Log(Protocol):
    """Records of a run.

    Attributes:
        differing: Where the broker's log is not what it has acknowledged: place, acknowledged record, record there.
    """

    differing: list[tuple[str, Any, Any]]

    def records(self, topic: str, partition: int) -> Iterator[Logged]:
        """Records of a partition, in order of offset."""

    def close(self) -> None:
        """Let go of it."""


class ProducersLog:
    """What the broker has acknowledged.

    Args:
        path: The producers' own log.
    """

    def __init__(self, path: Path) -> None:
        self.differing: list[tuple[str, Any, Any]] = []
        self._path = path

    def records(self, topic: str, partition: int) -> Iterator[Logged]:
        """Records of a partition, in order of offset."""
        return produced_records(self._path, topic, partition)

    def close(self) -> None:
        """Nothing to let go of."""


class TopicsLog:
    """What Kafka holds, held against what it has acknowledged, which also says what each record was meant to be.

    Args:
        broker: Where.
        path: The producers' own log.
    """

    def __init__(self, broker: Broker, path: Path) -> None:
        self.differing: list[tuple[str, Any, Any]] = []
        self._path = path
        self._reader = TopicReader(broker)

    def records(self, topic: str, partition: int) -> Iterator[Logged]:
        """Records of a partition, in order of offset."""
        acknowledged = produced_records(self._path, topic, partition)
        expected = next(acknowledged, None)
        for message in self._reader.messages(topic, partition):
            there = _logged(message)
            while expected is not None and expected.offset < there.offset:
                self.differing.append((f"{topic}[{partition}]@{expected.offset}", expected, None))
                expected = next(acknowledged, None)
            if expected is not None and expected.offset == there.offset:
                there = there._replace(meant=expected.meant)
                if there != expected:
                    self.differing.append((f"{topic}[{partition}]@{there.offset}", expected, there))
                expected = next(acknowledged, None)
            else:
                self.differing.append((f"{topic}[{partition}]@{there.offset}", None, there))
            yield there
        while expected is not None:
            self.differing.append((f"{topic}[{partition}]@{expected.offset}", expected, None))
            expected = next(acknowledged, None)

    def close(self) -> None:
        """Let go of the broker."""
        self._reader.close()


def _logged(message: Message) -> Logged:
    _, timestamp_ms = message.timestamp()
    headers: Any = message.headers() or []
    key: Any = message.key()
    value: Any = message.value()
    pairs = tuple((str(name), bytes(each)) for name, each in headers)
    return Logged(int(message.offset() or 0), timestamp_ms, key, value, pairs)
