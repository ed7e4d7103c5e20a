"""What is said of refused events: how many, why, and where the first one is, and not too often."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from oomstream.schemas.events import Rejected

log = logging.getLogger(__name__)

EVERY_S = 10.0


def reasons_text(rejected: Sequence[Rejected]) -> str:
    """Reasons by number, and the first offset: ``20 unknown_framing, 1 too_large, the first at offset 17``."""
    return _text(Counter(str(each.error.reason) for each in rejected), rejected[0].record.offset)


def _text(reasons: Counter[str], first: int) -> str:
    counted = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
    return f"{counted}, the first at offset {first}"


class RefusedLog:
    """Says of one source that events were refused: at once, then at most every ten seconds.

    Args:
        where: Names the source.
        clock: Monotonic clock, seconds.
    """

    def __init__(self, where: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._where = where
        self._clock = clock
        self._reasons: Counter[str] = Counter()
        self._first = 0
        self._said_at = float("-inf")

    def add(self, rejected: Sequence[Rejected]) -> None:
        """Count refused events, and say it when it is time."""
        if not self._reasons:
            self._first = rejected[0].record.offset
        self._reasons.update(str(each.error.reason) for each in rejected)
        if self._clock() - self._said_at >= EVERY_S:
            self.say()

    def say(self) -> None:
        """Say what was counted and not said yet, if there is any."""
        if self._reasons:
            total = sum(self._reasons.values())
            log.warning(
                "%s: %s refused (%s): see `oomstream dlq list`",
                self._where,
                "1 event" if total == 1 else f"{total:,} events",
                _text(self._reasons, self._first),
            )
            self._reasons.clear()
            self._said_at = self._clock()
