"""SQLite as an engine of the SQL stores.

Durability: every file is in WAL mode with synchronous=FULL, so a commit is on the disk when it returns: neither a
killed process nor a power cut loses what was acknowledged (as far as the disk keeps its word). Measured, that costs
about 2 ms a transaction and 6 % of the ingest rate in batches of 2,000 rows. Both files need it: a power cut
that took back a commit of the online file would leave it behind a position that history already holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite
from sqlalchemy.engine import Dialect as CoreDialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.types import TypeEngine, UserDefinedType

from oomstream.schemas.errors import (
    Fatal,
    InvalidDefinition,
    InvalidEvent,
    InvalidSetting,
    OomstreamError,
    Reason,
    StoreUnavailable,
)
from oomstream.schemas.types import Kind, ValueType
from oomstream.stores.base import Cut
from oomstream.stores.sql.dialects import Clock, CutPlace, Dialect, InsertText, OnlineReader, StoredColumn
from oomstream.stores.sql.linked import sqlite_key, sqlite_misfit, sqlite_value
from oomstream.stores.sql.text import literal, quote_name
from oomstream.stores.urls import StoreUrl

# At level DEBUG aiosqlite logs every statement with its parameters, which are event values.
logging.getLogger("aiosqlite").setLevel(logging.WARNING)

_T = TypeVar("_T")

_WAL_MODE_S = 10.0
_MAX_PARAMETERS = 32_766
_ROWS_A_STATEMENT = 32
_SESSION = (
    "PRAGMA synchronous=FULL",
    "PRAGMA cache_size=-65536",
    # 32 MB of WAL before its pages are copied into the file: rows come in any order of keys, so that fewer checkpoints
    # write the same pages less often (measured: 1.5 to 1.8 times the rows a second of the default, 4 MB).
    "PRAGMA wal_autocheckpoint=8000",
    "PRAGMA foreign_keys=OFF",
)
# sqlite3.SQLITE_… names exist from Python 3.11; primary result codes are the low byte of extended ones.
_REJECTED = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE}
_DUPLICATE = {sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE}
_BROKEN = {
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore it from a backup",
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database",
}
_DOWN = {
    sqlite3.SQLITE_BUSY: "locked by another process",
    sqlite3.SQLITE_LOCKED: "locked by another connection",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "the file, or the folder it is in, may not be written",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened (is the folder there, and may it be written?)",
    sqlite3.SQLITE_IOERR: "the disk refuses a read or a write (full, over a size limit, or failing)",
    sqlite3.SQLITE_PERM: "the file may not be used",
    sqlite3.SQLITE_NOMEM: "out of memory",
    sqlite3.SQLITE_PROTOCOL: "locked by another process",
    sqlite3.SQLITE_INTERRUPT: "the call was interrupted",
}


class ExactFloat(UserDefinedType[float]):
    """A column with no declared type: one declared REAL turns -0.0 into 0.0 (it keeps whole numbers as integers)."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """No type name at all."""
        return ""


def file_uri(path: str, mode: str) -> str:
    """SQLite's URI of a file, so that opening one that is not there does not make it."""
    return f"file:{quote(str(Path(path).absolute()))}?mode={mode}"


def _to_wal_mode(connection: sqlite3.Connection) -> None:
    """Change the journal's mode; SQLite's busy timeout does not hold for that, so two first starts would collide."""
    deadline = time.monotonic() + _WAL_MODE_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


async def _in_thread(connection: AsyncConnection, work: Callable[[sqlite3.Connection], _T]) -> _T:
    """Have a connection's own thread do something in one visit.

    SQLAlchemy and aiosqlite go there and back three times a statement: to make a cursor, to execute, and to close it.
    """
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    try:
        result: _T = await driver._execute(work, driver._conn)
    except sqlite3.Error as exc:
        raise sa.exc.DBAPIError(None, None, exc) from exc
    except asyncio.CancelledError:
        await connection.invalidate()  # as SQLAlchemy does: nobody knows where its transaction stands
        raise
    return result


class SqliteDialect(Dialect):
    """SQLite through aiosqlite; scans and online reads use sqlite3 itself."""

    name = "SQLite"
    quote = '"'
    parameter = "?"
    greatest = "max"
    clock = "oomstream_now_us()"
    begin_write = ("BEGIN IMMEDIATE",)
    begin_read = ("BEGIN",)
    one_writer = True

    def __init__(self, clock: Clock | None = None) -> None:
        self._now_us = clock or (lambda: time.time_ns() // 1000)

    @property
    def core(self) -> CoreDialect:
        """SQLAlchemy's dialect."""
        return SQLiteDialect_aiosqlite()

    def engine(self, url: StoreUrl, call_timeout_s: float) -> AsyncEngine:
        """An engine; SQLite's own busy timeout ends a little before our deadline, to say what it waited for."""
        address = sa.URL.create("sqlite+aiosqlite", database=file_uri(url.path, "rw"), query={"uri": "true"})
        # isolation_level=None: the driver begins nothing by itself, `Database` says BEGIN (see traps there).
        arguments = {"isolation_level": None, "timeout": call_timeout_s * 0.75}
        # The connection that wrote last is the one whose cache of pages is still true.
        engine = create_async_engine(
            address, connect_args=arguments, hide_parameters=True, pool_size=4, pool_use_lifo=True
        )

        @sa.event.listens_for(engine.sync_engine, "connect")
        def configure(connection: Any, _: Any) -> None:
            cursor = connection.cursor()
            for each in _SESSION:
                cursor.execute(each)
            cursor.close()
            self.add_clock(connection)

        @sa.event.listens_for(engine.sync_engine, "invalidate")
        def roll_back(connection: Any, _record: Any, _error: BaseException | None) -> None:
            # A call that was cancelled leaves its cursor in a traceback; SQLite puts off the closing of a connection
            # with a live cursor, and its transaction would hold the write lock until the garbage collector comes.
            with contextlib.suppress(sqlite3.Error, ValueError):
                connection.rollback()

        return engine

    async def begin(self, connection: AsyncConnection, statements: Sequence[str]) -> None:
        """The statements in one visit to the connection's thread."""

        def work(raw: sqlite3.Connection) -> None:
            for each in statements:
                raw.execute(each).close()

        await connection.begin()  # SQLAlchemy commits only what it knows to have begun; it sends nothing itself
        await _in_thread(connection, work)

    async def move(
        self,
        connection: AsyncConnection,
        update: str,
        values: Sequence[Any],
        query: str,
        asked: Sequence[Any],
    ) -> Sequence[Any] | None:
        """Both statements in one visit to the connection's thread."""

        def work(raw: sqlite3.Connection) -> Sequence[Any] | None:
            with contextlib.closing(raw.execute(update, values)) as moved:
                if moved.rowcount != 1:
                    return None
            with contextlib.closing(raw.execute(query, asked)) as found:
                row: Sequence[Any] = found.fetchone()
                return row

        return await _in_thread(connection, work)

    async def insert(self, connection: AsyncConnection, statement: InsertText, rows: Sequence[tuple[Any, ...]]) -> int:
        """Dozens of rows a statement: with each one sqlite3 gives the GIL back and waits for it again.

        OR FAIL spares SQLite the journal that would undo a statement which fails half-way: we undo the transaction.
        """
        head = statement.head.replace("INSERT", "INSERT OR FAIL", 1)
        size = min(_ROWS_A_STATEMENT, _MAX_PARAMETERS // len(rows[0]))
        of_many = f"{head} {', '.join([statement.row] * size)} {statement.tail}"

        def work(raw: sqlite3.Connection) -> int:
            written = at = 0
            with contextlib.closing(raw.cursor()) as cursor:
                while at + size <= len(rows):
                    cursor.execute(of_many, tuple(chain.from_iterable(rows[at : at + size])))
                    written += cursor.rowcount
                    at += size
                if at < len(rows):
                    cursor.executemany(statement.of_one_row, rows[at:] if at else rows)
                    written += cursor.rowcount
            return written

        return await _in_thread(connection, work)

    def add_clock(self, connection: Any) -> None:
        """Give a connection the function `clock`: SQLite 3.40 knows the time only to the millisecond."""
        connection.create_function("oomstream_now_us", 0, self._now_us)

    async def create(self, url: StoreUrl) -> None:
        """Make the file and its folder; WAL mode stays with the file."""

        def make() -> None:
            Path(url.path).absolute().parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(file_uri(url.path, "rwc"), uri=True, isolation_level=None)
            try:
                _to_wal_mode(connection)
            finally:
                connection.close()

        try:
            await asyncio.to_thread(make)
        except OSError as exc:
            raise StoreUnavailable(f"store {url}: its folder cannot be made ({exc.strerror})") from exc
        except sqlite3.Error as exc:
            raise self.error(exc, f"store {url}", url) from exc

    async def exists(self, url: StoreUrl) -> bool:
        """Whether the file is there; an empty one is not a database yet."""
        path = Path(url.path)
        return await asyncio.to_thread(lambda: path.exists() and path.stat().st_size > 0)

    def name_type(self, length: int = 255) -> TypeEngine[Any]:
        """TEXT, whose default collation compares bytes."""
        return sa.Text()

    def after(self, columns: Sequence[sa.ColumnElement[Any]], key: Sequence[Any]) -> sa.ColumnElement[bool]:
        """A comparison of row values: SQLite seeks for it, and scans for the same in words of AND and OR."""
        return sa.tuple_(*columns) > sa.tuple_(
            *(sa.literal(part, column.type) for part, column in zip(key, columns, strict=True))
        )

    def key_type(self, key: ValueType) -> TypeEngine[Any]:
        """TEXT and BLOB compare by their bytes."""
        return self.value_type(key)

    def value_type(self, value: ValueType) -> TypeEngine[Any]:
        """The plain form's type."""
        match value.kind:
            case Kind.BOOLEAN:
                return sa.Boolean()
            case Kind.INT | Kind.LONG | Kind.DATE | Kind.TIMESTAMP_MILLIS | Kind.TIMESTAMP_MICROS:
                return sa.BigInteger()
            case Kind.FLOAT | Kind.DOUBLE:
                return ExactFloat()
            case Kind.BYTES:
                return sa.LargeBinary()
        return sa.Text()

    def binary_type(self, length: int | None = None) -> TypeEngine[Any]:
        """BLOB."""
        return sa.LargeBinary()

    def insert_or_keep(self, first_key: str) -> str:
        """ON CONFLICT without a target covers every key."""
        return "ON CONFLICT DO NOTHING"

    def upsert_where_greater(self, key: str, value: str, version: str, comparison: str) -> str:
        """The comparison is made under the write lock."""
        table = quote_name("online")
        return (
            f"ON CONFLICT ({key}) DO UPDATE SET {value} = excluded.{value}, {version} = excluded.{version} "
            f"WHERE excluded.{version} {comparison} {table}.{version}"
        )

    def default_text(self, value: bool | int | float | str | bytes) -> str:
        """A literal; in text only the quotation mark has a meaning to SQLite, and NUL would end the statement."""
        if isinstance(value, float):
            return repr(value)
        if not isinstance(value, str):
            return literal(value)
        if "\0" in value:
            raise InvalidDefinition("a default that holds a NUL character cannot be a column's default in SQLite")
        return quote_name(value, "'")

    def columns_text(self, table: str) -> str:
        """A pragma as a table; the name goes in as the bytes of its text."""
        name = f"CAST({literal(table.encode())} AS TEXT)"
        return f"SELECT name, lower(type), NULL, NULL FROM pragma_table_info({name})"  # noqa: S608 - a hex literal

    def linked_key(self, column: StoredColumn, quoted: str, kind: ValueType) -> str | None:
        """Text by its bytes, whatever the column's collation."""
        return sqlite_key(column, quoted, kind)

    def linked_value(self, column: StoredColumn, quoted: str, kind: ValueType) -> str | None:
        """The column itself; `misfit` looks at the values."""
        return sqlite_value(column, quoted, kind)

    def misfit(self, expression: str, kind: ValueType, *, key: bool) -> str:
        """By the types of the values too."""
        return sqlite_misfit(expression, kind, key=key)

    def is_duplicate(self, exc: BaseException) -> bool:
        """By the extended result code."""
        return getattr(exc, "sqlite_errorcode", 0) in _DUPLICATE

    def error(self, exc: BaseException, where: str, url: StoreUrl) -> OomstreamError:
        """What SQLite's result code means."""
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_CANTOPEN and not Path(url.path).exists():
            return InvalidSetting(f"{where} is not there: run `oomstream init`, or correct the URL")
        if getattr(exc, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_DIRECTORY:
            # Not opened as immutable=1 instead: a writer that starts later would change the file under the reader.
            return StoreUnavailable(
                f"{where}: this user may not write in its folder, in which SQLite's readers make a -shm and a -wal "
                "file unless a running writer has made them: give this user the right to write there"
            )
        if code in _REJECTED:
            return InvalidEvent(Reason.REJECTED_BY_STORE, f"{where} rejects a row for its data ({exc})")
        if code in _BROKEN:
            return Fatal(f"{where}: {_BROKEN[code]}")
        if code in _DOWN:
            return StoreUnavailable(f"{where}: {_DOWN[code]} ({exc})")
        if "no such table" in str(exc):
            return InvalidSetting(f"{where} is not initialised ({exc}): run `oomstream init`")
        return Fatal(f"{where}: {exc}")

    @asynccontextmanager
    async def cut(self, place: CutPlace) -> AsyncIterator[Cut]:
        """A read transaction on a connection of its own."""
        from oomstream.stores.sql.scan import sql_cut
        from oomstream.stores.sql.sqlite_reads import sqlite_cut

        async with sqlite_cut(self, place.url, place.call_timeout_s, place.where) as reader:
            yield await sql_cut(reader, place.tables, self, place.table_of)

    def online_reader(self, url: StoreUrl, where: str) -> OnlineReader | None:
        """sqlite3 itself."""
        from oomstream.stores.sql.sqlite_reads import SqliteOnlineReader

        return SqliteOnlineReader(self, url, where)
