"""The SQL store seeks where it could scan: the query plans of SQLite itself say so."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from oomstream.schemas.groups import FeatureGroup
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.testing.history_suite import append, register, topic
from oomstream.stores.testing.samples import event, group

_Use = Callable[[SqlHistoryStore, FeatureGroup], Awaitable[Any]]


async def _scan(store: SqlHistoryStore, mine: FeatureGroup, **filters: Any) -> None:
    async with store.cut() as cut:
        async for _ in cut.scan(mine, ["n"], **filters):
            pass


_USES: dict[str, _Use] = {
    "rows of a source": lambda store, mine: store.rows_of_source(mine, 1, 5, 9),
    "identities": lambda store, mine: store.identities_in_history(mine, 1, [5, 7]),
    "rows at": lambda store, mine: store.rows_at(mine, 1, [5, 7]),
    "newest": lambda store, mine: store.newest(mine, [("a", 1), ("b", 2)]),
    "scan newest": lambda store, mine: store.scan_newest(mine, after=("a", 1), limit=5),
    "scan of keys": lambda store, mine: _scan(store, mine, keys=[("a", 1), ("b", 2)], min_event_time_us=5),
    "scan": lambda store, mine: _scan(store, mine, max_event_time_us=7),
}


@pytest.mark.parametrize("name", _USES)
def test_reads_seek_and_do_not_sort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """No read of history walks the whole table (but a scan of everything), and none sorts history rows."""
    path = tmp_path / "h.db"
    statements = asyncio.run(_statements_of(path, _USES[name], monkeypatch))
    assert statements
    with closing(sqlite3.connect(path)) as connection:
        connection.execute('CREATE TEMP TABLE "wanted_1" (k, j, PRIMARY KEY (k, j)) WITHOUT ROWID')
        for sql in statements:
            places = [None] * sql.count("?")
            steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", places)]
            whole = [step for step in steps if re.match(r"SCAN (history_plane|h|one)\b", step)]
            assert (whole == []) is (name != "scan"), steps
            # A page of newest rows is put in order after it was limited, which costs nothing much.
            assert name == "scan newest" or not any("TEMP B-TREE" in step for step in steps), steps


async def _statements_of(path: Path, use: _Use, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """SELECTs on history that a use sends to SQLite, as SQLite itself traced them."""
    traced: list[str] = []
    connect = sqlite3.connect

    def traced_connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(traced.append)
        return connection

    async with SqlHistoryStore(f"sqlite:///{path}", load_settings()) as store:
        await store.init()
        [mine] = await register(store, group(keys={"k": "string", "j": "long"}))
        await store.claim(topic())
    monkeypatch.setattr(sqlite3, "connect", traced_connect)
    async with SqlHistoryStore(f"sqlite:///{path}", load_settings()) as store:
        await use(store, mine)
    monkeypatch.undo()
    return [sql for sql in traced if sql.lstrip().startswith(("SELECT", "WITH")) and "history_plane" in sql]


def test_statements_of_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is begin, fence, decided, dozens of rows an INSERT, the last few rows one by one, and commit."""
    sent: list[str] = []
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(lambda statement: sent.append(statement.split()[0]))
        return connection

    async def check() -> None:
        async with SqlHistoryStore(f"sqlite:///{tmp_path / 'h.db'}", load_settings()) as store:
            await store.init()
            [mine] = await register(store, group())
            source = await store.claim(topic())
            sent.clear()
            await append(store, source, mine, *(event(at) for at in range(1_000)))

    monkeypatch.setattr(sqlite3, "connect", traced)
    asyncio.run(check())
    assert sent == ["BEGIN", "UPDATE", "SELECT", *["INSERT"] * (31 + 8), "COMMIT"]
