"""Killed processes and SQLite: what was acknowledged is there, the rest is all or nothing, and claiming tells which."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest

from oomstream.schemas.online_value import decode_value
from oomstream.stores.opening import init_stores
from oomstream.stores.rebuild import finish_pushes
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.sql.online import SqlOnlineStore
from oomstream.stores.testing.history_suite import append, register, topic
from oomstream.stores.testing.samples import event, group

_WRITER = """
import asyncio, sys
from oomstream.stores.crash_points import arm
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.testing.history_suite import append, topic
from oomstream.stores.testing.samples import event

path, partition, crash_at = sys.argv[1:]
arm(crash_at or None)

async def main():
    async with SqlHistoryStore("sqlite:///" + path, load_settings()) as store:
        mine = (await store.load_catalog()).group("plane")
        source = await store.claim(topic(partition=int(partition)))
        at = source.next_sequence
        while at < 2_000:
            await append(store, source, mine, *(event(each, f"k{each % 7}", each) for each in range(at, at + 20)))
            at += 20
            print(at, flush=True)

asyncio.run(main())
"""

_PUSHER = """
import asyncio, sys
from oomstream.stores.crash_points import arm
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.testing.history_suite import append
from oomstream.stores.testing.samples import event

async def main():
    async with SqlHistoryStore("sqlite:///" + sys.argv[1], load_settings()) as store:
        mine, other = (await store.load_catalog()).groups.values()
        source = await store.lease_push_source(0.001)
        await append(store, source, mine.group, event(0, "a", 5), event(1, "a", 3), event(2, "b"))
        await append(store, source, other.group, event(3, "c", 0), event(4, "c", 0, deleted=True))
        print("in history", flush=True)
        sys.stdin.readline()

asyncio.run(main())
"""

_NEWCOMER = """
import asyncio, sys
from oomstream.stores.opening import history_store, init_stores, online_store
from oomstream.stores.settings import load_settings

async def main():
    settings = load_settings(data_dir=sys.argv[1])
    async with history_store(settings.history, settings) as history, online_store(settings.online, settings) as online:
        print("ready", flush=True)
        sys.stdin.readline()
        print(await init_stores(history, online))

asyncio.run(main())
"""


def _start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _store(path: Path) -> SqlHistoryStore:
    return SqlHistoryStore(f"sqlite:///{path}", load_settings())


def _online(path: Path) -> SqlOnlineStore:
    return SqlOnlineStore(f"sqlite:///{path}", load_settings())


async def _prepare(path: Path) -> None:
    async with _store(path) as store:
        await store.init()
        await register(store, group())


async def _sequences(path: Path, partition: int = 0) -> tuple[int, list[int]]:
    """Position as a new claim tells it, and the sequences that have a row."""
    async with _store(path) as store:
        mine = (await store.load_catalog()).group("plane")
        source = await store.claim(topic(partition=partition))
        rows = await store.rows_of_source(mine, source.id, 0, 1 << 40, limit=100_000)
        return source.next_sequence, [row.sequence for row in rows]


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """Cases 13, 21: after kill -9 the rows are exactly those below the position, and none acknowledged is missing."""
    path = tmp_path / "history.db"
    asyncio.run(_prepare(path))
    chance = random.Random(7)
    reached = 0
    for _ in range(4):
        with _start(_WRITER, path, 0, "") as child:
            assert child.stdout is not None
            acknowledged = reached
            for _ in range(chance.randrange(1, 25)):
                acknowledged = int(child.stdout.readline())
            child.kill()
        position, sequences = asyncio.run(_sequences(path))
        assert position >= acknowledged > reached
        assert sequences == list(range(position))
        reached = position


@pytest.mark.parametrize("nth", [1, 3])
def test_killed_just_before_commit(tmp_path: Path, nth: int) -> None:
    """A process that dies between the rows and the commit leaves neither row nor position of its batch."""
    path = tmp_path / "history.db"
    asyncio.run(_prepare(path))
    with _start(_WRITER, path, 0, f"before_history_commit:{nth}") as child:
        child.wait(60)
    assert child.returncode == -9
    assert asyncio.run(_sequences(path)) == (20 * (nth - 1), list(range(20 * (nth - 1))))


def test_two_processes_on_one_file(tmp_path: Path) -> None:
    """Two workers write to one file at once, each its own source; neither loses a row to the other."""
    path = tmp_path / "history.db"
    asyncio.run(_prepare(path))
    children = [_start(_WRITER, path, partition, "") for partition in (0, 1)]
    for child in children:
        out, _ = child.communicate(timeout=120)
        assert out.split()[-1] == "2000"
    for partition in (0, 1):
        assert asyncio.run(_sequences(path, partition)) == (2_000, list(range(2_000)))


def test_first_starts_at_once(tmp_path: Path) -> None:
    """Newcomers who start several commands in an empty folder get one pair of stores, not an error."""
    children = [_start(_NEWCOMER, tmp_path / "new") for _ in range(4)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    assert len({child.communicate(timeout=60)[0] for child in children}) == 1
    assert {child.returncode for child in children} == {0}


def test_push_killed_between_history_and_online(tmp_path: Path) -> None:
    """Whoever opens the stores next finishes a killed writer's push: online rows come from its history rows."""
    history_path, online_path = tmp_path / "history.db", tmp_path / "online.db"

    async def prepare() -> None:
        async with (
            _store(history_path) as history,
            _online(online_path) as online,
        ):
            await init_stores(history, online)
            await register(history, group("one"), group("two"))

    asyncio.run(prepare())
    with _start(_PUSHER, history_path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "in history\n"
        child.kill()

    async def finish() -> None:
        async with (
            _store(history_path) as history,
            _online(online_path) as online,
        ):
            assert await online.scan(b"o") == []
            [left] = await history.unfinished_push_sources()
            assert (left.online_sequence, left.next_sequence) == (0, 5)
            assert await finish_pushes(history, online) == 1
            assert await history.unfinished_push_sources() == []
            assert await finish_pushes(history, online) == 0
            values = [decode_value(row.value) for row in await online.scan(b"o")]
            assert [(each.version.sequence, each.deleted) for each in values] == [(0, False), (2, False), (4, True)]
            again = await history.lease_push_source(60)
            assert (again.id, again.online_sequence) == (left.id, 5)
            assert len(await history.sources()) == 1

    asyncio.run(finish())


def test_a_lease_that_lives_is_left_alone(tmp_path: Path) -> None:
    """A push writer that is merely slow is not finished by others."""

    async def check() -> None:
        async with (
            _store(tmp_path / "h.db") as history,
            SqlOnlineStore(f"sqlite:///{tmp_path / 'o.db'}", load_settings()) as online,
        ):
            await init_stores(history, online)
            [mine] = await register(history, group())
            source = await history.lease_push_source(600)
            await append(history, source, mine, event(0))
            assert await finish_pushes(history, online) == 0
            assert await online.scan(b"o") == []

    asyncio.run(check())
