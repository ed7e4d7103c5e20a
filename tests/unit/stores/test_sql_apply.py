"""An apply that was interrupted can be done again, also with another idea of the definition."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from oomstream.schemas.catalog import Entity
from oomstream.schemas.errors import InvalidDefinition
from oomstream.schemas.plan import Plan, make_plan
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.testing.history_suite import append, register, topic
from oomstream.stores.testing.samples import event, group


def _with_store(path: Path, check: Callable[[SqlHistoryStore], Awaitable[None]]) -> None:
    async def run() -> None:
        async with SqlHistoryStore(f"sqlite:///{path}", load_settings()) as store:
            await store.init()
            await check(store)

    asyncio.run(run())


def _execute(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(sql)


def test_leftover_table_is_made_anew(tmp_path: Path) -> None:
    """A table of a group that was never published, with other columns, is replaced while it is empty."""
    path = tmp_path / "h.db"

    async def check(store: SqlHistoryStore) -> None:
        _execute(path, 'CREATE TABLE "history_plane" (k BIGINT PRIMARY KEY, other TEXT)')
        [mine] = await register(store, group())
        await append(store, await store.claim(topic()), mine, event(0, "text key"))

    _with_store(path, check)


def test_foreign_rows_are_not_thrown_away(tmp_path: Path) -> None:
    """A table of that name with rows in it is refused, named, and kept."""
    path = tmp_path / "h.db"

    async def check(store: SqlHistoryStore) -> None:
        _execute(path, "CREATE TABLE history_plane (x)")
        _execute(path, "INSERT INTO history_plane VALUES (1)")
        with pytest.raises(InvalidDefinition, match="history_plane"):
            await register(store, group())
        assert (await store.load_catalog()).groups == {}

    _with_store(path, check)


def test_leftover_column_is_made_anew(tmp_path: Path) -> None:
    """A column that was added but never published gets the type and the default of the definition applied now."""
    path = tmp_path / "h.db"

    async def check(store: SqlHistoryStore) -> None:
        [first] = await register(store, group())
        source = await store.claim(topic())
        await append(store, source, first, event(0))
        _execute(path, "ALTER TABLE history_plane ADD COLUMN more BIGINT DEFAULT 7")
        added = {"n": "long", "more": {"type": "string", "default": "8"}}
        [second] = await register(store, group(features=added))
        await append(store, source, second, event(1, "a", 1, 1, "0123"))
        rows = await store.rows_of_source(second, source.id, 0, 9)
        assert [row.values for row in rows] == [(0, "8"), (1, "0123")]

    _with_store(path, check)


def test_refused_plan_changes_nothing(tmp_path: Path) -> None:
    """When the last step of a plan is refused, its tables and columns are not there either."""
    path = tmp_path / "h.db"

    async def check(store: SqlHistoryStore) -> None:
        await register(store, group())
        before = _schema(path)
        plan = make_plan(await store.load_catalog(), [group(doc="x"), group("new")])
        with pytest.raises(InvalidDefinition, match="entity 'new' is not registered"):
            await store.apply(Plan((), plan.groups))
        assert _schema(path) == before
        assert (await store.load_catalog()).group("plane").version == 1

    _with_store(path, check)


def test_default_with_nul_is_refused(tmp_path: Path) -> None:
    """A text default that SQLite cannot write into DDL is refused with a sentence, before anything is changed."""

    async def check(store: SqlHistoryStore) -> None:
        with pytest.raises(InvalidDefinition, match="NUL"):
            await register(store, group(features={"s": {"type": "string", "default": "a\0b"}}))

    _with_store(tmp_path / "h.db", check)


def test_names_in_need_of_quoting(tmp_path: Path) -> None:
    """Reserved words, digits first and hyphens are names like any other."""

    async def check(store: SqlHistoryStore) -> None:
        features = {"select": ["null", "long"], "2fa_installed": ["null", "boolean"], "h": ["null", "string"]}
        [mine] = await register(store, group("user-click", features, {"group": "string", "w": "long"}, entity="order"))
        source = await store.claim(topic())
        await append(store, source, mine, event(0, ("a", 1), 0, 5, True, "x"))
        [row] = await store.scan_newest(mine, after=("", 0))
        assert await store.newest(mine, [("a", 1)]) == [row]
        async with store.cut() as cut:
            tables = [table async for table in cut.scan(mine, ["h", "select"], keys=[("a", 1)])]
        assert tables[0].select(["group", "w", "h", "select"]).to_pylist() == [
            {"group": "a", "w": 1, "h": "x", "select": 5}
        ]
        wider = {**features, "from": ["null", "long"]}
        await register(store, group("user-click", wider, {"group": "string", "w": "long"}, entity="order"))

    _with_store(tmp_path / "h.db", check)


def test_description_of_an_entity_changes(tmp_path: Path) -> None:
    """An entity that is in a plan with its id gets the plan's description and keeps its id."""

    async def check(store: SqlHistoryStore) -> None:
        await register(store, group())
        await store.apply(Plan((Entity("plane", doc="an aircraft", id=1),)))
        entity = (await store.load_catalog()).entities["plane"]
        assert (entity.id, entity.doc) == (1, "an aircraft")

    _with_store(tmp_path / "h.db", check)


def test_wide_group(tmp_path: Path) -> None:
    """A group of 500 features is stored and read."""

    async def check(store: SqlHistoryStore) -> None:
        [mine] = await register(store, group(features={f"f{at}": ["null", "double"] for at in range(500)}))
        source = await store.claim(topic())
        values = tuple(float(at) for at in range(500))
        await append(store, source, mine, event(0, "a", 0, *values))
        [row] = await store.rows_of_source(mine, source.id, 0, 9)
        assert row.values == values

    _with_store(tmp_path / "h.db", check)


def _schema(path: Path) -> list[tuple[str]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
