"""Imports and syncs that are killed at their crash points: readers see what they saw, and the next one ends well."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.stores.opening import open_stores
from oomstream.stores.settings import Settings
from oomstream.streams.collect import collect
from tests.integration.accounts import T0, Accounts, key, raw_sql, read, stage
from tests.integration.backends import Backends, environment_of

ROWS = 6_000
"""More than one batch of an import, and several of a sync."""


def oomstream(settings: Settings, *arguments: str, crash_at: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a verb to its end, whichever it is."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OOMSTREAM_")}
    environment |= environment_of(settings) | ({"OOMSTREAM_CRASH_AT": crash_at} if crash_at else {})
    command = [sys.executable, "-m", "oomstream.agents.cli.main", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def ended_by_kill(done: subprocess.CompletedProcess[str]) -> None:
    """Make sure that the crash point was reached."""
    assert done.returncode == -signal.SIGKILL, done.stderr


async def let_leases_end(settings: Settings) -> None:
    """What hours would do: every lease of a draft or a copy is over, every retired copy is due."""
    await asyncio.to_thread(
        raw_sql, settings, "UPDATE revision SET lease_until = 1", "UPDATE sync SET until_time = 1 WHERE state <> 2"
    )


async def values(settings: Settings) -> set[int | None]:
    """What readers see of some accounts."""
    async with AsyncFeatureStore.open(settings=settings) as store:
        return set((await read(store, range(0, ROWS, 97)))["state.said"])


@pytest.mark.parametrize("point", ["in_sync", "in_sync:3", "before_flip", "after_flip"])
def test_sync_killed(backends: Backends, point: str) -> None:
    """A sync that is killed before its flip changes nothing for readers; its copy is removed, and the next one ends."""

    async def scenario() -> None:
        async with stage(backends) as the:
            await the.publish(1, range(ROWS), time=1)
            await the.sync()
            await the.publish(2, range(ROWS), time=2)
            done = await asyncio.to_thread(oomstream, the.settings, "sync", "-g", "state", crash_at=point)
            ended_by_kill(done)
            assert done.stdout == "syncing features ...\n"
            flipped = point == "after_flip"
            assert await values(the.settings) == {2 if flipped else 1}
            await let_leases_end(the.settings)
            assert (await collect(the.history, the.online)).copies == 1
            assert await the.copies_online() == {2 if flipped else 1: ROWS}
            again = await asyncio.to_thread(oomstream, the.settings, "sync", "-g", "state")
            assert again.returncode == 0, again.stderr
            assert await values(the.settings) == {2}

    asyncio.run(scenario())


def test_purge_killed(backends: Backends) -> None:
    """A purge that is killed half-way is finished by the next sync, and is never of what readers see."""

    async def scenario() -> None:
        async with stage(backends) as the:
            for of in (1, 2):
                await the.publish(of, range(ROWS), time=of)
                await the.sync()
            await let_leases_end(the.settings)
            ended_by_kill(await asyncio.to_thread(oomstream, the.settings, "gc", crash_at="in_purge"))
            copies = await the.copies_online()
            assert copies == {1: 0, 2: ROWS}
            assert await values(the.settings) == {2}
            report = await the.sync(revision_id=2)
            assert report.purged == 1
            assert await the.copies_online() == {2: ROWS, 3: ROWS}

    asyncio.run(scenario())


@pytest.mark.parametrize("point", ["before_revision_commit:2", "after_revision_commit", "after_publish"])
def test_import_killed(backends: Backends, point: str, tmp_path: Path) -> None:
    """An import that is killed before it is published leaves no revision, and no table once its lease is over."""
    file = tmp_path / "accounts.csv"
    file.write_text("account,said,note\n" + "".join(f"{key(number)},3,x\n" for number in range(ROWS)))

    async def scenario() -> None:
        async with stage(backends) as the:
            await the.publish(1, range(3), time=1)
            arguments = ("import", "-g", "state", "--input-file", str(file), "-r", str(T0 // 1000 + 1))
            ended_by_kill(await asyncio.to_thread(oomstream, the.settings, *arguments, crash_at=point))
            mine = (await the.registered()).group
            published = point == "after_publish"
            assert [each.id for each in await the.history.revisions(mine)] == ([1, 2, 3] if published else [1, 2])
            await let_leases_end(the.settings)
            assert (await collect(the.history, the.online)).drafts == (0 if published else 1)
            again = await asyncio.to_thread(oomstream, the.settings, *arguments)
            assert again.stdout == "RevisionID: 4\n", again.stderr
            newest = (await the.history.revisions(mine))[-1]
            assert newest.id == 4
            assert len(await the.history.scan_revision(mine, newest)) == ROWS
            await _sync_and_read(the)

    asyncio.run(scenario())


async def _sync_and_read(the: Accounts) -> None:
    await the.sync()
    assert await values(the.settings) == {3}
    async with open_stores(the.settings) as (history, online):
        assert (await collect(history, online)).drafts == 0
