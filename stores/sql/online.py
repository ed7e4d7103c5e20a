"""Online rows in an SQL database: one table of key, version and value."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from oomstream.schemas.errors import InvalidSetting, StoreUnavailable
from oomstream.schemas.online_value import VERSION_END, VERSION_START, OnlineRow, packed_version
from oomstream.schemas.versions import VERSION_BYTES
from oomstream.stores.base import OnlineChange, OnlineStore
from oomstream.stores.crash_points import reach
from oomstream.stores.settings import Settings
from oomstream.stores.sql.database import Database
from oomstream.stores.sql.dialects import Clock, InsertText, OnlineReader, dialect_of
from oomstream.stores.sql.tables import make_missing
from oomstream.stores.sql.text import quote_name
from oomstream.stores.urls import StoreUrl

_PAIRING = "pairing_id"
ONLINE_KEY_BYTES = 3000
"""Length of the key column, on engines that want one."""

_INLINE_KEYS = 64
"""So few keys are read without leaving the event loop: a thread's hand-over would cost more than the read."""


class SqlOnlineStore(OnlineStore):
    """The newest value per entity in an SQL database; for SQLite, a file.

    Used from one event loop, but `read_sync` from any thread. The upsert compares versions inside the statement, so
    it is atomic per row; one call is one transaction.
    """

    def __init__(self, url: str, settings: Settings, *, clock: Clock | None = None) -> None:
        parsed = StoreUrl.parse(url)
        self.url = str(parsed)
        self._dialect = dialect_of(parsed, settings, clock)
        self.one_writer = self._dialect.one_writer
        self._database = Database(
            parsed, self._dialect, what="online store", call_timeout_s=settings.call_timeout_us / 1e6
        )
        self._reader: OnlineReader | None = None
        self._meta, self._online = self._tables()
        self._upsert = {comparison: self._upsert_text(comparison) for comparison in (">", ">=")}

    def _tables(self) -> tuple[sa.Table, sa.Table]:
        metadata, dialect = sa.MetaData(), self._dialect
        meta = sa.Table(
            "meta",
            metadata,
            sa.Column("name", dialect.name_type(), primary_key=True),
            sa.Column("value", dialect.text_type(), nullable=False),
        )
        return meta, sa.Table("online", metadata, *self._online_columns(), sqlite_with_rowid=False)

    def _online_columns(self) -> list[sa.Column[bytes]]:
        binary = self._dialect.binary_type
        return [
            sa.Column("key", binary(ONLINE_KEY_BYTES), primary_key=True),
            sa.Column("version", binary(VERSION_BYTES), nullable=False),
            sa.Column("value", binary(), nullable=False),
        ]

    def _upsert_text(self, comparison: str) -> InsertText:
        key, version, value = (quote_name(each, self._dialect.quote) for each in ("key", "version", "value"))
        table = quote_name("online", self._dialect.quote)
        places = ", ".join([self._dialect.parameter] * 3)
        newer = self._dialect.upsert_where_greater(key, value, version, comparison)
        return InsertText(f"INSERT INTO {table} ({key}, {version}, {value}) VALUES", f"({places})", newer)

    async def open(self) -> None:
        """Connect, if the database is there."""
        await self._database.open()
        if self._reader is None:
            self._reader = self._dialect.online_reader(self._database.url, self._database.where)

    async def close(self) -> None:
        """Give back every connection."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
        await self._database.close()

    async def init(self) -> None:
        """Make the database and its tables."""
        await self._database.create()
        metadata = self._meta.metadata
        await self._database.transact(lambda connection: connection.run_sync(make_missing, metadata), calls=5)

    async def pairing_id(self) -> str | None:
        """UUID of the history database that these rows belong to."""
        if not await self._database.exists():
            return None
        try:
            async with self._database.read() as connection:
                found = await connection.scalar(sa.select(self._meta.c.value).where(self._meta.c.name == _PAIRING))
        except InvalidSetting:
            return None
        return None if found is None else str(found)

    async def pair(self, pairing_id: str) -> None:
        """Remember the history database."""

        async def write(connection: AsyncConnection) -> None:
            await connection.execute(sa.delete(self._meta).where(self._meta.c.name == _PAIRING))
            await connection.execute(sa.insert(self._meta).values(name=_PAIRING, value=pairing_id))

        await self._database.transact(write)

    async def upsert_newer(self, rows: Sequence[OnlineRow], *, or_equal: bool = False) -> int:
        """One transaction; rows in key order, so that the tree is walked once and writers meet in one order."""
        if not rows:
            return 0
        parameters = [(key, value[VERSION_START:VERSION_END], value) for key, value in sorted(rows)]
        statement = self._upsert[">=" if or_equal else ">"]

        async def write(connection: AsyncConnection) -> int:
            written = await self._dialect.insert(connection, statement, parameters)
            reach("in_online_batch")
            return written

        # Those of one batch are of one group, and so about as long; eight bytes are about a value.
        values = len(rows) * (2 + len(rows[0].value) // 8)
        return await self._database.transact(write, shared=True, values=values)

    async def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of the keys, all of one moment; few keys are read without leaving the event loop."""
        if self._reader is None:
            return await self._read_by_engine(keys)
        if len(keys) <= _INLINE_KEYS:
            try:
                return self._reader.read(keys)
            except StoreUnavailable:
                pass  # locked just now: wait for it, but not on the event loop
        return await asyncio.to_thread(self._reader.read, keys, self._database.call_timeout_s)

    def read_sync(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What `read` does, for callers without an event loop; from any thread.

        Raises:
            InvalidSetting: The store is not open, or its engine can only be read with an event loop.
            StoreUnavailable: The store cannot be read.
        """
        if self._reader is None:
            raise InvalidSetting(f"{self._database.where} is not open: use it inside 'with'")
        return self._reader.read(keys, self._database.call_timeout_s)

    async def _read_by_engine(self, keys: Sequence[bytes]) -> list[bytes | None]:
        table = self._online
        async with self._database.read() as connection:
            found = await connection.execute(sa.select(table.c.key, table.c.value).where(table.c.key.in_(keys)))
            values = {bytes(row[0]): bytes(row[1]) for row in found}
        return [values.get(key) for key in keys]

    async def scan(self, prefix: bytes, *, after: bytes | None = None, limit: int = 1000) -> list[OnlineRow]:
        """Rows in key order."""
        table = self._online
        query = sa.select(table.c.key, table.c.value).order_by(table.c.key).limit(limit)
        query = (
            query.where(table.c.key > after)
            if after is not None and after >= prefix
            else query.where(table.c.key >= prefix)
        )
        end = prefix_end(prefix)
        if end is not None:
            query = query.where(table.c.key < end)
        async with self._database.read() as connection:
            return [OnlineRow(bytes(key), bytes(value)) for key, value in await connection.execute(query)]

    async def replace(self, changes: Sequence[OnlineChange]) -> int:
        """One transaction, in key order; the bytes are compared inside each statement."""
        table, key, version, value = (
            quote_name(each, self._dialect.quote) for each in ("online", "key", "version", "value")
        )
        place = self._dialect.parameter
        same = f"WHERE {key} = {place} AND {value} = {place}"
        update = f"UPDATE {table} SET {version} = {place}, {value} = {place} {same}"  # noqa: S608 - our own names
        remove = f"DELETE FROM {table} {same}"  # noqa: S608 - our own names
        ordered = sorted((self._stored_key(each.key), each) for each in changes)
        updates = [
            (packed_version(each.value), each.value, stored_key, each.found)
            for stored_key, each in ordered
            if each.value is not None
        ]
        removals = [(stored_key, each.found) for stored_key, each in ordered if each.value is None]

        async def write(connection: AsyncConnection) -> int:
            changed = 0
            for statement, rows in ((update, updates), (remove, removals)):
                if rows:
                    changed += (await connection.exec_driver_sql(statement, list(rows))).rowcount
            return changed

        return await self._database.transact(write) if changes else 0

    def _stored_key(self, key: bytes) -> bytes:
        """What stands in the key column."""
        return key

    async def delete(self, keys: Sequence[bytes]) -> None:
        """Remove rows; one transaction."""
        if not keys:
            return
        table, key = (quote_name(each, self._dialect.quote) for each in ("online", "key"))
        sql = f"DELETE FROM {table} WHERE {key} = {self._dialect.parameter}"  # noqa: S608 - our own names
        async with self._database.write() as connection:
            await connection.exec_driver_sql(sql, [(each,) for each in sorted(keys)])


def prefix_end(prefix: bytes) -> bytes | None:
    """The first key that does not begin with `prefix`; None if every greater key does."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None
