"""Dead letters: what is kept of a record that cannot be accepted, and when there are too many of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from oomstream.schemas.errors import DlqLimitReached
from oomstream.stores.base import DlqCounts

HEADER_PREFIX = "oomstream.error."


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One rejected record with everything that is needed to judge and to replay it.

    Its identity is (incarnation, partition, offset): dead-letter topics are at-least-once, and who reads them
    counts letters of one identity once.

    Attributes:
        topic: Topic of the original record.
        incarnation: Its topic id.
        partition: Its partition.
        offset: Its offset.
        timestamp: Its Kafka timestamp, UTC milliseconds.
        stage: Where it was rejected: ``decode`` or ``store``.
        reason: Stable reason code.
        message: One sentence, without any value of the event.
        key: Original message key.
        value: Original message value.
        headers: Original headers, in order.
    """

    topic: str
    incarnation: str
    partition: int
    offset: int
    timestamp: int
    stage: str
    reason: str
    message: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    @property
    def identity(self) -> tuple[str, int, int]:
        """What is counted once however often the letter was written."""
        return self.incarnation, self.partition, self.offset

    def message_headers(self) -> list[tuple[str, bytes | None]]:
        """Headers of the dead letter: the original ones, then ours."""
        ours = {
            "topic": self.topic,
            "topic_id": self.incarnation,
            "partition": self.partition,
            "offset": self.offset,
            "timestamp": self.timestamp,
            "stage": self.stage,
            "reason": self.reason,
            "message": self.message,
        }
        return [*self.headers, *((HEADER_PREFIX + name, str(value).encode()) for name, value in ours.items())]

    @classmethod
    def from_message(
        cls, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
    ) -> DeadLetter | None:
        """Read a message of a dead-letter topic; None if it is not a dead letter of ours."""
        # An original record may itself have been a dead letter: ours are the last eight headers.
        original, ours = headers[:-8], dict(headers[-8:])
        try:
            text = {name.removeprefix(HEADER_PREFIX): (raw or b"").decode() for name, raw in ours.items()}
            numbers = {name: int(text[name]) for name in ("partition", "offset", "timestamp")}
            return cls(
                topic=text["topic"],
                incarnation=text["topic_id"],
                stage=text["stage"],
                reason=text["reason"],
                message=text["message"],
                key=key,
                value=value,
                headers=tuple(original),
                **numbers,
            )
        except (KeyError, ValueError):
            return None


class DeadLetterSink(ABC):
    """Where dead letters go."""

    @abstractmethod
    async def send(self, letters: Sequence[DeadLetter]) -> None:
        """Write letters durably, in order; returns when all are acknowledged.

        Raises:
            StoreUnavailable: Some may have been written; sending all again is harmless.
        """


class DlqLimit(NamedTuple):
    """How many dead letters of one source are a bad deploy rather than bad events.

    Only a letter passes a limit: a worker that is started after the fix goes on with the valid event where it stands.
    Valid events make up for the letters, until the share of both is allowed again and a new window begins.

    Attributes:
        max_consecutive: Letters in a row that are still allowed; 0 = any number.
        max_ratio: Share of letters in a window that is still allowed; 1 = any.
        window: Records per window, and the fewest over which the share is judged.
    """

    max_consecutive: int
    max_ratio: float
    window: int

    def after(self, counts: DlqCounts, letters: Sequence[bool], *, where: str) -> DlqCounts:
        """Counts after a batch, in log order.

        Args:
            counts: Counts before the batch.
            letters: Per record of the batch, whether it is a dead letter.
            where: Names the source in the error.

        Raises:
            DlqLimitReached: A limit is passed within the batch; its `allowed` records may be taken, no more.
        """
        if True not in letters and counts.window_records + len(letters) < self.window:
            # The common case, a batch of valid events, must cost nothing per event.
            return DlqCounts(
                0 if letters else counts.consecutive, counts.window_records + len(letters), counts.window_letters
            )
        consecutive, records, dead = counts
        for allowed, is_letter in enumerate(letters):
            consecutive = consecutive + 1 if is_letter else 0
            records += 1
            dead += is_letter
            if self.max_consecutive and consecutive > self.max_consecutive:
                raise DlqLimitReached(
                    f"{where}: more than {self.max_consecutive} events in a row are invalid; stopped before any more "
                    "become dead letters (see `oomstream dlq list`; after the fix, start the worker again, or raise "
                    "OOMSTREAM_DLQ_MAX_CONSECUTIVE to let them pass)",
                    allowed,
                )
            if records >= self.window:
                over = dead > records * self.max_ratio
                if over and is_letter:
                    raise DlqLimitReached(
                        f"{where}: {dead} of the last {records} events are invalid, more than the share of "
                        f"{self.max_ratio:g} allowed; stopped before any more become dead letters (see `oomstream dlq "
                        "list`; after the fix, start the worker again, or raise OOMSTREAM_DLQ_MAX_RATIO "
                        "to let them pass)",
                        allowed,
                    )
                if not over:
                    records = dead = 0
        return DlqCounts(consecutive, records, dead)
