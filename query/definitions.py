"""The catalog as an open feature store knows it, and when it is read again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from oomstream.query.online import OnlinePlan
from oomstream.schemas.catalog import Catalog
from oomstream.stores.base import HistoryStore

SHORTEST_INTERVAL_S = 1.0
"""Reads of the catalog begin at least so far apart, whatever is asked."""

REFRESH_AFTER_S = 30.0
"""After this, a catalog in use is read again beside the requests: so old may a changed ttl be at most, about."""

_MOST_PLANS = 1_000


class Snapshot:
    """The catalog of one moment, with the online requests that were worked out under it.

    Args:
        catalog: The catalog.
        began_s: When reading it began, on the owner's monotonic clock.
    """

    def __init__(self, catalog: Catalog, began_s: float) -> None:
        self.catalog = catalog
        self.began_s = began_s
        self._plans: dict[tuple[str, ...], OnlinePlan] = {}

    def plan(self, features: Sequence[str]) -> OnlinePlan:
        """How to answer online requests for these features; worked out once.

        Raises:
            UnknownFeature: One is not in this catalog.
            InvalidRequest: None was named, or one twice.
        """
        names = tuple(features)
        plan = self._plans.get(names)
        if plan is None:
            plan = OnlinePlan(self.catalog, names)
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            self._plans[names] = plan
        return plan


class Definitions:
    """One feature store's copy of the catalog.

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
        self._lock = asyncio.Lock()
        self._snapshot: Snapshot | None = None

    @property
    def snapshot(self) -> Snapshot:
        """The copy; `reload` made it."""
        assert self._snapshot is not None
        return self._snapshot

    @property
    def is_old(self) -> bool:
        """Whether the copy should be read again beside the requests."""
        return self._clock() - self.snapshot.began_s > REFRESH_AFTER_S

    async def reload(self) -> Snapshot:
        """Read the catalog anew; what was published before the call is in the result.

        Calls that wait at the same time share one read. A call that comes too soon after a read waits for its turn,
        since an old copy would say that a new feature is unknown.

        Raises:
            StoreUnavailable: The history database cannot be read.
        """
        asked_s = self._clock()
        async with self._lock:
            if self._snapshot is not None:
                if self._snapshot.began_s > asked_s:
                    return self._snapshot
                pause_s = self._snapshot.began_s + SHORTEST_INTERVAL_S - self._clock()
                if pause_s > 0:
                    await self._sleep(pause_s)
            began_s = self._clock()
            self._snapshot = Snapshot(await self._history.load_catalog(), began_s)
            return self._snapshot
