"""History that is older than anybody asks for, removed, on every pair of stores."""

from __future__ import annotations

import asyncio

import pytest

from oomstream.streams.repair import repair
from oomstream.streams.retention import Retired, retire
from tests.integration.backends import Backends
from tests.integration.riders import GONE, GROUPS, STAYS, T0, Stage, event, staged, tombstone


async def retired(stage: Stage, name: str, horizon: int) -> Retired:
    """Remove what is older than a time after T0."""
    registered = (await stage.history.load_catalog()).groups[name]
    async with stage.history.cut() as cut:
        now_us = cut.now_us
    return await retire(stage.history, stage.online, registered, now_us - T0 - horizon)


def test_old_rows_go_but_the_newest_stay(backends: Backends) -> None:
    """Rows before the horizon go, each entity's newest stays however old it is, and online nothing changes."""

    async def check() -> None:
        async with staged(backends) as stage:
            day = 86_400_000_000
            await (await stage.pipeline("rides")).ingest([event(4, STAYS, 2 * day, 5), event(5, STAYS, 3 * day, 6)])
            done = await retired(stage, "rides", 3 * day - 3_600_000_000)
            assert (done.entities, done.rows, done.online) == (2, 4, 0)
            assert await stage.rows("rides") == [(GONE, 3), (STAYS, 6)]
            assert len(await stage.rows("taps")) == 4
            assert await stage.online_numbers("rides") == {"rides": [3, 6]}
            await stage.check_verified()
            assert (await retired(stage, "rides", 0)).rows == 0

    asyncio.run(check())


def test_old_deletes_go(backends: Backends) -> None:
    """A delete before the horizon goes, online and in history; verify finds nothing missing, repair brings nothing."""

    async def check() -> None:
        async with staged(backends) as stage:
            await (await stage.pipeline("rides")).ingest([tombstone(4, GONE, 5)])
            assert await stage.online.read([await stage.place("rides")]) != [None]
            done = await retired(stage, "rides", 1_000_000)
            assert (done.rows, done.online) == (4, 1)
            assert await stage.rows("rides") == [(STAYS, 4)]
            assert await stage.online.read([await stage.place("rides")]) == [None]
            await stage.check_verified()

    asyncio.run(check())


def test_expired_values_leave_the_online_store(backends: Backends) -> None:
    """A value that had expired by the horizon is online no more; its row stays in history, and repair lets it rest."""

    async def check() -> None:
        async with staged(backends, ttl="1s") as stage:
            await (await stage.pipeline("rides")).ingest([event(4, STAYS, 5_000_000, 5)])
            done = await retired(stage, "rides", 4_000_000)
            assert (done.rows, done.online) == (3, 1)
            assert await stage.rows("rides") == [(GONE, 3), (STAYS, 5)]
            places = [await stage.place("rides"), await stage.place("rides", STAYS)]
            await stage.check_verified()
            await repair(stage.history, stage.online, (await stage.history.load_catalog()).groups["rides"])
            assert [value is None for value in await stage.online.read(places)] == [True, False]

    asyncio.run(check())


def test_broken_off_it_leaves_nothing_wrong(backends: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken off between the stores, verify is content, and a second time completes it."""

    async def check() -> None:
        async with staged(backends) as stage:
            await (await stage.pipeline("rides")).ingest([tombstone(4, GONE, 5)])

            async def fail(*_: object) -> int:
                raise RuntimeError("cut off")

            with monkeypatch.context() as patch:
                patch.setattr(stage.history, "prune", fail)
                with pytest.raises(RuntimeError, match="cut off"):
                    await retired(stage, "rides", 1_000_000)
            assert len(await stage.rows("rides")) == 5
            await stage.check_verified()
            assert (await retired(stage, "rides", 1_000_000)).rows == 4
            await stage.check_verified()

    asyncio.run(check())


def test_events_go_on_beside_it(backends: Backends) -> None:
    """Newer and older events that come while it works are stored as ever; the horizon never falls."""

    async def check() -> None:
        async with staged(backends) as stage:
            running = await stage.pipeline("rides")
            first = await retired(stage, "rides", 1_000_000)
            await running.ingest([event(4, GONE, 0, 0), event(5, STAYS, 2_000_000, 6)])
            assert await stage.rows("rides") == [(GONE, 0), (GONE, 3), (STAYS, 4), (STAYS, 6)]
            assert (await retired(stage, "rides", 500_000)).horizon_us == first.horizon_us
            assert {name: (await stage.online_numbers(name))[name] for name in GROUPS} == {
                "rides": [3, 6],
                "taps": [3, 4],
            }
            await stage.check_verified()

    asyncio.run(check())
