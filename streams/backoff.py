"""How long to wait before a store or broker that is down is tried again, and when to give up."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from oomstream.schemas.errors import Fatal, StoreUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 10.0


class Backoff:
    """Capped exponential backoff with jitter over one outage, up to a budget.

    Args:
        budget_s: How long the outage may last before it is `Fatal`, seconds.
        where: Names what is waiting, for messages.
        clock: Monotonic clock, seconds.
        sleep: Waits that many seconds.
        jitter: Gives a factor from 0.5 to 1.
    """

    def __init__(
        self,
        budget_s: float,
        *,
        where: str,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0),  # noqa: S311 (spreads retries, guards nothing)
    ) -> None:
        self._budget_s = budget_s
        self._where = where
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._since: float | None = None
        self._wait_s = FIRST_WAIT_S

    async def wait(self, error: StoreUnavailable) -> None:
        """Wait before the next try.

        Raises:
            Fatal: The outage has outlasted the budget.
        """
        now = self._clock()
        if self._since is None:
            self._since = now
        if now - self._since >= self._budget_s:
            raise Fatal(f"{self._where}: gave up after {self._budget_s:g} s of trying: {error}") from error
        log.warning("%s: %s (trying again)", self._where, error)
        await self._sleep(self._wait_s * self._jitter())
        self._wait_s = min(self._wait_s * 2, LONGEST_WAIT_S)

    async def call(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Do an operation that may be repeated until it succeeds.

        Raises:
            Fatal: The outage has outlasted the budget.
        """
        while True:
            try:
                result = await operation()
            except StoreUnavailable as exc:
                await self.wait(exc)
            else:
                self._since, self._wait_s = None, FIRST_WAIT_S
                return result
