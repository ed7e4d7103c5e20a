"""When an open feature store reads the catalog again, and who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from oomstream.query.definitions import REFRESH_AFTER_S, Definitions
from oomstream.query.refreshing import Refresher
from oomstream.schemas.catalog import Catalog
from oomstream.schemas.errors import StoreUnavailable
from oomstream.stores.catalog_cache import CatalogCache
from tests.unit.query.conftest import Run

MAX_AGE_S = 5.0


class History:
    """Counts reads; down, or silent until it is let go, when it is told so."""

    def __init__(self) -> None:
        self.reads = 0
        self.is_down = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def load_catalog(self) -> Catalog:
        """An empty one."""
        self.reads += 1
        await self.may_answer.wait()
        if self.is_down:
            raise StoreUnavailable("down")
        return Catalog()


class Stage:
    """A refresher on a clock that stands still."""

    def __init__(self) -> None:
        self.now = 100.0
        self.history = History()
        history: Any = self.history
        cache = CatalogCache(history, clock=self.clock, sleep=self.sleep)
        self.definitions = Definitions(cache)
        self.refresher = Refresher(self.definitions, MAX_AGE_S, clock=self.clock)

    def clock(self) -> float:
        """What it shows."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Move on."""
        self.now += seconds


def on_stage(run: Run, play: Callable[[Stage], Any]) -> Any:
    """Play on a stage whose catalog was just read."""

    async def scenario() -> Any:
        stage = Stage()
        await stage.definitions.reload()
        try:
            return await play(stage)
        finally:
            await stage.refresher.close()

    return run(scenario())


def test_copies_are_looked_up_at_half_their_age(run: Run) -> None:
    """Requests for batch groups have the catalog read at half the age it may have, others after half a minute."""

    async def play(stage: Stage) -> None:
        for age_s, copies, others, late in (
            (MAX_AGE_S / 2, False, False, False),
            (MAX_AGE_S / 2 + 0.1, True, False, False),
            (MAX_AGE_S + 0.1, True, False, True),
            (REFRESH_AFTER_S + 0.1, True, True, True),
        ):
            stage.now = 100.0 + age_s
            found = [stage.refresher.is_due(copies=True), stage.refresher.is_due(copies=False), stage.refresher.is_late]
            assert found == [copies, others, late]

    on_stage(run, play)


def test_those_who_wait_share_one_read(run: Run) -> None:
    """Twenty late requests wait for one read of the catalog, and are not late afterwards."""

    async def play(stage: Stage) -> None:
        stage.now += 60
        await asyncio.gather(*(stage.refresher.wait() for _ in range(20)))
        assert stage.history.reads == 2
        assert not stage.refresher.is_late
        assert not stage.refresher.is_due(copies=True)

    on_stage(run, play)


def test_an_outage_does_not_hold_up_requests(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """While history is down the first late request tries, and for a while nobody waits or tries again."""

    async def play(stage: Stage) -> None:
        stage.history.is_down = True
        stage.now += 60
        await stage.refresher.wait()
        assert (stage.history.reads, stage.refresher.is_late, stage.refresher.is_due(copies=True)) == (2, False, False)
        stage.now += 1.1
        assert (stage.refresher.is_late, stage.refresher.is_due(copies=True)) == (False, True)
        stage.now += MAX_AGE_S
        assert stage.refresher.is_late

    on_stage(run, play)
    assert "could not be read again: down" in caplog.text


def test_a_silent_database_is_waited_for_once(run: Run) -> None:
    """Of requests that come while a read has been silent for two seconds, none waits."""

    async def play(stage: Stage) -> None:
        stage.history.may_answer.clear()
        stage.now += 60
        stage.refresher.begin()
        stage.now += 2
        async with asyncio.timeout(5):
            await stage.refresher.wait()
        assert stage.history.reads <= 2
        assert stage.refresher.is_late
        stage.history.may_answer.set()

    on_stage(run, play)
