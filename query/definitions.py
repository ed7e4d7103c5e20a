"""The catalog as an open feature store knows it, and when it is read again."""

from __future__ import annotations

from collections.abc import Sequence

from oomstream.query.online_plan import OnlinePlan
from oomstream.schemas.catalog import Catalog
from oomstream.stores.catalog_cache import CatalogCache

REFRESH_AFTER_S = 30.0
"""After this, a catalog in use is read again beside the requests: so old may a changed ttl be at most, about."""

_MOST_PLANS = 1_000


class Snapshot:
    """The catalog of one moment, with the online requests that were worked out under it.

    Args:
        catalog: The catalog.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
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
    """One feature store's copy of the catalog, and what was worked out under it.

    Args:
        catalog: The copy.
    """

    def __init__(self, catalog: CatalogCache) -> None:
        self._cache = catalog
        self._snapshot: Snapshot | None = None

    @property
    def snapshot(self) -> Snapshot:
        """The copy; `reload` made it."""
        assert self._snapshot is not None
        return self._snapshot

    @property
    def age_s(self) -> float:
        """Seconds since the read began that the copy is from."""
        return self._cache.age_s

    async def reload(self) -> Snapshot:
        """Read the catalog anew; what was published before the call is in the result.

        Raises:
            StoreUnavailable: The history database cannot be read.
        """
        catalog = await self._cache.reload()
        # Batch groups have it read every few seconds, mostly to the same words: plans are kept then.
        if self._snapshot is None or self._snapshot.catalog != catalog:
            self._snapshot = Snapshot(catalog)
        return self._snapshot
