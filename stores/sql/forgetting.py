"""Forgetting entities in an SQL database: what `oomstream.stores.forgetting` describes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from oomstream.schemas.events import Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.stores.forgetting import ForgettingStore, HeldKey, Mark, key_hash
from oomstream.stores.revisions import Revision
from oomstream.stores.sql.database import Database
from oomstream.stores.sql.dialects import Dialect
from oomstream.stores.sql.revision_tables import RevisionTable
from oomstream.stores.sql.sources import FORGET_COUNTER, next_id
from oomstream.stores.sql.tables import HistoryTable, MetaTables

_ROWS_PER_TRANSACTION = 5_000
_KEYS_PER_STATEMENT = 100


class SqlForgettingStore(ForgettingStore):
    """Marks, and erasing what they are about, in one SQL database."""

    _database: Database
    _dialect: Dialect
    _tables: MetaTables

    @abstractmethod
    def _table(self, group: FeatureGroup) -> HistoryTable: ...

    @abstractmethod
    async def pairing_id(self) -> str | None:
        """The installation's UUID."""

    async def forget(self, entity: str, keys: Sequence[bytes], *, not_before_us: int = 0, hold_s: float = 0.0) -> int:
        """Marks of one moment; the counter's row is locked first, and read by every transaction that writes rows."""
        pairing_id = await self.pairing_id()
        assert pairing_id is not None

        async def write(connection: AsyncConnection) -> int:
            now_us = await connection.scalar(sa.select(sa.literal_column(self._dialect.clock, sa.BigInteger)))
            assert now_us is not None
            time_us, until_us = max(int(now_us), not_before_us), int(now_us) + int(hold_s * 1e6)
            for key in dict.fromkeys(keys):
                number = await next_id(connection, self._tables, FORGET_COUNTER)
                hashed = key_hash(pairing_id, entity, key)
                await _put(connection, self._tables.forgotten, entity, hashed, number=number, time=time_us)
                await _put(connection, self._tables.forgotten_key, entity, hashed, entity_key=key, held_until=until_us)
            return time_us

        return await self._database.transact(write)

    async def held_keys(self, *, due: bool = True) -> list[HeldKey]:
        """Keys that are still kept, the oldest first."""
        held = self._tables.forgotten_key
        query = sa.select(held.c.entity, held.c.entity_key, held.c.held_until)
        query = query.order_by(held.c.held_until, held.c.key_hash)
        if due:
            query = query.where(held.c.held_until <= sa.literal_column(self._dialect.clock, sa.BigInteger))
        async with self._database.read() as connection:
            return [HeldKey(*row) for row in await connection.execute(query)]

    async def release_keys(self, keys: Sequence[HeldKey]) -> None:
        """Rows of the times that the caller knows."""
        pairing_id = await self.pairing_id()
        assert pairing_id is not None
        held = self._tables.forgotten_key

        async def remove(connection: AsyncConnection) -> None:
            for each in keys:
                hashed = key_hash(pairing_id, each.entity, each.key)
                mine = (held.c.entity == each.entity, held.c.key_hash == hashed, held.c.held_until == each.until_us)
                await connection.execute(sa.delete(held).where(*mine))

        await self._database.transact(remove)

    async def marks(self, after: int = 0) -> list[Mark]:
        """Marks with a greater number."""
        forgotten = self._tables.forgotten
        columns = (forgotten.c.number, forgotten.c.entity, forgotten.c.key_hash, forgotten.c.time)
        query = sa.select(*columns).where(forgotten.c.number > after).order_by(forgotten.c.number)
        async with self._database.read() as connection:
            return [Mark(*row) for row in await connection.execute(query)]

    async def settle(self) -> None:
        """Every transaction that writes rows holds its source's row from its first statement on: lock each once."""
        source = self._tables.source
        async with self._database.read() as connection:
            ids = (await connection.scalars(sa.select(source.c.id))).all()

        def lock(source_id: int) -> Callable[[AsyncConnection], Awaitable[Any]]:
            query = sa.select(source.c.id).where(source.c.id == source_id).with_for_update()
            return lambda connection: connection.execute(query)

        for source_id in ids[:1] if self._dialect.one_writer else ids:
            await self._database.transact(lock(source_id))

    async def erase(self, group: FeatureGroup, key: tuple[Plain, ...], until_us: int) -> int:
        """Rows by the primary key, a few thousand in a transaction."""
        table = self._table(group)
        time = table.table.c["_event_time"]
        mine = sa.and_(*(column == part for column, part in zip(table.keys, key, strict=True)), time <= until_us)

        async def remove(connection: AsyncConnection) -> int:
            part = sa.select(time).where(mine).order_by(time).offset(_ROWS_PER_TRANSACTION).limit(1)
            end = await connection.scalar(part)
            some = mine if end is None else sa.and_(mine, time <= end)
            return (await connection.execute(sa.delete(table.table).where(some))).rowcount

        erased = 0
        while removed := await self._database.transact(remove):
            erased += removed
        return erased

    async def erase_from_revision(
        self, group: FeatureGroup, revision: Revision, keys: Sequence[tuple[Plain, ...]]
    ) -> int:
        """Rows by the primary key."""
        if revision.linked:
            return 0
        table = RevisionTable(group, revision.table, self._dialect).table
        columns = [table.c[name] for name in group.key_names]

        def remove(some: Sequence[tuple[Plain, ...]]) -> Callable[[AsyncConnection], Awaitable[Any]]:
            any_of = [sa.and_(*(column == part for column, part in zip(columns, key, strict=True))) for key in some]
            return lambda connection: connection.execute(sa.delete(table).where(sa.or_(*any_of)))

        erased = 0
        for at in range(0, len(keys), _KEYS_PER_STATEMENT):
            erased += (await self._database.transact(remove(keys[at : at + _KEYS_PER_STATEMENT]))).rowcount
        return erased


async def _put(connection: AsyncConnection, table: sa.Table, entity: str, hashed: bytes, **values: Any) -> None:
    mine = (table.c.entity == entity, table.c.key_hash == hashed)
    if (await connection.execute(sa.update(table).where(*mine).values(**values))).rowcount == 0:
        await connection.execute(sa.insert(table).values(entity=entity, key_hash=hashed, **values))
