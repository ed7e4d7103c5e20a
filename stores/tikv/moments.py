"""Timestamps that several reads share, which saves each a round trip to PD: half of a read of few keys.

A timestamp that was asked for t seconds ago gives the state of at most t seconds ago. A new one is asked for beside the
reads when the old one has half its age, so that reads which follow each other closely never wait for one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Moment(NamedTuple):
    """A moment to read at.

    Attributes:
        timestamp: PD's.
        age_s: How old it is at most, seconds.
    """

    timestamp: int
    age_s: float = 0.0


class _Asked(NamedTuple):
    client: Any
    answer: asyncio.Future[int]
    at_s: float


class Moments:
    """The newest timestamp that was asked for; used from one event loop.

    Args:
        clock: Monotonic clock, seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: _Asked | None = None
        self._next: _Asked | None = None

    async def now_or_before(self, client: Any, max_age_s: float) -> Moment:
        """A timestamp of at most that age; 0 = of now.

        Args:
            client: The client that asks, and will read.
            max_age_s: Seconds.

        Raises:
            Exception: tikv-client's own error.
        """
        if max_age_s <= 0:
            return Moment(await client.current_timestamp())
        called_at_s = self._clock()
        oldest_s = called_at_s - max_age_s
        asked = self._usable(client, oldest_s)
        if asked is None:
            asked = self._ask(client, oldest_s)
        elif asked.at_s < called_at_s - max_age_s / 2:
            self._ask(client, oldest_s)
        # Not cancelled with one of the reads that wait for it.
        timestamp = await asyncio.shield(asked.answer)
        return Moment(timestamp, max(0.0, called_at_s - asked.at_s))

    def _usable(self, client: Any, oldest_s: float) -> _Asked | None:
        if self._next is not None and _is_good(self._next.answer):
            self._known, self._next = self._next, None
        for asked in (self._known, self._next):
            if asked is not None and asked.client is client and asked.at_s >= oldest_s and not _failed(asked.answer):
                return asked
        return None

    def _ask(self, client: Any, oldest_s: float) -> _Asked:
        asked = self._next
        if asked is None or asked.client is not client or asked.at_s < oldest_s or asked.answer.done():
            asked = self._next = _Asked(client, asyncio.ensure_future(client.current_timestamp()), self._clock())
            asked.answer.add_done_callback(_retrieve)
        return asked


def _is_good(answer: asyncio.Future[int]) -> bool:
    return answer.done() and not _failed(answer)


def _failed(answer: asyncio.Future[int]) -> bool:
    return answer.done() and (answer.cancelled() or answer.exception() is not None)


def _retrieve(answer: asyncio.Future[int]) -> None:
    """Who waits for it has its error; if nobody does, the next read asks again."""
    if not answer.cancelled():
        answer.exception()
