"""Online reads of batch groups: how new they are, and what they do when history is down or a copy is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.query.sync import FeatureStore
from oomstream.schemas.catalog import Catalog
from oomstream.schemas.errors import StoreUnavailable
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import OnlineRow, encode_key, encode_value, seal_key
from oomstream.stores.base import OnlineRead
from oomstream.stores.opening import init_stores
from oomstream.stores.settings import Settings, load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.sql.online import SqlOnlineStore
from oomstream.stores.testing.history_revisions import batch, lines, publish
from oomstream.stores.testing.history_suite import register
from tests.unit.query.conftest import Run

NAMES = ["state.n"]
ROW = [{"k": "k000001"}]


class History(SqlHistoryStore):
    """Does not answer while it is told not to."""

    is_down = False

    async def load_catalog(self) -> Catalog:
        """The catalog, or no answer."""
        if self.is_down:
            raise StoreUnavailable("history is down")
        return await super().load_catalog()


class Online(SqlOnlineStore):
    """Answers first with what was there some time ago, when it is told so."""

    earlier: list[bytes | None] | None = None

    async def read_aged(self, keys: list[bytes]) -> OnlineRead:  # type: ignore[override]
        """As it is, or as it was."""
        if self.earlier is not None:
            return OnlineRead(self.earlier, 1_000_000)
        return await super().read_aged(keys)


class Stage:
    """A batch group of one entity, and a reader of it whose metadata may not be old at all."""

    def __init__(self, settings: Settings, max_age_s: float) -> None:
        self.history = History(settings.history, settings)
        self.online = Online(settings.online, settings)
        self.store = AsyncFeatureStore(self.online, self.history, max_age_s=max_age_s)
        self.mine: FeatureGroup | None = None

    async def show(self, number: int) -> int:
        """Bring a revision online; gives the copy's sync id."""
        if self.mine is None:
            [self.mine] = await register(self.history, batch())
        made = await publish(self.history, self.mine, lines(1))
        copy = await self.history.begin_sync(self.mine, made, lease_s=600)
        entity = encode_entity(("k000001",))
        body = bytes([0x0E, *b"k000001", 2 * number])  # Avro: a text of seven bytes, a long
        value = encode_value(bytes(21), 0, self.mine.fingerprint, False, body)
        keys = encode_key(self.mine.id, entity, copy.id), seal_key(self.mine.id, copy.id)
        await self.online.upsert_newer([OnlineRow(each, value) for each in keys])
        await self.history.flip(self.mine, copy, purge_delay_s=0)
        return copy.id

    async def remove(self, sync_id: int) -> None:
        """Purge a copy, as far as its seal."""
        assert self.mine is not None
        await self.online.delete([seal_key(self.mine.id, sync_id)])

    async def read(self) -> int | None:
        """What a reader gets."""
        found: int | None = (await self.store.get_online_features(NAMES, ROW)).to_dict()["state.n"][0]
        return found


def on_stage(run: Run, tmp_path: Path, play: Callable[[Stage], Awaitable[None]], *, max_age_s: float = 0.0) -> None:
    """Play with one revision online."""

    async def scenario() -> None:
        stage = Stage(load_settings(data_dir=tmp_path), max_age_s)
        async with stage.history, stage.online:
            await init_stores(stage.history, stage.online)
            await stage.show(1)
            async with stage.store:
                await play(stage)

    run(scenario())


def test_late_readers_see_the_newest(run: Run, tmp_path: Path) -> None:
    """A request whose metadata is older than it may be has it read first, and sees the revision of now."""

    async def play(stage: Stage) -> None:
        assert await stage.read() == 1
        await stage.show(2)
        assert await stage.read() == 2

    on_stage(run, tmp_path, play)


def test_reads_outlive_history(run: Run, tmp_path: Path) -> None:
    """While history is down, what is known goes on being served; if that is being removed, history is asked for."""

    async def play(stage: Stage) -> None:
        assert await stage.read() == 1
        new = await stage.show(2)
        stage.history.is_down = True
        assert [await stage.read() for _ in range(3)] == [1, 1, 1]
        await stage.remove(1)
        with pytest.raises(StoreUnavailable, match="history is down"):
            await stage.read()
        stage.history.is_down = False
        assert await stage.read() == 2
        await stage.remove(new)
        with pytest.raises(StoreUnavailable, match="oomstream sync"):
            await stage.read()

    on_stage(run, tmp_path, play)


def test_removed_copies_are_noticed(run: Run, tmp_path: Path) -> None:
    """However new metadata is taken to be, a reader whose copy is being removed reads the one of now."""

    async def play(stage: Stage) -> None:
        assert await stage.read() == 1
        await stage.show(2)
        assert await stage.read() == 1
        await stage.remove(1)
        assert await stage.read() == 2

    on_stage(run, tmp_path, play, max_age_s=3600)


def test_answers_of_before_the_copy(run: Run, tmp_path: Path) -> None:
    """A store that answers with an earlier moment, when the copy was not whole, is asked for that of now."""

    async def play(stage: Stage) -> None:
        stage.online.earlier = [None, None]
        found = await stage.store.get_online_features(NAMES, ROW)
        assert (found.to_dict()["state.n"], found.age_us) == ([1], 0)

    on_stage(run, tmp_path, play, max_age_s=3600)


def test_readers_that_do_not_await(run: Run, tmp_path: Path) -> None:
    """From threads too: late ones wait, and those whose copy is being removed read the one of now."""
    settings = load_settings(data_dir=tmp_path)

    def read(store: FeatureStore) -> list[int | None]:
        return store.get_online_features(NAMES, ROW).to_dict()["state.n"]

    async def play(stage: Stage) -> None:
        for max_age_s, seen in ((0.0, [2]), (3600.0, [1])):
            inner = AsyncFeatureStore(
                SqlOnlineStore(settings.online, settings),
                SqlHistoryStore(settings.history, settings),
                max_age_s=max_age_s,
            )
            before = await stage.show(1)
            with await asyncio.to_thread(FeatureStore, inner) as store:
                assert await asyncio.to_thread(read, store) == [1]
                await stage.show(2)
                assert await asyncio.to_thread(read, store) == seen
                await stage.remove(before)
                assert await asyncio.to_thread(read, store) == [2]

    on_stage(run, tmp_path, play)
