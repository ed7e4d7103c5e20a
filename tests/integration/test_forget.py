"""Entities that were forgotten: gone everywhere, kept out by everybody, on every pair of stores."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.schemas.errors import DefinitionChanged, InvalidRequest, StoreUnavailable
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import HistoryBatch, SourceName
from oomstream.stores.forgetting import Marks
from oomstream.stores.revisions import RevisionRow
from oomstream.stores.testing.samples import group
from oomstream.streams.dead_letters import DeadLetter
from oomstream.streams.forget import Forgotten, forget, free_places
from oomstream.streams.letters import not_forgotten
from oomstream.streams.sync import sync_group
from tests.integration.backends import Backends, prepare_async
from tests.integration.riders import GONE, GROUPS, STAYS, T0, Stage, event, staged


async def forgotten(stage: Stage, **options: Any) -> Forgotten:
    """Forget one of the two entities."""
    catalog = await stage.history.load_catalog()
    return await forget(stage.history, stage.online, catalog, "rider", [(GONE,)], **options)


def test_a_forgotten_entity_is_gone_everywhere(backends: Backends) -> None:
    """Online, in history and in training sets nothing of it is left; other entities stay, and verify is content."""

    async def check() -> None:
        async with staged(backends) as stage:
            done = await forgotten(stage)
            assert done.rows == {"rides": 2, "taps": 2}
            assert await stage.online_numbers(*GROUPS) == {name: [None, 4] for name in GROUPS}
            for name in GROUPS:
                assert await stage.rows(name) == [(STAYS, 2), (STAYS, 4)]
            labels = [{"k": GONE, "event_timestamp": "2100-01-01T00:00:00Z"}]
            async with AsyncFeatureStore.open(settings=stage.settings) as store:
                joined = (await store.get_historical_features(labels, ["rides.n"])).to_arrow()
            assert joined.column("rides.n").to_pylist() == [None]
            await stage.check_verified()
            assert (await forgotten(stage)).rows == {"rides": 0, "taps": 0}

    asyncio.run(check())


def test_late_events_do_not_bring_it_back(backends: Backends) -> None:
    """Running pipelines and new ones leave out its events up to then, and take those of a later time."""

    async def check() -> None:
        async with staged(backends) as stage:
            running = await stage.pipeline("rides")
            await running.ingest([event(4, STAYS, 5, 5)])
            done = await forgotten(stage)
            await running.ingest([event(5, GONE, 6, 6), event(6, STAYS, 7, 7)])
            assert (running.next_offset, await stage.online_numbers("rides")) == (7, {"rides": [None, 7]})
            again = await stage.pipeline("rides", "made again")
            await again.ingest([event(0, GONE, 1, 1), event(1, STAYS, 8, 8)])
            assert GONE not in {rider for rider, _ in await stage.rows("rides")}
            later = done.time_us - T0 + 1
            await again.ingest([event(2, GONE, later, 9)])
            assert await stage.online_numbers("rides") == {"rides": [9, 8]}
            assert (GONE, 9) in await stage.rows("rides")
            await stage.check_verified()

    asyncio.run(check())


def test_a_writer_that_does_not_know_is_refused(backends: Backends) -> None:
    """A batch that was decoded before the forgetting is not written after it, whoever holds it."""

    async def check() -> None:
        async with staged(backends) as stage:
            before = (await stage.history.load_catalog()).group("rides")
            await forgotten(stage)
            source = await stage.history.claim(SourceName(SourceKind.TOPIC, "rides", "first", 0))
            batch = HistoryBatch(before, [], source.next_sequence + 1, source.next_sequence)
            with pytest.raises(DefinitionChanged, match="entities were forgotten"):
                await stage.history.append(source, batch)
            with pytest.raises(DefinitionChanged, match="entities were forgotten"):
                await stage.history.append_replayed(source.id, before, [])

    asyncio.run(check())


def test_the_key_leaves_the_online_store(backends: Backends) -> None:
    """Its place online is held for a while, then freed; a newer event's row stays."""

    async def check() -> None:
        async with staged(backends) as stage:
            places = [await stage.place(name) for name in GROUPS]
            done = await forgotten(stage, hold_s=3600)
            assert await free_places(stage.history, stage.online) == 0
            assert None not in await stage.online.read(places)
            assert [each.key for each in await stage.history.held_keys(due=False)] == [encode_entity((GONE,))]
            done = await forgotten(stage, hold_s=0)
            await (await stage.pipeline("taps")).ingest([event(4, GONE, done.time_us - T0 + 1, 5)])
            assert await free_places(stage.history, stage.online) == 1
            assert [value is None for value in await stage.online.read(places)] == [True, False]
            assert await stage.history.held_keys(due=False) == []
            assert await stage.online_numbers(*GROUPS) == {"rides": [None, 4], "taps": [5, 4]}
            await stage.check_verified()

    asyncio.run(check())


def test_done_again_it_completes_what_was_begun(backends: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken off at any step, serving has stopped already or nothing has happened, and a second time all is done."""

    async def check() -> None:
        for step in ("upsert_newer", "settle", "erase"):
            async with staged(backends) as stage:
                broken = stage.online if step == "upsert_newer" else stage.history

                async def fail(*_: Any, **__: Any) -> None:
                    raise StoreUnavailable("cut off")

                with monkeypatch.context() as patch:
                    patch.setattr(broken, step, fail)
                    with pytest.raises(StoreUnavailable, match="cut off"):
                        await forgotten(stage)
                running = await stage.pipeline("rides")
                await running.ingest([event(4, GONE, 5, 5)])  # the marks count from the first step on
                await forgotten(stage)
                assert await stage.online_numbers(*GROUPS) == {name: [None, 4] for name in GROUPS}
                assert {rider for name in GROUPS for rider, _ in await stage.rows(name)} == {STAYS}

    asyncio.run(check())


def test_revisions_lose_it_too(backends: Backends) -> None:
    """Rows of a batch group's revisions are erased, from their tables and online."""

    async def check() -> None:
        async with staged(backends) as stage:
            await prepare_async(stage.settings, [group("profile", entity="rider", category="batch")])
            mine = (await stage.history.load_catalog()).groups["profile"]
            draft = await stage.history.begin_revision(mine.group)
            rows = [RevisionRow((GONE,), (1,)), RevisionRow((STAYS,), (2,))]
            await stage.history.load_revision(mine.group, draft, rows)
            revision = await stage.history.publish_revision(mine.group, draft)
            await sync_group(stage.history, stage.online, mine)
            assert await stage.online_numbers("profile") == {"profile": [1, 2]}
            assert (await forgotten(stage)).revision_rows == {"profile": 1}
            assert await stage.online_numbers("profile") == {"profile": [None, 2]}
            assert await stage.history.scan_revision(mine.group, revision) == [RevisionRow((STAYS,), (2,))]
            await sync_group(stage.history, stage.online, mine)
            assert await stage.online_numbers("profile") == {"profile": [None, 2]}

    asyncio.run(check())


def test_what_cannot_be_forgotten(backends: Backends) -> None:
    """An unknown kind of entity and no key at all are refused, by name."""

    async def check() -> None:
        async with staged(backends) as stage:
            catalog = await stage.history.load_catalog()
            with pytest.raises(InvalidRequest, match=r"no entity named 'boat' \(registered: rider\)"):
                await forget(stage.history, stage.online, catalog, "boat", [(GONE,)])
            with pytest.raises(InvalidRequest, match="no key"):
                await forget(stage.history, stage.online, catalog, "rider", [])

    asyncio.run(check())


def test_its_dead_letters_are_hidden(backends: Backends) -> None:
    """Letters keyed by it, of before, are left out of lists; later ones, other keys' and those without stay."""

    async def check() -> None:
        async with staged(backends) as stage:
            done = await forgotten(stage)
            marks = Marks(await stage.history.pairing_id() or "")
            marks.add(await stage.history.marks())
            mine: FeatureGroup = (await stage.history.load_catalog()).group("rides")
            before_ms, after_ms = done.time_us // 1000, done.time_us // 1000 + 1
            letters = [
                letter(0, GONE.encode(), before_ms),
                letter(1, GONE.encode(), after_ms),
                letter(2, STAYS.encode(), before_ms),
                letter(3, None, before_ms),
            ]
            assert [each.offset for each in not_forgotten(marks, mine, letters)] == [1, 2, 3]
            assert not_forgotten(None, mine, letters) == letters

    asyncio.run(check())


def letter(offset: int, key: bytes | None, timestamp_ms: int) -> DeadLetter:
    """A dead letter of the first topic."""
    return DeadLetter(
        topic="rides",
        incarnation="first",
        partition=0,
        offset=offset,
        timestamp=timestamp_ms,
        stage="decode",
        reason="malformed_json",
        message="",
        key=key,
        value=b"{",
        headers=(),
    )
