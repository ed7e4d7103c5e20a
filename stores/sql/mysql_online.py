"""Online rows in TiDB, MySQL and MariaDB: what differs from the store on SQLite.

Their primary keys hold 3,072 bytes at most, and an encoded entity key of eight parts may have 4,117 (all NULs). A key
too long is stored as its first bytes and its SHA-256, and the rest of it beside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from oomstream.schemas.online_value import OnlineRow, packed_version
from oomstream.stores.crash_points import reach
from oomstream.stores.sql.dialects import InsertText
from oomstream.stores.sql.online import ONLINE_KEY_BYTES, SqlOnlineStore, prefix_end

_DIGEST_BYTES = hashlib.sha256().digest_size
_HEAD_BYTES = ONLINE_KEY_BYTES - _DIGEST_BYTES
_KEYS_PER_STATEMENT = 500


class MysqlOnlineStore(SqlOnlineStore):
    """The newest value per entity in a database on a server."""

    def _upsert_text(self, comparison: str) -> InsertText:
        plain = super()._upsert_text(comparison)
        head = plain.head.replace(") VALUES", ", `key_rest`) VALUES")
        return InsertText(head, "(%s, %s, %s, %s)", plain.tail)

    def _online_columns(self) -> list[sa.Column[bytes]]:
        return [*super()._online_columns(), sa.Column("key_rest", self._dialect.binary_type(), nullable=True)]

    async def upsert_newer(self, rows: Sequence[OnlineRow], *, or_equal: bool = False) -> int:
        """One transaction: the rows that are newer than what is stored, then an upsert that compares once more.

        The server does not tell how many rows an upsert changed. Rows are counted before it, so that a row that
        another writer makes newer in between is counted although it is not written.
        """
        if not rows:
            return 0
        stored_form = {row.key: _stored(row.key) for row in rows}
        ordered = sorted(rows, key=lambda row: stored_form[row.key][0])
        statement = self._upsert[">=" if or_equal else ">"]

        async def write(connection: AsyncConnection) -> int:
            versions = await self._versions(connection, [stored_form[row.key][0] for row in ordered])
            parameters = []
            for row in ordered:
                key, rest = stored_form[row.key]
                version, known = packed_version(row.value), versions.get(key)
                if known is None or version > known or (or_equal and version == known):
                    parameters.append((key, version, row.value, rest))
            if parameters:
                await self._dialect.insert(connection, statement, parameters)
            reach("in_online_batch")
            return len(parameters)

        return await self._database.transact(write)

    async def _versions(self, connection: AsyncConnection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        table = self._online
        found: dict[bytes, bytes] = {}
        for part in _parts(keys):
            query = sa.select(table.c.key, table.c.version).where(table.c.key.in_(part))
            found.update((bytes(key), bytes(version)) for key, version in await connection.execute(query))
        return found

    async def _read_by_engine(self, keys: Sequence[bytes]) -> list[bytes | None]:
        table = self._online
        asked = [_stored(key)[0] for key in keys]
        found: dict[bytes, bytes] = {}
        async with self._database.read() as connection:
            for part in _parts(list(dict.fromkeys(asked))):
                query = sa.select(table.c.key, table.c.value).where(table.c.key.in_(part))
                found.update((bytes(key), bytes(value)) for key, value in await connection.execute(query))
        return [found.get(key) for key in asked]

    async def scan(self, prefix: bytes, *, after: bytes | None = None, limit: int = 1000) -> list[OnlineRow]:
        """Rows in key order; of keys too long for the primary key that begin alike, in the order of their SHA-256."""
        table = self._online
        query = sa.select(table.c.key, table.c.key_rest, table.c.value).order_by(table.c.key).limit(limit)
        if after is not None and after >= prefix:
            query = query.where(table.c.key > _stored(after)[0])
        else:
            query = query.where(table.c.key >= prefix[:_HEAD_BYTES])
        if (end := prefix_end(prefix[:_HEAD_BYTES])) is not None:
            query = query.where(table.c.key < end)
        async with self._database.read() as connection:
            rows = [OnlineRow(_original(*row[:2]), bytes(row[2])) for row in await connection.execute(query)]
        return [row for row in rows if row.key.startswith(prefix)]

    def _stored_key(self, key: bytes) -> bytes:
        return _stored(key)[0]

    async def delete(self, keys: Sequence[bytes]) -> None:
        """Remove rows; one transaction."""
        stored = sorted({_stored(key)[0] for key in keys})

        async def remove(connection: AsyncConnection) -> None:
            for part in _parts(stored):
                await connection.execute(sa.delete(self._online).where(self._online.c.key.in_(part)))

        if stored:
            await self._database.transact(remove)


def _stored(key: bytes) -> tuple[bytes, bytes | None]:
    """Primary key and rest of a key; only the primary keys of keys too long have `ONLINE_KEY_BYTES`."""
    if len(key) < ONLINE_KEY_BYTES:
        return key, None
    return key[:_HEAD_BYTES] + hashlib.sha256(key).digest(), key[_HEAD_BYTES:]


def _original(key: bytes, rest: bytes | None) -> bytes:
    return bytes(key) if rest is None else bytes(key[:_HEAD_BYTES]) + bytes(rest)


def _parts(keys: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    return (keys[at : at + _KEYS_PER_STATEMENT] for at in range(0, len(keys), _KEYS_PER_STATEMENT))
