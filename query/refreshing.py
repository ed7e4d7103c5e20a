"""When an open feature store reads the catalog again beside its requests, and which requests wait for it.

Of batch groups the catalog says which copy is online, so it is read anew at half the age that it may have: requests
that follow each other closely never wait. One that comes after a pause waits for it, a little: when the history
database does not answer, it is answered from the copy that is known, which its seal shows to be whole.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from oomstream.query.definitions import REFRESH_AFTER_S, Definitions
from oomstream.schemas.errors import OomstreamError

_log = logging.getLogger(__name__)

_LONGEST_WAIT_S = 2.0
_RETRY_S = 1.0


class Refresher:
    """Reads one feature store's catalog again; for one event loop, what it tells may be asked from any thread.

    Args:
        definitions: The catalog's copy.
        max_age_s: How old it may be for requests that read batch groups.
        clock: Monotonic clock, seconds.
    """

    def __init__(
        self, definitions: Definitions, max_age_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._definitions = definitions
        self._max_age_s = max_age_s
        self._clock = clock
        self._began = self._failed = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def is_due(self, *, copies: bool) -> bool:
        """Whether to read it again beside a request.

        Args:
            copies: Whether the request reads batch groups.
        """
        limit_s = self._max_age_s / 2 if copies else REFRESH_AFTER_S
        return self._definitions.age_s > limit_s and self._clock() - self._failed > _RETRY_S

    @property
    def is_late(self) -> bool:
        """Whether a request that reads batch groups waits for it first; not while the database does not answer."""
        return self._definitions.age_s > self._max_age_s and self._clock() - self._failed > self._max_age_s

    def begin(self) -> None:
        """Read it again, beside whatever runs; what is being read already counts."""
        if self._task is None or self._task.done():
            self._began = self._clock()
            self._task = asyncio.create_task(self._read())

    async def wait(self) -> None:
        """Read it again and wait for that; for all who wait it is one read, and at most two seconds."""
        self.begin()
        assert self._task is not None
        await asyncio.wait({self._task}, timeout=max(0.0, self._began + _LONGEST_WAIT_S - self._clock()))

    async def close(self) -> None:
        """Read no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _read(self) -> None:
        try:
            await self._definitions.reload()
        except OomstreamError as exc:
            self._failed = self._clock()
            _log.warning("the catalog could not be read again: %s", exc)
