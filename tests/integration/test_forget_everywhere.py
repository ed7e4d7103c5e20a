"""Forgetting an entity of two key fields in stream and batch groups at once: what it must not come back by."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from oomstream.agents.serve import oomagent_pb2 as pb
from oomstream.stores.revisions import Revision, RevisionRow
from oomstream.streams.forget import Forgotten, forget
from oomstream.streams.importing import import_file
from tests.integration.accounts import raw_sql
from tests.integration.backends import Backends, environment_of
from tests.integration.cli import Cli
from tests.integration.flight_groups import T0_MS, Flights, at, filled, flights
from tests.integration.served import serving

GONE, STAYS = {"origin": "JFK", "number": 1}, {"origin": "JFK", "number": 11}
BOTH = [GONE, STAYS]
NAMES = ["routes.miles", "delays.minutes"]
HEADER = "origin,number,miles,profile\n"
YEAR_MS = 31_536_000_000


def revision_text(miles: int) -> str:
    """A revision of both."""
    return f"{HEADER}JFK,1,{miles},[]\nJFK,11,{miles},[]\n"


async def fill(the: Flights) -> list[int]:
    """Three revisions, the middle one online, and two events of each; gives the ids of the revisions."""
    made = [await the.load("routes", revision_text(n), ms=n) for n in (1, 2, 3)]
    ids = [each.revision.id for each in made if each.revision is not None]
    await the.sync("routes", ids[1])
    for n in (1, 2):
        await the.push("delays", *({**key, "at": at(n), "minutes": 10 + n} for key in BOTH))
    return ids


async def forgotten(the: Flights) -> Forgotten:
    """Forget one of the two."""
    return await forget(the.history, the.online, await the.history.load_catalog(), "flight", [("JFK", 1)])


async def check_gone(the: Flights, *, miles: int | None, minutes: int = 12) -> None:
    """The one is nowhere, and the other is as it was."""
    assert await the.read(NAMES, BOTH) == [[None, None], [miles, minutes]]
    joined = await the.join(NAMES, BOTH * 3, [1, 1, 2, 2, YEAR_MS * 100, YEAR_MS * 100])
    assert joined[::2] == [[None, None]] * 3
    assert [values[1] for values in joined[1::2]] == [11, 12, minutes]
    assert [row[:2] for row in await the.export(NAMES)] == [["JFK", 11]]
    await the.check_verified()


def test_revisions_of_before_do_not_bring_it_back(backends: Backends, tmp_path: Path) -> None:
    """Whichever older or newer revision is synced after it, and whichever file of before is imported again."""

    async def scenario() -> None:
        async with flights(backends, tmp_path) as the:
            ids = await fill(the)
            assert await the.read(NAMES, BOTH) == [[2, 12]] * 2
            done = await forgotten(the)
            assert (done.rows, done.revision_rows) == ({"delays": 2}, {"routes": 3})
            await the.store.refresh()
            await check_gone(the, miles=2)
            for miles, revision_id in enumerate(ids, 1):
                await the.sync("routes", revision_id)
                await check_gone(the, miles=miles)
            again = await the.load("routes", revision_text(4), ms=4)
            assert again.revision is not None
            await the.sync("routes", again.revision.id)
            await the.load("delays", f"origin,number,unix_milli,minutes,shape\nJFK,1,{T0_MS + 3},9,\n")
            await check_gone(the, miles=4)
            await the.push("delays", {**GONE, "minutes": 50})
            await the.load("routes", revision_text(5))
            await the.sync("routes")
            assert await the.read(NAMES, BOTH) == [[5, 50], [5, 12]]  # of a later time: it has come back

    asyncio.run(scenario())


@pytest.mark.parametrize("ms", [None, 0, 100 * YEAR_MS])
def test_linked_tables_of_before(backends: Backends, tmp_path: Path, ms: int | None) -> None:
    """A table that was linked before still holds it: no sync brings it online, whatever time its revision has."""

    async def scenario() -> None:
        async with flights(backends, tmp_path) as the:
            raw_sql(
                the.settings,
                "CREATE TABLE warehouse (origin VARCHAR(9), number INT, miles BIGINT, profile VARCHAR(9))",
                "INSERT INTO warehouse VALUES ('JFK', 1, 7, '[]'), ('JFK', 11, 7, '[]')",
            )
            mine = (await the.registered("routes")).group
            time_us = None if ms is None else (T0_MS + ms) * 1000
            linked = await the.history.link_revision(mine, "warehouse", time_us=time_us)
            done = await forgotten(the)
            assert done.linked == {"routes": ["warehouse"]}
            for _ in range(2):
                await the.sync("routes", linked.id)
                assert await the.read(NAMES[:1], BOTH) == [[None], [7]]
                await the.check_verified()

    asyncio.run(scenario())


async def of_a_past_time(the: Flights, path: Path) -> Revision:
    """Import the file as the state of a time before."""
    done = await import_file(the.history, the.online, "routes", path, revision_us=T0_MS * 1000, settings=the.settings)
    assert done.revision is not None
    return done.revision


async def of_now(the: Flights, path: Path) -> Revision:
    """Import the file as the state from its sync on."""
    done = await import_file(the.history, the.online, "routes", path, settings=the.settings)
    assert done.revision is not None
    return done.revision


@pytest.mark.parametrize("load", [of_a_past_time, of_now])
def test_an_import_under_way(
    backends: Backends,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    load: Callable[[Flights, Path], Awaitable[Revision]],
) -> None:
    """A file that was being imported does not bring in what was forgotten meanwhile."""

    async def scenario() -> None:
        async with flights(backends, tmp_path) as the:
            path = tmp_path / "r.csv"
            path.write_text(revision_text(1), encoding="utf-8")
            loading = the.history.load_revision

            async def load_late(*given: Any) -> None:
                await loading(*given)
                monkeypatch.undo()
                await forgotten(the)

            monkeypatch.setattr(the.history, "load_revision", load_late)
            revision = await load(the, path)
            mine = (await the.registered("routes")).group
            assert await the.history.scan_revision(mine, revision) == [RevisionRow(("JFK", 11), (1, "[]"))]
            await the.sync("routes")
            assert await the.read(NAMES[:1], BOTH) == [[None], [1]]
            await the.check_verified()

    asyncio.run(scenario())


def test_an_agent_that_runs_meanwhile(backends: Backends, tmp_path: Path) -> None:
    """A server that was started before answers nothing of it, imports nothing of it, and takes its later events."""
    settings = filled(backends, tmp_path, fill)
    cli = Cli(tmp_path)
    cli.environment.update(environment_of(settings))
    key = "origin=JFK,number=1"
    with serving(settings, tmp_path) as (server, client):
        assert client.values(key, *NAMES) == dict(zip(NAMES, [2, 12], strict=True))
        said = cli.run("forget", "-e", "flight", "-k", key, "--yes").stdout
        assert "| delays |      2 | history   |" in said
        assert "| routes |      3 | revisions |" in said
        assert client.values(key, *NAMES) == dict.fromkeys(NAMES)
        late = {"origin": ["JFK"] * 2, "number": [1, 11], "minutes": [70, 71]}
        late["event_timestamp"] = ["2024-01-01T00:00:00Z"] * 2
        assert server.ask("/push", {"push_source_name": "delays", "df": late})[0] == 200
        assert client.values(key, *NAMES) == dict.fromkeys(NAMES)
        assert client.values("origin=JFK,number=11", "delays.minutes") == {"delays.minutes": 71}
        rows = [
            pb.ChannelImportRequest(group="routes", revision=T0_MS + 9, row=revision_text(9).encode()),
        ]
        client.call("ChannelImport", rows)
        client.call("Sync", pb.SyncRequest(group="routes"))
        assert client.values(key, *NAMES) == dict.fromkeys(NAMES)
        assert client.values("origin=JFK,number=11", "routes.miles") == {"routes.miles": 9}
        cli.run("sync", "-g", "routes", "-r", "2")
        deadline = time.monotonic() + 60
        while client.values("origin=JFK,number=11", "routes.miles") != {"routes.miles": 1}:
            assert time.monotonic() < deadline, "the server never saw the sync"
        assert client.values(key, *NAMES) == dict.fromkeys(NAMES)
        client.push("delays", key, minutes=pb.Value(int64=80))
        assert client.values(key, *NAMES) == {"routes.miles": None, "delays.minutes": 80}
    assert cli.json("verify", "-g", "routes", "-g", "delays")[0]["differing"] == 0
