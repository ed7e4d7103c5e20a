"""What differs from one SQL engine to the next; everything else of the SQL stores is shared.

An engine is one `Dialect` in a module of its own, found by URL scheme. The hot statements are text in the engine's
words, put together by `tables` and `online` from the pieces here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sqlalchemy import ColumnElement, Text
from sqlalchemy.engine import Dialect as CoreDialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.types import TypeEngine

from oomstream.schemas.errors import InvalidSetting, OomstreamError, StoreUnavailable
from oomstream.schemas.types import ValueType
from oomstream.stores.settings import Settings
from oomstream.stores.urls import StoreUrl

if TYPE_CHECKING:
    import pyarrow as pa

    from oomstream.schemas.groups import FeatureGroup
    from oomstream.stores.base import Cut
    from oomstream.stores.sql.tables import HistoryTable, MetaTables

Clock = Callable[[], int]
"""A clock that gives UTC microseconds."""


class Conflict(StoreUnavailable):
    """A transaction lost against another one and was rolled back: `Database.transact` does it again at once."""


class InsertText(NamedTuple):
    """An INSERT in pieces, for drivers that take many rows as one statement.

    Attributes:
        head: ``INSERT INTO … VALUES``.
        row: Placeholders of one row, in parentheses.
        tail: What follows the rows.
    """

    head: str
    row: str
    tail: str

    @property
    def of_one_row(self) -> str:
        """The statement for one row."""
        return f"{self.head} {self.row} {self.tail}"


class StoredColumn(NamedTuple):
    """A column of a table, as the engine describes it.

    Attributes:
        name: Its name.
        type: Name of its type, in small letters.
        digits: Of a decimal, its precision.
        scale: Of a decimal, digits after the point.
    """

    name: str
    type: str
    digits: int | None = None
    scale: int | None = None


class OnlineReader(Protocol):
    """The short way to online rows, for engines that live in this process; usable from any thread."""

    def read(self, keys: Sequence[bytes], wait_s: float = 0.0) -> list[bytes | None]:
        """Values in the order of the keys; waits at most `wait_s` for a lock."""

    def close(self) -> None:
        """Give back every connection."""


class CutReader(Protocol):
    """One read transaction: all of its statements see the same moment."""

    async def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a small result."""

    async def fill_wanted(self, columns: Sequence[str], keys: Sequence[tuple[Any, ...]]) -> str:
        """Put entity keys into a temporary table with these (quoted) columns as primary key; returns its name."""

    async def fill_moments(self, columns: Sequence[str], moments: pa.Table, name: str | None = None) -> str:
        """Put rows into a temporary table of these (quoted) columns, numbered from 1 by `_moment`; returns its name.

        Args:
            columns: Names, in the order of the columns of `moments`.
            moments: The rows.
            name: A table from an earlier call, whose rows they replace; None for a new one.
        """

    def tables(
        self, sql: str, parameters: Sequence[Any], schema: pa.Schema, batch_rows: int
    ) -> AsyncIterator[pa.Table]:
        """Rows of a large result as Arrow tables of at most `batch_rows`."""


class CutPlace(NamedTuple):
    """Where a cut is made.

    Attributes:
        url: The database.
        where: What messages begin with.
        call_timeout_s: Deadline of a call.
        tables: Metadata tables.
        table_of: The history table of a definition.
    """

    url: StoreUrl
    where: str
    call_timeout_s: float
    tables: MetaTables
    table_of: Callable[[FeatureGroup], HistoryTable]


class Dialect(ABC):
    """One SQL engine.

    Attributes:
        name: For messages.
        quote: Mark around identifiers.
        parameter: Placeholder of the driver.
        greatest: Function that gives the greater of its arguments.
        clock: Expression for the database's clock in UTC microseconds.
        begin_write: Statements that begin a transaction which will write.
        begin_read: Statements that begin a transaction which sees one moment.
        one_writer: Whether transactions of one process must queue here, because the engine lets one write at a time.
        tries_plain_insert: Whether new rows are inserted plainly first, because leaving rows that are stored already as
            they are (`insert_or_keep`) costs a read of every key.
        commit_slack_s: How much later than its client gave it up a transaction may still be committed by the server.
    """

    name: str
    quote: str
    parameter: str
    greatest: str
    clock: str
    begin_write: Sequence[str]
    begin_read: Sequence[str]
    one_writer: bool
    tries_plain_insert: bool = False
    commit_slack_s: float = 0.0

    @property
    @abstractmethod
    def core(self) -> CoreDialect:
        """SQLAlchemy's dialect, to compile expressions with."""

    @abstractmethod
    def engine(self, url: StoreUrl, call_timeout_s: float) -> AsyncEngine:
        """An engine whose connections have our session settings; connects lazily."""

    @abstractmethod
    async def create(self, url: StoreUrl) -> None:
        """Make the database itself (file, schema) if it is not there; needs the right to."""

    @abstractmethod
    async def exists(self, url: StoreUrl) -> bool:
        """Whether the database itself is there."""

    @abstractmethod
    def name_type(self, length: int = 255) -> TypeEngine[Any]:
        """Column type of short metadata text that is compared exactly."""

    @abstractmethod
    def after(self, columns: Sequence[ColumnElement[Any]], key: Sequence[Any]) -> ColumnElement[bool]:
        """Columns > key in the order of the primary key, in a form for which the engine seeks."""

    @abstractmethod
    def key_type(self, key: ValueType) -> TypeEngine[Any]:
        """Column type of a key field: comparison must be of exact bytes."""

    @abstractmethod
    def value_type(self, value: ValueType) -> TypeEngine[Any]:
        """Column type of a feature in plain form."""

    @abstractmethod
    def binary_type(self, length: int | None = None) -> TypeEngine[Any]:
        """Column type of bytes, in an index up to `length`."""

    def text_type(self) -> TypeEngine[Any]:
        """Column type of metadata text of any length."""
        return Text()

    @abstractmethod
    def insert_or_keep(self, first_key: str) -> str:
        """What follows ``INSERT … VALUES (…)`` so that a row whose primary key is stored already is left as it is."""

    @abstractmethod
    def upsert_where_greater(self, key: str, value: str, version: str, comparison: str) -> str:
        """What follows ``INSERT … VALUES (…)`` so that a stored row is overwritten by a greater version only."""

    async def begin(self, connection: AsyncConnection, statements: Sequence[str]) -> None:
        """Begin a transaction with these statements."""
        for each in statements:
            await connection.exec_driver_sql(each)

    async def move(
        self,
        connection: AsyncConnection,
        update: str,
        values: Sequence[Any],
        query: str,
        asked: Sequence[Any],
    ) -> Sequence[Any] | None:
        """Update the one row that a condition leaves, then ask; gives the row found, or None with none to update."""
        if (await connection.exec_driver_sql(update, tuple(values))).rowcount != 1:
            return None
        return (await connection.exec_driver_sql(query, tuple(asked))).one()

    async def insert(self, connection: AsyncConnection, statement: InsertText, rows: Sequence[tuple[Any, ...]]) -> int:
        """Insert rows, in order.

        Returns:
            How many rows were inserted or overwritten, where the driver tells.

        Raises:
            UnicodeEncodeError: A text cannot be encoded; some rows may have been inserted.
        """
        return (await connection.exec_driver_sql(statement.of_one_row, list(rows))).rowcount

    def catalog_lock(self, connection: AsyncConnection) -> AbstractAsyncContextManager[None]:
        """Keep other clients from changing definitions, where the write transaction itself does not."""
        return nullcontext()

    @abstractmethod
    def default_text(self, value: bool | int | float | str | bytes) -> str | None:
        """A plain value as a column's default in DDL; None where reading must fill it in, for want of one.

        Raises:
            InvalidDefinition: The engine has no way to write it.
        """

    @abstractmethod
    def columns_text(self, table: str) -> str:
        """The statement that gives the `StoredColumn` s of a table, or nothing if there is no such table."""

    @abstractmethod
    def linked_key(self, column: StoredColumn, quoted: str, kind: ValueType) -> str | None:
        """A key field in a table of a user's, as an expression of its plain form that compares by exact bytes.

        Args:
            column: The column.
            quoted: Its name as SQL text.
            kind: Type of the key field.

        Returns:
            The expression; None if the column's type cannot hold such keys.
        """

    @abstractmethod
    def linked_value(self, column: StoredColumn, quoted: str, kind: ValueType) -> str | None:
        """A feature in a table of a user's, as an expression of its plain form; else as `linked_key`."""

    @abstractmethod
    def misfit(self, expression: str, kind: ValueType, *, key: bool) -> str:
        """A condition that is true for a plain value, not null, that the type does not allow.

        Args:
            expression: What `linked_key` or `linked_value` gave.
            kind: The type.
            key: Whether it is a key field.
        """

    @abstractmethod
    def is_duplicate(self, exc: BaseException) -> bool:
        """Whether a driver's exception says that a primary key is there already."""

    @abstractmethod
    def error(self, exc: BaseException, where: str, url: StoreUrl) -> OomstreamError:
        """What a driver's exception means to us, in one sentence that begins with `where`."""

    @abstractmethod
    def cut(self, place: CutPlace) -> AbstractAsyncContextManager[Cut]:
        """Begin a read transaction of one's own."""

    @abstractmethod
    def online_reader(self, url: StoreUrl, where: str) -> OnlineReader | None:
        """The short way to online rows, where there is one."""


def dialect_of(url: StoreUrl, settings: Settings, clock: Clock | None = None) -> Dialect:
    """The engine that a URL's scheme names.

    Args:
        url: The store's URL.
        settings: Give a server's time limits.
        clock: Stands in for the database's clock where that is the process's own (SQLite).

    Raises:
        InvalidSetting: There is none.
    """
    if url.scheme == "sqlite":
        from oomstream.stores.sql.sqlite import SqliteDialect

        return SqliteDialect(clock)
    if url.scheme in {"tidb", "mysql", "mariadb"}:
        from oomstream.stores.sql.mysql import MysqlDialect

        return MysqlDialect(url, settings)
    raise InvalidSetting(f"{url}: no SQL engine is known for {url.scheme}://")
