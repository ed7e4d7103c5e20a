"""Reading what a topic's log holds, from one offset to another, beside its consumer group and with no part in it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, cast

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from oomstream.schemas.errors import StoreUnavailable
from oomstream.schemas.events import RawRecord
from oomstream.streams.broker import Broker
from oomstream.streams.topics import partition_counts

_MOST_RECORDS = 1_000
_FIRST_RECORDS = 50
_AIM_BYTES = 4 << 20
_WAIT_S = 0.2
_MOST_DROPS = 1_000
"""How often the log may drop what is about to be read before it is an error."""


class Stretch(NamedTuple):
    """A stretch of a partition's log.

    Attributes:
        start: Its first offset.
        end: The offset behind it.
        records: All that it holds, in order; offsets between them hold transaction markers or nothing any more.
        dropped: Whether the log no longer holds it, so that nothing can be said of it.
    """

    start: int
    end: int
    records: Sequence[RawRecord] = ()
    dropped: bool = False


class TopicLog:
    """One topic's log, as committed transactions have it; reads with at most some MiB in memory.

    For one thread at a time, but `close` from any.

    Args:
        broker: Where.
        topic: Its name.
        timeout_s: How long the broker may not answer, seconds.
    """

    def __init__(self, broker: Broker, topic: str, *, timeout_s: float) -> None:
        self.topic = topic
        self._broker = broker
        self._timeout_s = timeout_s
        self._records = _FIRST_RECORDS
        self._lock = threading.Lock()
        self._consumer = Consumer(
            {
                **broker.client_config(timeout_s),
                "group.id": "oomstream-log-reader",  # required by the client; this reader joins and commits nothing
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",  # what the log drops while it is read must be told
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "queued.max.messages.kbytes": 16_384,
                "fetch.wait.max.ms": 50,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the broker."""
        with self._lock:
            self._consumer.close()

    def partitions(self) -> int:
        """How many it has; 0 if there is no such topic (asking an embedded broker for it by name would make it)."""
        return partition_counts(self._broker, timeout_s=self._timeout_s).get(self.topic, 0)

    def bounds(self, partition: int) -> tuple[int, int]:
        """First offset that the log holds, and its end (offset of the next record to come).

        Raises:
            StoreUnavailable: The broker does not answer.
        """
        try:
            with self._lock:
                found = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), self._timeout_s)
        except KafkaException as exc:
            raise self._error(exc) from exc
        if found is None:
            raise StoreUnavailable(f"{self._where}: no answer within {self._timeout_s:g} s")
        return found

    def offset_at(self, partition: int, time_ms: int) -> int:
        """First offset whose record's timestamp is not before a time (UTC milliseconds); the end if there is none.

        Raises:
            StoreUnavailable: The broker does not answer.
        """
        asked = [TopicPartition(self.topic, partition, time_ms)]
        try:
            with self._lock:
                [found] = self._consumer.offsets_for_times(asked, self._timeout_s)
        except KafkaException as exc:
            raise self._error(exc) from exc
        if found.error is not None:
            raise self._error(found.error)
        return self.bounds(partition)[1] if found.offset in {OFFSET_END, -1} else found.offset

    def read(self, partition: int, start: int, end: int) -> Iterator[Stretch]:
        """Everything from `start` to before `end`, in stretches that follow each other without a gap.

        Raises:
            StoreUnavailable: The broker does not answer; what was given is right, but not all.
        """
        position = start
        for _ in range(_MOST_DROPS):
            first, last = self.bounds(partition)
            if position < first:
                yield Stretch(position, min(first, end), dropped=True)
                position = first
            elif position >= last:
                yield Stretch(position, end)  # the log was truncated: it holds nothing of this
                return
            for stretch in self._read_on(partition, position, end):
                yield stretch
                position = stretch.end
            if position >= end:
                return
        raise StoreUnavailable(f"{self._where}: it drops records of partition {partition} faster than they are read")

    def _read_on(self, partition: int, position: int, end: int) -> Iterator[Stretch]:
        """As `read`, until the end or until the log no longer holds the position."""
        with self._lock:
            self._consumer.assign([TopicPartition(self.topic, partition, position)])
        heard_at = time.monotonic()
        while position < end:
            with self._lock:
                messages = self._consumer.consume(self._records, timeout=min(_WAIT_S, self._timeout_s))
            if messages:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > self._timeout_s:
                raise StoreUnavailable(f"{self._where}: no answer within {self._timeout_s:g} s")
            own = [message for message in messages if message.partition() == partition]
            records, ended, lost = self._sort(own, end)
            upto = end if ended else records[-1].offset + 1 if records else position
            if upto > position:
                yield Stretch(position, upto, records)
                position = upto
            if lost:
                return

    def _sort(self, messages: Sequence[Message], end: int) -> tuple[list[RawRecord], bool, bool]:
        """Records before `end`; whether there are no more of them; whether the log dropped what comes next."""
        records: list[RawRecord] = []
        size = 0
        for message in messages:
            error = message.error()
            if error is None:
                offset = message.offset() or 0
                if offset >= end:
                    return records, True, False
                records.append(_record(message, offset))
                size += len(message.value() or b"") + len(message.key() or b"") + 100
            elif error.code() == KafkaError._PARTITION_EOF:
                return records, True, False
            elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                return records, False, True
            elif error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:  # of no use to a reader without a group
                raise self._error(error)
        if records:
            fits = _AIM_BYTES * len(records) // size
            self._records = max(1, min(fits, 4 * self._records, _MOST_RECORDS))
        return records, False, False

    @property
    def _where(self) -> str:
        return f"topic {self.topic}: broker {self._broker.url}"

    def _error(self, exc: object) -> Exception:
        return self._broker.error(exc, f"topic {self.topic}", self._consumer)


def _record(message: Message, offset: int) -> RawRecord:
    headers = tuple(cast(Any, message.headers() or ()))
    return RawRecord(offset, message.key(), message.value(), message.timestamp()[1], headers)


async def in_thread(stretches: Iterator[Stretch]) -> AsyncGenerator[Stretch, None]:
    """Stretches read in threads, so that the event loop goes on."""
    while (stretch := await asyncio.to_thread(next, stretches, None)) is not None:
        yield stretch
