"""Statements that walk a history table: run by SQLite, whose answers a sorted list must equal."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomstream.schemas.groups import FeatureGroup
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.mysql import MysqlDialect
from oomstream.stores.sql.mysql_pages import Key, PageStatements, key_chunks
from oomstream.stores.sql.tables import HistoryTable
from oomstream.stores.testing.samples import group
from oomstream.stores.urls import StoreUrl

_TEXTS = ("a", "a ", "A", "é", "\0", "'")
_KINDS: dict[str, dict[str, Any]] = {"one text": {"k": "string"}, "bytes and long": {"a": "bytes", "b": "long"}}
_PARTS = {"k": st.sampled_from(_TEXTS), "a": st.sampled_from((b"a", b"\xff", b"\0")), "b": st.integers(-2, 2)}


def _table(name: str) -> HistoryTable:
    dialect = MysqlDialect(StoreUrl.parse("tidb://root@localhost/x"), load_settings())
    return HistoryTable(group(keys=_KINDS[name]), dialect)


def _keys_of(mine: FeatureGroup) -> st.SearchStrategy[Key]:
    return st.tuples(*(_PARTS[name] for name in mine.key_names))


def _walk(table: HistoryTable, rows: Sequence[tuple[Any, ...]], page_rows: int, **limits: Any) -> list[tuple[Any, ...]]:
    """All pages, as the reader of a cut goes through them."""
    width = len(table.group.keys)
    columns = [*table.group.key_names, "_event_time", "_source", "_sequence", "_ingest_time", "_deleted", "n"]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE history_plane ({', '.join(columns)})")
        connection.executemany(f"INSERT INTO history_plane VALUES ({', '.join('?' * len(columns))})", rows)
        found: list[tuple[Any, ...]] = []
        for chunk in key_chunks(limits.pop("keys", None)):
            statements = PageStatements(table, ["n"], chunk, **limits)
            after: Key | None = None
            while page := connection.execute(statements.page(after, page_rows)).fetchall():
                assert len(page) <= page_rows
                found += page
                after = page[-1][: width + 3]
    return found


def _stored(key: Key) -> tuple[Any, ...]:
    """Key parts as the servers store them: text as its bytes."""
    return tuple(part.encode() if isinstance(part, str) else part for part in key)


@pytest.mark.parametrize("name", _KINDS)
@settings(deadline=None)
@given(data=st.data())
def test_pages_are_the_filtered_rows_in_order(name: str, data: st.DataObject) -> None:
    """Pages of any size, of all rows or of some entities and times, give each row once, in order of the key."""
    table = _table(name)
    keys = _keys_of(table.group)
    identities = data.draw(
        st.lists(st.tuples(keys, st.integers(-2, 2), st.integers(1, 2), st.integers(0, 2)), unique=True, max_size=25)
    )
    rows = [
        (*_stored(key), time, source, sequence, time + sequence, 0, at)
        for at, (key, time, source, sequence) in enumerate(identities)
    ]
    wanted = data.draw(st.none() | st.lists(keys, max_size=6))
    limit = st.none() | st.integers(-3, 3)
    least, most, ingested = data.draw(limit), data.draw(limit), data.draw(limit)
    width = len(table.group.keys)
    expected = sorted(
        row
        for row in rows
        if (wanted is None or row[:width] in {_stored(key) for key in wanted})
        and (least is None or row[width] >= least)
        and (most is None or row[width] <= most)
        and (ingested is None or row[width + 3] <= ingested)
    )
    limits = {"min_event_time_us": least, "max_event_time_us": most, "max_ingest_time_us": ingested, "keys": wanted}
    assert _walk(table, rows, data.draw(st.integers(1, 7)), **limits) == expected


def test_many_keys_are_asked_for_in_parts() -> None:
    """Thousands of keys, given in any order and twice, are taken in order, each once, in bounded statements."""
    keys: list[Key] = [(f"k{number}",) for number in range(3_000)]
    chunks = [chunk or () for chunk in key_chunks([*reversed(keys), *keys])]
    assert [key for chunk in chunks for key in chunk] == sorted(keys)
    assert max(map(len, chunks)) <= 500
    assert list(key_chunks([])) == []
    assert list(key_chunks(None)) == [None]


def test_values_are_integers_and_hex_literals_only() -> None:
    """No character of a value, whatever it is, stands in the statement as itself."""
    table = _table("one text")
    text = "'; DROP TABLE source; -- \\ \" ` %s"
    sql = PageStatements(table, ["n"], [(text,)]).page((text, 1, 2, 3), 10)
    assert "DROP" not in sql
    assert text.encode().hex() in sql
