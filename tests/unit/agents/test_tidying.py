"""One worker of all removes from the online store what nobody needs; an outage of it is nobody's trouble."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomstream.agents.worker.tidying import EVERY_S, OLDER_THAN_S, tidy
from oomstream.schemas.errors import StoreUnavailable
from oomstream.schemas.online_value import OnlineRow, encode_key, seal_key
from oomstream.stores.opening import history_store, init_stores
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.online import SqlOnlineStore
from oomstream.stores.testing.history_revisions import batch, lines, publish
from oomstream.stores.testing.history_suite import register


class Store(SqlOnlineStore):
    """Counts how often it is told to forget, and is down the first time."""

    def __init__(self, folder: Path) -> None:
        settings = load_settings(data_dir=folder)
        super().__init__(settings.online, settings)
        self.calls: list[float] = []

    async def gc(self, older_than_s: float = 600.0) -> bool:
        """Say yes."""
        self.calls.append(older_than_s)
        if len(self.calls) == 1:
            raise StoreUnavailable("down")
        return True


async def at_once(seconds: float) -> None:
    """Let others run."""
    assert seconds == EVERY_S
    await asyncio.sleep(0)


def test_only_the_elected_worker_tidies(tmp_path: Path) -> None:
    """Whoever is elected at the time tidies; a store that is down is tried again the next time."""
    turns: Iterator[bool] = iter([False, True, True, False, True])

    async def scenario() -> list[float]:
        settings = load_settings(data_dir=tmp_path)
        async with history_store(settings.history, settings) as history, Store(tmp_path) as online:
            await init_stores(history, online)
            with pytest.raises(RuntimeError, match="StopIteration"):  # the turns have come to their end
                await tidy(history, online, lambda: next(turns), sleep=at_once)
            return online.calls

    assert asyncio.run(scenario()) == [OLDER_THAN_S] * 3


def test_due_copies_are_purged(tmp_path: Path) -> None:
    """A copy of a revision that a killed sync left is removed by the next tidying; the one that readers see stays."""
    turns: Iterator[bool] = iter([True])

    async def scenario() -> None:
        settings = load_settings(data_dir=tmp_path)
        async with history_store(settings.history, settings) as history, Store(tmp_path) as online:
            await init_stores(history, online)
            [mine] = await register(history, batch())
            made = await publish(history, mine, lines(1))
            live = await history.begin_sync(mine, made, lease_s=600)
            await history.flip(mine, live, purge_delay_s=0)
            dead = await history.begin_sync(mine, made, lease_s=0)
            kept = [
                OnlineRow(key, bytes(60)) for key in (seal_key(mine.id, live.id), encode_key(mine.id, b"k", live.id))
            ]
            await online.upsert_newer([*kept, OnlineRow(encode_key(mine.id, b"k", dead.id), bytes(60))])
            with pytest.raises(RuntimeError, match="StopIteration"):
                await tidy(history, online, lambda: next(turns), sleep=at_once)
            assert await online.scan(b"o") == kept
            assert [each.id for each in await history.syncs()] == [live.id]

    asyncio.run(scenario())
