"""Which (source, sequence) identities a history table has, by its index on the two."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from oomstream.stores.base import HistoryRow
from oomstream.stores.sql.tables import HistoryTable

_SEQUENCES_PER_STATEMENT = 1_000


async def stored_sequences(
    connection: AsyncConnection, table: HistoryTable, source_id: int, sequences: Collection[int]
) -> set[int]:
    """Those of the sequences that have a row."""
    sequence = table.table.c["_sequence"]
    return {row[0] async for row in _found(connection, table, [sequence], source_id, sequences)}


async def rows_at(
    connection: AsyncConnection, table: HistoryTable, source_id: int, sequences: Collection[int]
) -> list[HistoryRow]:
    """Rows of those sequences that have one, by sequence."""
    return [table.history_row(row) async for row in _found(connection, table, table.columns, source_id, sequences)]


async def _found(
    connection: AsyncConnection,
    table: HistoryTable,
    columns: list[sa.Column[Any]],
    source_id: int,
    sequences: Collection[int],
) -> AsyncIterator[sa.Row[Any]]:
    own = table.table.c
    wanted = sorted(set(sequences))
    for at in range(0, len(wanted), _SEQUENCES_PER_STATEMENT):
        some = own["_sequence"].in_(wanted[at : at + _SEQUENCES_PER_STATEMENT])
        query = sa.select(*columns).where(own["_source"] == source_id, some).order_by(own["_sequence"])
        for row in await connection.execute(query):
            yield row
