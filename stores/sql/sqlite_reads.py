"""Reads that go to sqlite3 itself: online rows in microseconds, and history in bulk as Arrow."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from oomstream.schemas.errors import InvalidSetting, StoreUnavailable
from oomstream.stores.sql.dialects import CutReader, Dialect
from oomstream.stores.sql.sqlite import SqliteDialect, file_uri
from oomstream.stores.sql.text import quote_name
from oomstream.stores.urls import StoreUrl

if TYPE_CHECKING:
    import pyarrow as pa

_T = TypeVar("_T")

_KEYS_PER_STATEMENT = 16_384  # SQLite's default limit of parameters is 32,766
_IDLE_CONNECTIONS = 32
# More tuples at once would set off the garbage collector: 100,000 at once read a third as fast (0.13 against 0.42
# million rows a second).
_ROWS_PER_FETCH = 500
_ROWS_PER_CHUNK = 10_000
_MOMENTS_PER_INSERT = 100


def _connect(url: StoreUrl, wait_s: float) -> sqlite3.Connection:
    return sqlite3.connect(
        file_uri(url.path, "rw"), uri=True, isolation_level=None, timeout=wait_s, check_same_thread=False
    )


class SqliteOnlineReader:
    """Online rows straight from the file; any thread may read, each call takes a connection of its own."""

    def __init__(self, dialect: Dialect, url: StoreUrl, where: str) -> None:
        self._dialect = dialect
        self._url = url
        self._where = where
        self._idle: deque[sqlite3.Connection] | None = deque()

    def read(self, keys: Sequence[bytes], wait_s: float = 0.0) -> list[bytes | None]:
        """Values in the order of the keys, all of one moment.

        Args:
            keys: What to read.
            wait_s: How long to wait for a file that is locked just now, which hardly ever is.

        Raises:
            StoreUnavailable: The file cannot be read now.
        """
        if not keys:
            return []
        try:
            return self._read(keys)
        except StoreUnavailable:
            if not wait_s:
                raise
        return self._read(keys, wait_s)

    def _read(self, keys: Sequence[bytes], wait_s: float = 0.0) -> list[bytes | None]:
        idle = self._idle
        if idle is None:
            raise InvalidSetting(f"{self._where} is not open: use it inside 'with'")
        connection: sqlite3.Connection | None = None
        try:
            try:
                connection = idle.pop()
            except IndexError:
                connection = _connect(self._url, 0.0)
            if wait_s:
                connection.execute(f"PRAGMA busy_timeout={int(wait_s * 1000)}")
            found = _select(connection, keys) if len(keys) <= _KEYS_PER_STATEMENT else _select_all(connection, keys)
            if wait_s:
                connection.execute("PRAGMA busy_timeout=0")
        except BaseException as exc:
            if connection is not None:
                connection.close()
            if isinstance(exc, sqlite3.Error):
                raise self._dialect.error(exc, self._where, self._url) from exc
            raise
        if self._idle is None or len(idle) >= _IDLE_CONNECTIONS:
            connection.close()
        else:
            idle.append(connection)
        return list(map(found.get, keys))

    def close(self) -> None:
        """Close every idle connection; one that is being read from is closed by its reader."""
        idle, self._idle = self._idle, None
        while idle:
            idle.pop().close()


def _select(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    places = _places(len(keys))
    padded = [*keys, *([keys[-1]] * (places - len(keys)))]
    return dict(connection.execute(_select_text(places), padded).fetchall())


def _select_all(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    connection.execute("BEGIN")
    found: dict[bytes, bytes] = {}
    for at in range(0, len(keys), _KEYS_PER_STATEMENT):
        found |= _select(connection, keys[at : at + _KEYS_PER_STATEMENT])
    connection.execute("COMMIT")
    return found


def _places(keys: int) -> int:
    """How many places for so many keys: few numbers, so that sqlite3 has the statement in its cache; few too many."""
    step = max(1, 1 << (keys - 1).bit_length() >> 3)
    return -(-keys // step) * step


@lru_cache(maxsize=128)
def _select_text(places: int) -> str:
    return f"SELECT key, value FROM online WHERE key IN ({','.join('?' * places)})"  # noqa: S608 - only places


class _SqliteCut(CutReader):
    """One read transaction on one connection; one step at a time, each in a thread."""

    def __init__(self, connection: sqlite3.Connection, dialect: Dialect, where: str, url: StoreUrl) -> None:
        self._connection = connection
        self._dialect = dialect
        self._where = where
        self._url = url
        self._wanted = 0
        # A caller that is cancelled leaves its step running: the next one, above all closing, waits for it here.
        self._step = threading.Lock()
        self._cursors: weakref.WeakSet[sqlite3.Cursor] = weakref.WeakSet()

    async def _in_thread(self, step: Callable[[], _T]) -> _T:
        def locked() -> _T:
            with self._step:
                return step()

        try:
            return await asyncio.to_thread(locked)
        except sqlite3.Error as exc:
            raise self._dialect.error(exc, self._where, self._url) from exc

    async def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a small result."""
        return await self._in_thread(lambda: self._connection.execute(sql, parameters).fetchall())

    async def fill_wanted(self, columns: Sequence[str], keys: Sequence[tuple[Any, ...]]) -> str:
        """Entity keys in a temporary table, which lives in memory and outside the transaction's database."""
        self._wanted += 1
        table = quote_name(f"wanted_{self._wanted}")
        names = ", ".join(columns)
        places = ", ".join("?" * len(columns))

        def fill() -> None:
            self._connection.execute(f"CREATE TEMP TABLE {table} ({names}, PRIMARY KEY ({names})) WITHOUT ROWID")
            self._connection.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({places})", keys)  # noqa: S608 - ours

        await self._in_thread(fill)
        return f"temp.{table}"

    async def fill_moments(self, columns: Sequence[str], moments: pa.Table, name: str | None = None) -> str:
        """Rows in a temporary table, which lives in memory; many of them a statement, which is twice as fast."""
        names = ", ".join(columns)
        if name is None:
            self._wanted += 1
            name = f"temp.{quote_name(f'moments_{self._wanted}')}"
            await self.rows(f"CREATE TABLE {name} (_moment INTEGER PRIMARY KEY, {names})")
        place = f"({', '.join('?' * len(columns))})"

        def fill() -> None:
            self._connection.execute(f"DELETE FROM {name}")  # noqa: S608 - ours
            values = list(chain.from_iterable(zip(*(column.to_pylist() for column in moments.columns), strict=True)))
            whole = len(values) - len(values) % (_MOMENTS_PER_INSERT * len(columns))
            for step, start, end in ((_MOMENTS_PER_INSERT, 0, whole), (1, whole, len(values))):
                insert = f"INSERT INTO {name} ({names}) VALUES {', '.join([place] * step)}"  # noqa: S608 - ours
                width = step * len(columns)
                self._connection.executemany(insert, (values[at : at + width] for at in range(start, end, width)))

        await self._in_thread(fill)
        return name

    async def tables(
        self, sql: str, parameters: Sequence[Any], schema: pa.Schema, batch_rows: int
    ) -> AsyncIterator[pa.Table]:
        """Rows as Arrow tables, made column by column."""
        cursor = await self._in_thread(lambda: self._connection.execute(sql, parameters))
        self._cursors.add(cursor)
        while (table := await self._in_thread(lambda: _next_table(cursor, schema, batch_rows))) is not None:
            yield table

    async def close(self) -> None:
        """End the transaction; a cursor left open would keep it, and with it the file's WAL."""

        def end() -> None:
            with self._step:
                for cursor in list(self._cursors):
                    cursor.close()
                self._connection.close()

        self._connection.interrupt()
        await asyncio.shield(asyncio.to_thread(end))


def _next_table(cursor: sqlite3.Cursor, schema: pa.Schema, batch_rows: int) -> pa.Table | None:
    """The next rows as one table of several chunks; None at the end."""
    import pyarrow as pa

    chunks: list[list[pa.Array[Any]]] = [[] for _ in schema]
    left = batch_rows
    while left > 0 and (columns := _columns(cursor, len(schema), min(left, _ROWS_PER_CHUNK))):
        left -= len(columns[0])
        for chunk, column, field in zip(chunks, columns, schema, strict=True):
            chunk.append(_array(column, field.type))
    if left == batch_rows:
        return None
    return pa.Table.from_arrays([pa.chunked_array(chunk) for chunk in chunks], schema=schema)


def _columns(cursor: sqlite3.Cursor, width: int, rows: int) -> list[list[Any]]:
    """At most `rows` rows, turned into columns; empty at the end."""
    columns: list[list[Any]] = [[] for _ in range(width)]
    while rows > 0 and (fetched := cursor.fetchmany(min(rows, _ROWS_PER_FETCH))):
        rows -= len(fetched)
        for column, values in zip(columns, zip(*fetched, strict=True), strict=True):
            column.extend(values)
    return columns if columns[0] else []


def _array(column: list[Any], kind: pa.DataType) -> pa.Array[Any]:
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return pa.array(column, pa.int8()).cast(pa.bool_())  # SQLite has no booleans, only 0 and 1
    return pa.array(column, kind)


@asynccontextmanager
async def sqlite_cut(
    dialect: SqliteDialect, url: StoreUrl, call_timeout_s: float, where: str
) -> AsyncIterator[CutReader]:
    """A read transaction on a connection of its own, ended with the context."""
    try:
        connection = await asyncio.to_thread(_connect, url, call_timeout_s)
    except sqlite3.Error as exc:
        raise dialect.error(exc, where, url) from exc
    cut = _SqliteCut(connection, dialect, where, url)
    try:
        dialect.add_clock(connection)
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("BEGIN")
        yield cut
    finally:
        await cut.close()
