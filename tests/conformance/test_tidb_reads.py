"""Reads of history on TiDB and MariaDB: they seek, they are of one moment, and that moment stays readable."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from oomstream.schemas.groups import FeatureGroup
from oomstream.stores.settings import load_settings
from oomstream.stores.sql import mysql_reads
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.sql.mysql_pages import PageStatements
from oomstream.stores.sql.tables import HistoryTable
from oomstream.stores.testing.history_suite import append, register, topic
from oomstream.stores.testing.samples import TIME_US, event, group
from tests.conformance.mysql_raw import cursor_on
from tests.services.mysql_protocol import SqlServer

_ENTITIES = 40
_ROWS = 4_000
_Use = Callable[[SqlHistoryStore, FeatureGroup], Awaitable[Any]]


@pytest.fixture(params=["tidb_server", "mariadb_server"])
def server(request: pytest.FixtureRequest) -> Iterator[SqlServer]:
    """Each server in turn."""
    found: SqlServer = request.getfixturevalue(request.param)
    yield found
    found.heal()


async def _filled(store: SqlHistoryStore) -> FeatureGroup:
    await store.init()
    [mine] = await register(store, group(keys={"k": "string", "j": "long"}))
    source = await store.claim(topic())
    await append(store, source, mine, *(event(at, (f"k{at % _ENTITIES:02}", at % 3), at) for at in range(_ROWS)))
    return mine


_USES: dict[str, _Use] = {
    "rows of a source": lambda store, mine: store.rows_of_source(mine, 1, 5, 9),
    "newest": lambda store, mine: store.newest(mine, [("k01", 1), ("k02", 2)]),
    "scan newest": lambda store, mine: store.scan_newest(mine, after=("k20", 1), limit=5),
}


@pytest.mark.parametrize("name", _USES)
def test_reads_seek(server: SqlServer, name: str) -> None:
    """What is read by entity or by source is sought through an index, in every part of the plan."""

    async def check() -> None:
        url = server.fresh_database()
        async with SqlHistoryStore(url, load_settings()) as store:
            mine = await _filled(store)
            with cursor_on(url) as cursor:
                cursor.execute("ANALYZE TABLE history_plane")
                cursor.fetchall()
            found: list[tuple[str, Any]] = []
            engine = store._database._opened.sync_engine

            @sa.event.listens_for(engine, "before_cursor_execute")
            def remember(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
                if "history_plane" in statement:
                    found.append((statement, parameters))

            await _USES[name](store, mine)
            assert found
            for statement, parameters in found:
                plan = _plan(url, statement, parameters)
                assert not [step for step in plan if _is_full_scan(step)], plan

    asyncio.run(check())


@pytest.mark.parametrize("versions", [True, False])
def test_pages_are_ranges_in_order(server: SqlServer, versions: bool) -> None:
    """A page of a scan begins where the last one ended, and nothing is sorted."""
    url = server.fresh_database()

    async def fill() -> tuple[SqlHistoryStore, FeatureGroup]:
        async with SqlHistoryStore(url, load_settings()) as store:
            return store, await _filled(store)

    store, mine = asyncio.run(fill())
    with cursor_on(url) as cursor:
        cursor.execute("ANALYZE TABLE history_plane")
        cursor.fetchall()
    table = HistoryTable(mine, store._dialect)
    keys = [("k01", 1), ("k02", 2), ("k03", 0)]
    limits: dict[str, Any] = {"max_event_time_us": TIME_US + 3_000, "versions": versions}
    for wanted, after in ((None, ("k20", 1, TIME_US, 1, 7)), (keys, None), (keys, ("k01", 1, TIME_US + 9, 1, 7))):
        sql = PageStatements(table, ["n"], wanted, **limits).page(after, 20)
        plan = _plan(url, sql, ())
        assert not [step for step in plan if _is_full_scan(step) or re.search(r"Sort_|TopN_|filesort", step)], plan


def test_a_page_evaluates_only_times(tidb_server: SqlServer) -> None:
    """On TiDB a page of all entities is ranges of the primary key; what is left to do for each row is its time."""
    url = tidb_server.fresh_database()

    async def fill() -> tuple[SqlHistoryStore, FeatureGroup]:
        async with SqlHistoryStore(url, load_settings()) as store:
            return store, await _filled(store)

    store, mine = asyncio.run(fill())
    after = ("k20", 1, TIME_US, 1, 7)
    for until, versions in itertools.product((None, TIME_US + 3_000), (True, False)):
        table = HistoryTable(mine, store._dialect)
        pages = PageStatements(table, ["n"], None, max_event_time_us=until, versions=versions)
        left = " ".join(step for step in _plan(url, pages.page(after, 20), ()) if "Selection" in step)
        assert ("_event_time" in left) == (until is not None)
        assert not re.search(r"\.(k|j|_source|_sequence)\b", left)


def _noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements of our own that are asked in a cut from now on, as they come."""
    asked: list[str] = []
    rows_of = mysql_reads._Transaction.rows

    async def noted(self: Any, sql: str, calls: int = 1) -> Any:
        asked.append(sql)
        return await rows_of(self, sql, calls)

    monkeypatch.setattr(mysql_reads._Transaction, "rows", noted)
    return asked


def test_pages_are_read_once(tidb_server: SqlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text of usual length costs no statement beside its pages' own: their sizes are not asked for."""

    async def check() -> None:
        async with SqlHistoryStore(tidb_server.fresh_database(), load_settings()) as store:
            await store.init()
            [mine] = await register(store, group(features={"s": ["null", "string"]}))
            source = await store.claim(topic())
            await append(store, source, mine, *(event(at, "a", at, "x" * (at % 50)) for at in range(_ROWS)))
            asked = _noted(monkeypatch)
            async with store.cut() as cut:
                asked.clear()
                tables = [table async for table in cut.scan(mine, ["s"], batch_rows=1_000)]
                assert sum(table.num_rows for table in tables) == _ROWS
                assert asked == ["SELECT 1"] * (len(tables) + 1)  # the last page is empty

    asyncio.run(check())


@pytest.mark.parametrize(("length", "measured"), [(900, False), (2_000, True)])
def test_longer_text_comes_in_smaller_pages(
    tidb_server: SqlServer, monkeypatch: pytest.MonkeyPatch, length: int, measured: bool
) -> None:
    """Text for which a page is too large has it made smaller, and is measured only if that does not do."""
    monkeypatch.setattr(mysql_reads, "PAGE_BYTES", 200_000)
    monkeypatch.setattr(mysql_reads, "_MEASURED_ROWS", 250)

    async def check() -> None:
        async with SqlHistoryStore(tidb_server.fresh_database(), load_settings()) as store:
            await store.init()
            [mine] = await register(store, group(features={"s": ["null", "string"]}))
            source = await store.claim(topic())
            texts = ["x" * (length if at in (2_500, 3_100) else 1) for at in range(_ROWS)]
            await append(store, source, mine, *(event(at, "a", at, text) for at, text in enumerate(texts)))
            asked = _noted(monkeypatch)
            async with store.cut() as cut:
                tables = [table async for table in cut.scan(mine, ["s"], batch_rows=1_000)]
            assert [text for table in tables for text in table["s"].to_pylist()] == texts
            assert [table.num_rows for table in tables][:3] == [1_000, 1_000, 250]
            assert any("SUM(size)" in sql for sql in asked) == measured

    asyncio.run(check())


def test_versions_are_read_where_they_tell(tidb_server: SqlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Source and sequence are asked for from the first page on in which two rows are of one entity and time."""
    asked: list[str] = []
    fetch = mysql_reads._ConnectorXPages._fetch

    def noted(self: Any, sql: str, schema: Any) -> Any:
        asked.append(sql)
        return fetch(self, sql, schema)

    async def check() -> None:
        async with SqlHistoryStore(tidb_server.fresh_database(), load_settings()) as store:
            await store.init()
            [mine] = await register(store, group())
            source = await store.claim(topic())
            await append(store, source, mine, *(event(at, "a", at) for at in range(_ROWS)))
            monkeypatch.setattr(mysql_reads._ConnectorXPages, "_fetch", noted)
            for repeated in (False, True):
                if repeated:
                    await append(store, source, mine, event(_ROWS, "a", _ROWS - 1_500))
                asked.clear()
                async with store.cut() as cut:
                    scan = cut.scan_in_parts(mine, ["n"], splits=[], batch_rows=1_000, versions=False)
                    assert sum([table.num_rows async for table in scan]) == _ROWS + repeated
                told = ["`_sequence`" in sql for sql in asked]
                assert told == ([False] * 3 + [True] * 3 if repeated else [False] * 5)

    asyncio.run(check())


def _plan(url: str, sql: str, parameters: Any) -> list[str]:
    with cursor_on(url) as cursor:
        cursor.execute(f"EXPLAIN {sql}", parameters or None)
        return [" ".join(str(part) for part in row) for row in cursor.fetchall()]


def _is_full_scan(step: str) -> bool:
    """TiDB says TableFullScan; MariaDB has type ALL, or index, on the table itself."""
    return "FullScan" in step or re.search(r"\b(history_plane|one) (None )?(ALL|index)\b", step) is not None


def test_cut_keeps_garbage_collection_away(tidb_server: SqlServer) -> None:
    """While a cut is open, TiDB lists a transaction as old as it, before which garbage collection stops."""

    async def check() -> None:
        url = tidb_server.fresh_database()
        async with SqlHistoryStore(url, load_settings(session_timeout_us="2s")) as store:
            await store.init()
            async with store.cut() as cut:
                with cursor_on(url) as cursor:
                    cursor.execute(
                        "SELECT TxnStart FROM information_schema.processlist WHERE db = %s AND TxnStart <> ''",
                        (url.rpartition("/")[2],),
                    )
                    [(started,)] = cursor.fetchall()
                millisecond = int(re.search(r"\((\d+)\)", started)[1]) >> 18  # type: ignore[index]
                assert abs(millisecond * 1_000 - cut.now_us) < 1_000_000

    asyncio.run(check())


def test_pages_are_bounded_in_bytes(server: SqlServer) -> None:
    """Rows of any size come in tables of bounded size, whatever number of rows was asked for."""

    async def check() -> None:
        async with SqlHistoryStore(server.fresh_database(), load_settings()) as store:
            await store.init()
            [mine] = await register(store, group(features={"s": "string"}))
            source = await store.claim(topic())
            small, large = 5_000, 400
            await append(store, source, mine, *(event(at, "a", at, "x") for at in range(small)))
            for first in range(small, small + large, 20):
                await append(
                    store, source, mine, *(event(at, "a", at, "x" * 200_000) for at in range(first, first + 20))
                )
            async with store.cut() as cut:
                tables = [(table.nbytes, table["_sequence"].to_pylist()) async for table in cut.scan(mine, ["s"])]
            assert [each for _, sequences in tables for each in sequences] == list(range(small + large))
            assert max(size for size, _ in tables) < 40 << 20

    asyncio.run(check())
