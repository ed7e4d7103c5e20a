"""Retention in an SQL database: what `oomstream.stores.retention` describes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from oomstream.schemas.groups import FeatureGroup
from oomstream.stores.base import HistoryRow
from oomstream.stores.retention import RetentionStore
from oomstream.stores.sql.database import Database
from oomstream.stores.sql.dialects import Dialect
from oomstream.stores.sql.tables import HistoryTable, MetaTables

HORIZON_COUNTER = "history horizon "
"""Kind, before the group's id, of the number that says from when on a group's history is whole."""

_ENTITIES_PER_STATEMENT = 100
_ROWS_PER_TRANSACTION = 5_000


class SqlRetentionStore(RetentionStore):
    """Horizons, and removing what is older, in one SQL database."""

    _database: Database
    _dialect: Dialect
    _tables: MetaTables

    @abstractmethod
    def _table(self, group: FeatureGroup) -> HistoryTable: ...

    async def raise_horizon(self, group: FeatureGroup, age_us: int) -> int:
        """One row among the counters, which the catalog is read with."""
        counter, kind = self._tables.counter, f"{HORIZON_COUNTER}{group.id}"

        async def write(connection: AsyncConnection) -> int:
            now_us = await connection.scalar(sa.select(sa.literal_column(self._dialect.clock, sa.BigInteger)))
            assert now_us is not None
            stored = await connection.scalar(sa.select(counter.c.value).where(counter.c.kind == kind).with_for_update())
            horizon_us = int(now_us) - age_us
            if stored is None:
                await connection.execute(sa.insert(counter).values(kind=kind, value=horizon_us))
            elif stored < horizon_us:
                await connection.execute(sa.update(counter).where(counter.c.kind == kind).values(value=horizon_us))
            return max(horizon_us, stored or horizon_us)

        return await self._database.transact(write)

    async def prune(self, group: FeatureGroup, newest: Sequence[HistoryRow], before_us: int) -> int:
        """By the primary key: a statement for some entities at a time."""
        table = self._table(group)
        removed = 0
        for at in range(0, len(newest), _ENTITIES_PER_STATEMENT):
            some = newest[at : at + _ENTITIES_PER_STATEMENT]
            remove = self._removal(table, sa.or_(*(_older(table, row, before_us) for row in some)))
            while count := (await self._database.transact(remove)).rowcount:
                removed += count
                if count < _ROWS_PER_TRANSACTION:
                    break
        return removed

    def _removal(
        self, table: HistoryTable, rows: sa.ColumnElement[bool]
    ) -> Callable[[AsyncConnection], Awaitable[Any]]:
        # A server's transaction is bounded; SQLite knows no limit here, and needs none.
        limit = {} if self._dialect.one_writer else {"mysql_limit": _ROWS_PER_TRANSACTION}
        statement = sa.delete(table.table).where(rows).with_dialect_options(**limit)
        return lambda connection: connection.execute(statement)


def _older(table: HistoryTable, newest: HistoryRow, before_us: int) -> sa.ColumnElement[bool]:
    """The rows of one entity that are to go."""
    own = table.table.c
    mine = [column == part for column, part in zip(table.keys, newest.key, strict=True)]
    old = own["_event_time"] < before_us
    if newest.deleted or newest.event_time_us >= before_us:
        return sa.and_(*mine, old)
    is_newest = sa.and_(
        own["_event_time"] == newest.event_time_us,
        own["_source"] == newest.source_id,
        own["_sequence"] == newest.sequence,
    )
    return sa.and_(*mine, old, sa.not_(is_newest))
