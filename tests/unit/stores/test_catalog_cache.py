"""The process's copy of the catalog is read again when asked, at a bounded rate, and never answers stale."""

from __future__ import annotations

import asyncio

from oomstream.schemas.catalog import Catalog, Entity
from oomstream.stores.catalog_cache import SHORTEST_INTERVAL_S, CatalogCache
from tests.unit.streams.test_backoff import Clock


class Counting:
    """The one method of a history store that the cache needs."""

    def __init__(self) -> None:
        self.loads = 0

    async def load_catalog(self) -> Catalog:
        self.loads += 1
        await asyncio.sleep(0)
        return Catalog({"e": Entity("e", id=self.loads)}, {})


def make(history: Counting, clock: Clock) -> CatalogCache:
    """A cache on a clock of ours."""
    return CatalogCache(history, clock=clock, sleep=clock.sleep)  # type: ignore[arg-type]


def test_get_reads_once() -> None:
    """`get` reads the catalog the first time only."""
    history, clock = Counting(), Clock()

    async def scenario() -> None:
        cache = make(history, clock)
        assert (await cache.get()) is (await cache.get())

    asyncio.run(scenario())
    assert history.loads == 1


def test_reloads_wait_for_their_turn() -> None:
    """A reload always reads after it was asked for, and two reads are an interval apart."""
    history, clock = Counting(), Clock()

    async def scenario() -> None:
        cache = make(history, clock)
        assert (await cache.reload()).entities["e"].id == 1
        assert (await cache.reload()).entities["e"].id == 2

    asyncio.run(scenario())
    assert clock.now_s == SHORTEST_INTERVAL_S


def test_waiting_callers_share_a_read() -> None:
    """Twenty pipelines that ask at once cause at most two reads, none of which began before it was asked for."""
    history, clock = Counting(), Clock()

    async def scenario() -> None:
        cache = make(history, clock)
        await asyncio.gather(*(cache.reload() for _ in range(20)))

    asyncio.run(scenario())
    assert history.loads <= 2
