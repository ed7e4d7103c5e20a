"""History in bulk, at one moment, from servers of MySQL's family, as Arrow tables.

On TiDB every page is read by ConnectorX, on a connection of its own that begins a transaction as of the cut's
timestamp; measured, that is three times as fast as aiomysql. A transaction of ours as of the same timestamp stays open
beside it: it reads what is small, shows that the server is there before ConnectorX is asked (which waits 30 s for one
that is not), and keeps garbage collection away, for a day (tidb_gc_max_wait_time). MySQL and MariaDB have no way to
share a snapshot: there all pages are read by aiomysql in one transaction.
"""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pymysql
import sqlalchemy as sa

from oomstream.schemas.errors import StoreUnavailable
from oomstream.schemas.events import Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import Cut
from oomstream.stores.revisions import Revision
from oomstream.stores.sql.arrow_forms import (
    revision_schema,
    scan_schema,
    telling_changes,
    with_missing,
    without_values_of_deletes,
)
from oomstream.stores.sql.dialects import CutPlace, StoredColumn
from oomstream.stores.sql.mysql import MysqlDialect
from oomstream.stores.sql.mysql_connection import Connection, Flavour, ServerAddress, connect
from oomstream.stores.sql.mysql_errors import mysql_error
from oomstream.stores.sql.mysql_pages import PAGE_BYTES, Key, PageStatements, Part, RevisionPages, Walk, key_chunks
from oomstream.stores.sql.mysql_walk import Walker
from oomstream.stores.sql.revision_tables import RevisionForm
from oomstream.stores.sql.revisions import Revisions, revision_of
from oomstream.stores.sql.tables import HistoryTable

if TYPE_CHECKING:
    import pyarrow as pa

_CALLS_PER_PAGE = 10
"""A page's deadline in deadlines of a call: a scan may look through many rows to find a page's worth."""

_DRIVER_PAGE_ROWS = 20_000
_MEASURED_ROWS = 20_000
"""Pages of so many rows or fewer are measured if a value is too long: there would soon be nothing but pages."""

_FUTURE_TRIES = 1_000
_TOO_LONG = "_too_long"
_UNKNOWN_ERROR = 1105
_ERROR_NUMBER = re.compile(r"\bERROR (\d+) \(")


class _Transaction:
    """A read transaction on a connection of its own, used by one statement at a time."""

    def __init__(self, connection: Connection, place: CutPlace) -> None:
        self._connection = connection
        self._place = place
        self._free = asyncio.Lock()

    async def rows(self, sql: str, calls: int = 1) -> Sequence[tuple[Any, ...]]:
        """All rows of a result, within the deadline of so many calls."""
        async with self._free:
            with _translated(self._place.where):
                async with asyncio.timeout(calls * self._place.call_timeout_s):
                    return await self._connection.rows(sql)

    async def check(self) -> None:
        """Find out, within the deadline of one call, whether the server is there: a page's deadline is far longer."""
        await self.rows("SELECT 1")


class _Pages(ABC):
    """Reads pages of one cut."""

    most_rows: int
    at_once: int

    def __init__(self, transaction: _Transaction) -> None:
        self._transaction = transaction
        self._measured = False
        self._unmeasured_rows = self.most_rows

    async def read(self, statements: Walk, after: Key | None, rows: int, schema: pa.Schema) -> tuple[pa.Table, bool]:
        """The next page, of at most so many rows, and whether it is the last one.

        A page comes whole, and after thousands of rows with nothing in a column may come thousands with a vector. So
        values are asked for up to the length at which all of them together still fit. Where one is longer, that page
        and all further ones are of fewer rows, with more room for each; and in the end they are measured before they
        are read: then the server goes through every row twice.
        """
        if not statements.has_long:
            page = await self._read(statements.page(after, rows), schema)
            return page, page.num_rows < rows
        while not self._measured:
            rows = min(rows, self._unmeasured_rows)
            page = await self._read(statements.page(after, rows, 2 * PAGE_BYTES), _with_too_long(schema))
            if not _any_too_long(page):
                return page.drop_columns([_TOO_LONG]), page.num_rows < rows
            self._measured = rows <= _MEASURED_ROWS
            self._unmeasured_rows = min(self._unmeasured_rows, rows // 4)
        rows = await self._fitting(statements, after, rows)
        page = await self._read(statements.page(after, rows), schema)
        return page, page.num_rows < rows

    async def _fitting(self, statements: Walk, after: Key | None, rows: int) -> int:
        """So many rows, or fewer if their long values are more than a page should hold, as the server says."""
        while rows > 1 and (sql := statements.bytes_of_page(after, rows)) is not None:
            [(size,)] = await self._transaction.rows(sql, _CALLS_PER_PAGE)
            if size <= 2 * PAGE_BYTES:
                break
            rows = max(1, rows * PAGE_BYTES // size)
        return rows

    @abstractmethod
    async def _read(self, sql: str, schema: pa.Schema) -> pa.Table:
        """The result of a statement in the types of a schema."""


class _DriverPages(_Pages):
    """Pages through aiomysql in the cut's own transaction."""

    most_rows = _DRIVER_PAGE_ROWS
    at_once = 1  # there is one connection

    async def _read(self, sql: str, schema: pa.Schema) -> pa.Table:
        """The rows, turned into columns."""
        await self._transaction.check()
        rows = await self._transaction.rows(sql, _CALLS_PER_PAGE)
        return await asyncio.to_thread(_table_of_rows, rows, schema)


class _ConnectorXPages(_Pages):
    """Pages through ConnectorX, each on a connection of its own, as of the cut's timestamp."""

    most_rows = 1_000_000
    at_once = 2

    def __init__(self, transaction: _Transaction, address: ServerAddress, begin: str, place: CutPlace) -> None:
        super().__init__(transaction)
        self._url = _connectorx_url(address)
        self._before = ["SET time_zone = '+00:00'", begin]
        self._place = place

    async def _read(self, sql: str, schema: pa.Schema) -> pa.Table:
        """The result, in ConnectorX's types at first."""
        await self._transaction.check()
        with _translated(self._place.where):
            async with asyncio.timeout(_CALLS_PER_PAGE * self._place.call_timeout_s):
                return await asyncio.to_thread(self._fetch, sql, schema)

    def _fetch(self, sql: str, schema: pa.Schema) -> pa.Table:
        import connectorx

        try:
            found: Any = connectorx.read_sql(
                self._url, sql, return_type="arrow", protocol="binary", pre_execution_query=self._before
            )
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # a panic of its Rust code is no Exception
            number = _ERROR_NUMBER.search(str(exc))
            # Not the error's own words, in which the statement and its values may stand.
            raise pymysql.OperationalError(int(number[1]) if number else 2013, type(exc).__name__) from None
        return _typed(found, schema)


def _connectorx_url(address: ServerAddress) -> str:
    options = {"prefer_socket": "false"}
    if address.tls:
        options["ssl-mode"] = "VERIFY_IDENTITY"
        if address.ca is not None:
            options["ssl-ca"] = address.ca
    user, password, database = (quote(part, safe="") for part in (address.user, address.password, address.database))
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"mysql://{user}:{password}@{host}:{address.port}/{database}?{urlencode(options)}"


class _MysqlCut(Cut):
    def __init__(
        self,
        transaction: _Transaction,
        pages: _Pages,
        dialect: MysqlDialect,
        place: CutPlace,
        now_us: int,
        kinds: dict[int, SourceKind],
    ) -> None:
        self.now_us = now_us
        self.kinds = kinds
        self._transaction = transaction
        self._pages = pages
        self._dialect = dialect
        self._place = place

    async def scan(
        self,
        group: FeatureGroup,
        features: Sequence[str],
        *,
        keys: Sequence[Key] | None = None,
        min_event_time_us: int | None = None,
        max_event_time_us: int | None = None,
        max_ingest_time_us: int | None = None,
        batch_rows: int = 100_000,
    ) -> AsyncIterator[pa.Table]:
        """Rows of a group in order of the primary key, a page at a time."""
        table = self._place.table_of(group)
        walker = self._walker(group, features, batch_rows)
        for chunk in key_chunks(keys):
            walk = PageStatements(
                table,
                features,
                chunk,
                min_event_time_us=min_event_time_us,
                max_event_time_us=max_event_time_us,
                max_ingest_time_us=max_ingest_time_us,
            )
            async for page in walker.walk(walk):
                yield _completed(page, table, features)

    async def scan_in_parts(
        self,
        group: FeatureGroup,
        features: Sequence[str],
        *,
        splits: Sequence[Plain],
        min_event_time_us: int | None = None,
        max_event_time_us: int | None = None,
        max_ingest_time_us: int | None = None,
        batch_rows: int = 100_000,
        versions: bool = True,
    ) -> AsyncIterator[pa.Table]:
        """Rows of a group in order of the primary key, two pages at a time."""
        table = self._place.table_of(group)

        def statements(part: Part) -> Walk:
            pages = partial(
                PageStatements,
                table,
                features,
                None,
                min_event_time_us=min_event_time_us,
                max_event_time_us=max_event_time_us,
                max_ingest_time_us=max_ingest_time_us,
                part=part,
            )
            walk = pages()
            if not versions:
                walk.bare = pages(versions=False)
            return walk

        pages = self._walker(group, features, batch_rows).walk_in_parts(statements, splits)
        async with aclosing(pages):
            async for page in pages:
                yield _completed(page, table, features)
                del page

    def _walker(self, group: FeatureGroup, features: Sequence[str], batch_rows: int) -> Walker:
        # The primary key: the key columns come first, then event time, source and sequence.
        return Walker(
            self._pages,
            len(group.keys) + 3,
            scan_schema(group, features),
            batch_rows,
            bare_schema=scan_schema(group, features, versions=False),
        )

    async def revisions(self, group: FeatureGroup) -> list[Revision]:
        """Published revisions, by id."""
        query = Revisions(self._place.tables, self._dialect).published(group.id)
        return [revision_of(row) for row in await self._transaction.rows(_text(query, self._dialect))]

    async def scan_revision(
        self,
        group: FeatureGroup,
        revision: Revision,
        features: Sequence[str],
        *,
        keys: Sequence[Key] | None = None,
        batch_rows: int = 100_000,
    ) -> AsyncIterator[pa.Table]:
        """Rows of a revision in key order, a page at a time."""
        stored = await self._transaction.rows(self._dialect.columns_text(revision.table))
        form = RevisionForm(group, revision, [StoredColumn(*row) for row in stored], self._dialect)
        there = [name for name in features if name in form.values]
        complete = with_missing(form, features)
        walker = Walker(self._pages, len(group.keys), revision_schema(group, there), batch_rows)
        with telling_changes(form):
            for chunk in key_chunks(keys):
                async for page in walker.walk(RevisionPages(form, there, chunk)):
                    yield complete(page)


def _with_too_long(schema: pa.Schema) -> pa.Schema:
    import pyarrow as pa

    return schema.append(pa.field(_TOO_LONG, pa.int64()))


def _any_too_long(page: pa.Table) -> bool:
    import pyarrow.compute as pc

    return bool(pc.max(page.column(_TOO_LONG)).as_py())


def _text(query: sa.Select[Any], dialect: MysqlDialect) -> str:
    return str(query.compile(dialect=dialect.core, compile_kwargs={"literal_binds": True}))


def _table_of_rows(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.Table.from_arrays(
        [_array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


def _array(column: Sequence[Any], kind: pa.DataType) -> pa.Array[Any]:
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return pa.array(column, pa.int8()).cast(pa.bool_())
    if pa.types.is_string(kind) and any(type(value) is bytes for value in column):
        return pa.array(column, pa.binary()).cast(kind)  # a key, from its VARBINARY
    return pa.array(column, kind)


def _typed(found: pa.Table, schema: pa.Schema) -> pa.Table:
    """ConnectorX's columns in our types: it gives booleans as int8, text of VARBINARY as bytes, long offsets."""
    import pyarrow as pa

    columns = []
    for column, field in zip(found.columns, schema, strict=True):
        if pa.types.is_string(field.type) and pa.types.is_large_binary(column.type):
            column = column.cast(pa.large_string())
        columns.append(column.cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _completed(page: pa.Table, table: HistoryTable, features: Sequence[str]) -> pa.Table:
    """Fill in defaults that the engine cannot keep, in rows that were written before the feature was added."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in features:
        if name in table.filled:
            at = page.schema.get_field_index(name)
            field = page.schema.field(at)
            default: Any = pa.scalar(table.filled[name], field.type)
            page = page.set_column(at, field, pc.fill_null(page.column(at), default))
    return without_values_of_deletes(page, len(features))


@asynccontextmanager
async def mysql_cut(dialect: MysqlDialect, place: CutPlace) -> AsyncIterator[Cut]:
    """A cut, ended with the context."""
    with _translated(place.where):
        # No limit for idle transactions: what is read is worked on between two pages.
        limits = replace(dialect.limits, idle_s=None)
        connection = await connect(dialect.address, limits, isolation="REPEATABLE READ")
    try:
        transaction = _Transaction(connection, place)
        [(now_us,)] = await transaction.rows(f"SELECT {dialect.clock}")
        pages: _Pages
        if connection.flavour is Flavour.TIDB:
            begin = await _begin_as_of(transaction)
            pages = _ConnectorXPages(transaction, dialect.address, begin, place)
        else:
            await transaction.rows("ROLLBACK")
            await transaction.rows("START TRANSACTION WITH CONSISTENT SNAPSHOT")
            pages = _DriverPages(transaction)
        source = place.tables.source
        kinds = await transaction.rows(_text(sa.select(source.c.id, source.c.kind), dialect))
        by_id = {row[0]: SourceKind(row[1]) for row in kinds}
        yield _MysqlCut(transaction, pages, dialect, place, now_us, by_id)
    finally:
        connection.close()


async def _begin_as_of(transaction: _Transaction) -> str:
    """Begin a transaction as of a timestamp that is not before now; returns the statement, for other connections.

    ``AS OF`` takes whole milliseconds and refuses the future. So the next millisecond is awaited: what was committed
    before is then in the cut for certain.
    """
    await transaction.rows("ROLLBACK")
    await transaction.rows("START TRANSACTION")
    [(now,)] = await transaction.rows("SELECT @@tidb_current_ts")
    await transaction.rows("ROLLBACK")
    # A timestamp is milliseconds since 1970 and 18 bits of a counter.
    millisecond = (int(now) >> 18) + 1
    time = f"{millisecond // 1000}.{millisecond % 1000:03d}"
    begin = f"START TRANSACTION READ ONLY AS OF TIMESTAMP FROM_UNIXTIME({time})"
    for left in reversed(range(_FUTURE_TRIES)):
        try:
            await transaction.rows(begin)
        except StoreUnavailable as exc:
            if not left or _UNKNOWN_ERROR not in getattr(exc.__cause__, "args", ()):
                raise
            await asyncio.sleep(0.001)
        else:
            break
    return begin


@contextmanager
def _translated(where: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as exc:
        raise StoreUnavailable(f"{where} did not answer in time") from exc
    except pymysql.MySQLError as exc:
        raise mysql_error(exc, where) from exc
