"""TiDB, MySQL and MariaDB as engines of the SQL stores, through aiomysql.

Transactions that write are READ COMMITTED: after waiting for a lock they see what its holder committed, and InnoDB
takes no gap locks. Transactions that read are REPEATABLE READ: they see one moment. The server ends idle transactions
after half a worker's session timeout, so that a frozen worker's locks are gone before its partitions come back.

Source:
    design.md, section 5 (step 2) and section 6 (stored form).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import pymysql
import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects.mysql.aiomysql import MySQLDialect_aiomysql
from sqlalchemy.engine import Dialect as CoreDialect
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.types import TypeDecorator, TypeEngine

from oomstream.schemas.errors import InvalidSetting, OomstreamError, StoreUnavailable
from oomstream.schemas.types import Kind, ValueType
from oomstream.stores.base import Cut
from oomstream.stores.settings import Settings
from oomstream.stores.sql.dialects import CutPlace, Dialect, InsertText, OnlineReader, StoredColumn
from oomstream.stores.sql.linked import mysql_key, mysql_misfit, mysql_value
from oomstream.stores.sql.mysql_connection import Connection, Flavour, ServerAddress, SessionLimits, connect
from oomstream.stores.sql.mysql_errors import error_code, mysql_error
from oomstream.stores.sql.mysql_rows import insert_statements
from oomstream.stores.sql.text import literal, quote_name
from oomstream.stores.urls import StoreUrl

MAX_IDLE_TRANSACTION_S = 10
COMMIT_SLACK_S = 15.0
"""A COMMIT that is on its way when the client gives up reaches the server before it ends the idle transaction, that is
within `MAX_IDLE_TRANSACTION_S` of its last statement; the rest is for carrying it out."""

_CONNECT_TIMEOUT_S = 10.0
_IDLE_CONNECTION_S = 300.0
_LOCK_WAIT_PAST_IDLE_S = 2
_CATALOG_LOCK = "oomstream catalog"
_UNKNOWN_DATABASE = 1049
_DUPLICATE = 1062
_NO_RIGHT = frozenset({1044, 1142, 1227})


class ExactText(TypeDecorator[str]):
    """Text as VARBINARY: `utf8mb4_bin` takes "a" and "a " for equal, in comparisons and in keys."""

    impl = mysql.VARBINARY
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: CoreDialect) -> bytes | None:
        """Its UTF-8 bytes."""
        return None if value is None else value.encode()

    def process_result_value(self, value: bytes | None, dialect: CoreDialect) -> str | None:
        """The text of the bytes."""
        return None if value is None else bytes(value).decode()


class MysqlDialect(Dialect):
    """A server that speaks MySQL's protocol; which one it is, it says when a connection is made."""

    name = "MySQL"
    quote = "`"
    parameter = "%s"
    greatest = "greatest"
    # An integer from the start, and independent of the session's time zone.
    clock = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6))"
    # Sessions do not commit by themselves: the first statement begins the transaction.
    begin_write = ()
    begin_read = ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT")
    one_writer = False
    tries_plain_insert = True
    commit_slack_s = COMMIT_SLACK_S

    def __init__(self, url: StoreUrl, settings: Settings) -> None:
        self.address = ServerAddress.of(url)
        call_timeout_s = settings.call_timeout_us / 1e6
        idle_s = max(1, min(int(settings.session_timeout_us / 2e6), MAX_IDLE_TRANSACTION_S))
        self.limits = SessionLimits(
            connect_s=min(_CONNECT_TIMEOUT_S, call_timeout_s),
            idle_s=idle_s,
            lock_wait_s=idle_s + _LOCK_WAIT_PAST_IDLE_S,
            ddl_wait_s=max(1, int(call_timeout_s)),
        )

    @property
    def core(self) -> CoreDialect:
        """SQLAlchemy's dialect."""
        return MySQLDialect_aiomysql(paramstyle="format")

    def engine(self, url: StoreUrl, call_timeout_s: float) -> AsyncEngine:
        """An engine with a pool of connections; `Database` ends every transaction, so giving back resets nothing."""

        async def creator(*_: Any, **__: Any) -> Connection:
            return await connect(self.address, self.limits)

        engine = create_async_engine(
            sa.URL.create("mysql+aiomysql", host=self.address.host, database=self.address.database),
            connect_args={"async_creator_fn": creator},
            hide_parameters=True,
            pool_size=self.address.pool_size,
            max_overflow=0,
            pool_timeout=call_timeout_s,
            pool_reset_on_return=None,
        )

        @sa.event.listens_for(engine.sync_engine, "checkout")
        def check(connection: Any, _record: Any, _proxy: Any) -> None:
            if self._is_stale(connection.driver_connection):
                raise DisconnectionError

        return engine

    def _is_stale(self, connection: Connection) -> bool:
        """Whether the server has closed a pooled connection, or may be about to; costs no round trip."""
        limit_s = _IDLE_CONNECTION_S
        if connection.flavour is Flavour.MYSQL and self.limits.idle_s is not None:
            limit_s = self.limits.idle_s / 2
        return connection.at_end or asyncio.get_running_loop().time() - connection.last_usage > limit_s

    async def create(self, url: StoreUrl) -> None:
        """Make the database, in UTF-8, if it is not there."""
        if await self.exists(url):
            return
        name = quote_name(self.address.database, self.quote)
        try:
            connection = await connect(self.address, self.limits, database=False)
            try:
                await connection.query(
                    f"CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
                )
            finally:
                connection.close()
        except pymysql.MySQLError as exc:
            if error_code(exc) in _NO_RIGHT:
                raise InvalidSetting(
                    f"store {url} is not there, and this user may not make it: have somebody run "
                    f"CREATE DATABASE {name} CHARACTER SET utf8mb4, and grant rights on it"
                ) from exc
            raise mysql_error(exc, f"store {url}") from exc

    async def exists(self, url: StoreUrl) -> bool:
        """Whether the server has the database and lets this user use it."""
        try:
            (await connect(self.address, self.limits)).close()
        except pymysql.MySQLError as exc:
            if error_code(exc) == _UNKNOWN_DATABASE:
                return False
            raise mysql_error(exc, f"store {url}") from exc
        return True

    def name_type(self, length: int = 255) -> TypeEngine[Any]:
        """VARBINARY, in which names keep their case and their spaces."""
        return ExactText(length)

    def text_type(self) -> TypeEngine[Any]:
        """LONGTEXT: a TEXT ends after 64 KiB."""
        return mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin")

    def after(self, columns: Sequence[sa.ColumnElement[Any]], key: Sequence[Any]) -> sa.ColumnElement[bool]:
        """Words of AND and OR, one for each column: the form in which all three engines seek."""
        parts = [
            sa.and_(*(column == part for column, part in zip(columns[:at], key[:at], strict=True)), last > key[at])
            for at, last in enumerate(columns)
        ]
        return sa.or_(*parts)

    def key_type(self, key: ValueType) -> TypeEngine[Any]:
        """VARBINARY for text and bytes, whose comparison is of exact bytes."""
        if key.kind is Kind.STRING:
            return ExactText(255)
        return mysql.VARBINARY(255) if key.kind is Kind.BYTES else sa.BigInteger()

    def value_type(self, value: ValueType) -> TypeEngine[Any]:
        """The plain form's type; FLOAT as DOUBLE, because FLOAT is written and read in too few digits."""
        match value.kind:
            case Kind.BOOLEAN:
                return sa.Boolean()
            case Kind.INT | Kind.LONG | Kind.DATE | Kind.TIMESTAMP_MILLIS | Kind.TIMESTAMP_MICROS:
                return sa.BigInteger()
            case Kind.FLOAT | Kind.DOUBLE:
                return mysql.DOUBLE(asdecimal=False)
            case Kind.BYTES:
                return mysql.LONGBLOB()
        return self.text_type()

    def binary_type(self, length: int | None = None) -> TypeEngine[Any]:
        """VARBINARY where it is indexed."""
        return mysql.LONGBLOB() if length is None else mysql.VARBINARY(length)

    def insert_or_keep(self, first_key: str) -> str:
        """An update that changes nothing; INSERT IGNORE would make garbage of values that do not fit."""
        return f"ON DUPLICATE KEY UPDATE {first_key} = {first_key}"

    def upsert_where_greater(self, key: str, value: str, version: str, comparison: str) -> str:
        """The version is assigned last: assignments see those before them."""
        newer = f"VALUES({version}) {comparison} {version}"
        return "ON DUPLICATE KEY UPDATE " + ", ".join(
            f"{each} = IF({newer}, VALUES({each}), {each})" for each in (value, version)
        )

    async def insert(self, connection: AsyncConnection, statement: InsertText, rows: Sequence[tuple[Any, ...]]) -> int:
        """Many rows in one statement: one by one, every row would be a round trip. Tells no count."""
        try:
            for sql in insert_statements(statement, rows):
                await connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
        except DBAPIError as exc:
            exc.statement = statement.of_one_row  # the other one holds all values
            raise
        return -1

    @asynccontextmanager
    async def catalog_lock(self, connection: AsyncConnection) -> AsyncIterator[None]:
        """A lock of the session's by name, which DDL, that commits, does not end."""
        name = f"{_CATALOG_LOCK} {self.address.database}"[:64]
        wait_s = self.limits.lock_wait_s
        if await connection.scalar(sa.select(sa.func.get_lock(name, wait_s))) != 1:
            raise StoreUnavailable(
                f"database {self.address.database!r}: another `oomstream apply` has been changing definitions for "
                f"{wait_s} s: wait for its end"
            )
        try:
            yield
        finally:
            # A connection that is lost has lost the lock too.
            with suppress(SQLAlchemyError):
                await connection.execute(sa.select(sa.func.release_lock(name)))

    def default_text(self, value: bool | int | float | str | bytes) -> str | None:
        """A number in quotes (SQLAlchemy takes anything else for an expression, which TiDB does not allow).

        None for text and bytes: TiDB and MySQL give columns of any length no defaults.
        """
        if isinstance(value, str | bytes):
            return None
        return f"'{value!r}'" if isinstance(value, float) else f"'{literal(value)}'"

    def columns_text(self, table: str) -> str:
        """From the information schema; the name goes in as the bytes of its text."""
        name = f"CONVERT({literal(table.encode())} USING utf8mb4)"
        return (
            "SELECT COLUMN_NAME, LOWER(DATA_TYPE), NUMERIC_PRECISION, NUMERIC_SCALE FROM information_schema.COLUMNS "  # noqa: S608
            f"WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {name}"
        )

    def linked_key(self, column: StoredColumn, quoted: str, kind: ValueType) -> str | None:
        """Text by its bytes, whatever the column's collation."""
        return mysql_key(column, quoted, kind)

    def linked_value(self, column: StoredColumn, quoted: str, kind: ValueType) -> str | None:
        """By the column's type."""
        return mysql_value(column, quoted, kind)

    def misfit(self, expression: str, kind: ValueType, *, key: bool) -> str:
        """By ranges and lengths."""
        return mysql_misfit(expression, kind, key=key)

    def is_duplicate(self, exc: BaseException) -> bool:
        """By the error's number."""
        return error_code(exc) == _DUPLICATE

    def error(self, exc: BaseException, where: str, url: StoreUrl) -> OomstreamError:
        """What the error's number means."""
        return mysql_error(exc, where)

    def cut(self, place: CutPlace) -> AbstractAsyncContextManager[Cut]:
        """On TiDB through ConnectorX, elsewhere on one connection."""
        from oomstream.stores.sql.mysql_reads import mysql_cut

        return mysql_cut(self, place)

    def online_reader(self, url: StoreUrl, where: str) -> OnlineReader | None:
        """None."""
        return None
