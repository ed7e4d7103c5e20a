"""The catalog as a running process knows it, and when it is read again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from oomstream.schemas.catalog import Catalog
from oomstream.stores.base import HistoryStore
from oomstream.stores.forgetting import Marks

SHORTEST_INTERVAL_S = 0.2
"""Reads of the catalog begin at least so far apart, whatever is asked."""


class CatalogCache:
    """One process's copy of the catalog, shared by all its pipelines or by all requests to a feature store.

    Args:
        history: Where the catalog rests.
        clock: Monotonic clock, seconds.
        sleep: Waits that many seconds.
    """

    def __init__(
        self,
        history: HistoryStore,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._history = history
        self._clock = clock
        self._sleep = sleep
        self._catalog: Catalog | None = None
        self._marks: Marks | None = None
        self._asked = 0
        self._served = 0
        self._loaded_at = float("-inf")
        self._lock = asyncio.Lock()

    async def get(self) -> Catalog:
        """The copy, read once if there is none yet.

        Raises:
            StoreUnavailable: The history database cannot be read.
        """
        return self._catalog if self._catalog is not None else await self.reload()

    @property
    def age_s(self) -> float:
        """Seconds since the read began that the copy is from; infinite before the first."""
        return self._clock() - self._loaded_at

    @property
    def marks(self) -> Marks | None:
        """Marks of forgotten entities: all that the copy's groups count, at least. None while there are none."""
        return self._marks

    async def reload(self) -> Catalog:
        """Read the catalog anew; what was published before the call is in the result.

        Calls that wait at the same time share one read, and reads are at least 0.2 s apart: a caller waits for
        its turn instead of being given an old copy: it would judge an event, or a feature's name, with it.

        Raises:
            StoreUnavailable: The history database cannot be read.
        """
        self._asked += 1
        mine = self._asked
        async with self._lock:
            if mine > self._served:
                pause_s = self._loaded_at + SHORTEST_INTERVAL_S - self._clock()
                if pause_s > 0:
                    await self._sleep(pause_s)
                served = self._asked
                began = self._clock()
                catalog = await self._history.load_catalog()
                await self._learn_marks(max((each.group.forgets for each in catalog.groups.values()), default=0))
                self._catalog = catalog
                self._loaded_at = began
                self._served = served
            assert self._catalog is not None
            return self._catalog

    async def _learn_marks(self, number: int) -> None:
        if self._marks is None and number:
            self._marks = Marks(await self._history.pairing_id() or "")
        if self._marks is not None and self._marks.number < number:
            self._marks.add(await self._history.marks(self._marks.number))
