"""The row of greatest version per entity: found by event time in SQL, ties decided here.

Rows of equal event time are few, so that the order of kind, source and sequence can be left to Python, and SQL only
has to seek the latest event time of an entity, which is the end of a range of the primary key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from oomstream.schemas.events import Plain
from oomstream.schemas.versions import Version
from oomstream.stores.base import HistoryRow
from oomstream.stores.sql.tables import HistoryTable, MetaTables

_KEYS_PER_STATEMENT = 400  # SQLite allows 500 parts of a UNION ALL


async def newest_of(
    connection: AsyncConnection, table: HistoryTable, tables: MetaTables, keys: Sequence[tuple[Plain, ...]]
) -> list[HistoryRow | None]:
    """The newest row of each key, in the order asked; None where there is none."""
    kinds = await _kinds(connection, tables)
    found: dict[tuple[Plain, ...], HistoryRow] = {}
    distinct = list(dict.fromkeys(keys))
    for at in range(0, len(distinct), _KEYS_PER_STATEMENT):
        query = _of_keys(table, distinct[at : at + _KEYS_PER_STATEMENT])
        for row in _greatest(map(table.history_row, await connection.execute(query)), kinds):
            found[row.key] = row
    return [found.get(key) for key in keys]


async def newest_page(
    connection: AsyncConnection,
    table: HistoryTable,
    tables: MetaTables,
    after: tuple[Plain, ...] | None,
    limit: int,
) -> list[HistoryRow]:
    """The newest row of `limit` entities in key order, from the first key greater than `after`."""
    kinds = await _kinds(connection, tables)
    own = table.table.c
    latest = sa.select(*table.keys, sa.func.max(own["_event_time"]).label("latest")).group_by(*table.keys)
    if after is not None:
        latest = latest.where(table.dialect.after(table.keys, after))
    page = latest.order_by(*table.keys).limit(limit).subquery("page")
    same_key = [column == page.c[column.name] for column in table.keys]
    query = (
        sa.select(*table.columns)
        .join_from(page, table.table, sa.and_(*same_key, own["_event_time"] == page.c.latest))
        .order_by(*table.keys)
        .prefix_with(_seek_hint(table), dialect="mysql")
    )
    return _greatest(map(table.history_row, await connection.execute(query)), kinds)


async def _kinds(connection: AsyncConnection, tables: MetaTables) -> dict[int, int]:
    rows = await connection.execute(sa.select(tables.source.c.id, tables.source.c.kind))
    return {row.id: row.kind for row in rows}


def _of_keys(table: HistoryTable, keys: Sequence[tuple[Plain, ...]]) -> sa.Select[Any]:
    one = table.table.alias("one")
    wanted = sa.union_all(*(_latest_of(table, one, key) for key in keys)).subquery("wanted")
    same_key = [column == wanted.c[f"wanted_{column.name}"] for column in table.keys]
    same_time = table.table.c["_event_time"] == wanted.c.latest
    query = sa.select(*table.columns).join_from(wanted, table.table, sa.and_(*same_key, same_time))
    return query.prefix_with(_seek_hint(table), dialect="mysql")


def _latest_of(table: HistoryTable, one: sa.FromClause, key: tuple[Plain, ...]) -> sa.Select[Any]:
    """One key and its latest event time, sought by constants: TiDB would turn a correlated subquery into a scan."""
    parts = [
        sa.bindparam(None, part, type_=column.type, unique=True) for column, part in zip(table.keys, key, strict=True)
    ]
    of_key = [one.c[column.name] == part for column, part in zip(table.keys, parts, strict=True)]
    latest = sa.select(sa.func.max(one.c["_event_time"])).where(*of_key).scalar_subquery()
    labelled = [part.label(f"wanted_{column.name}") for column, part in zip(table.keys, parts, strict=True)]
    return sa.select(*labelled, latest.label("latest"))


def _seek_hint(table: HistoryTable) -> str:
    """TiDB's optimizer hint to seek in the history table rather than to hash all of it; MySQL and MariaDB ignore it."""
    return f"/*+ INL_JOIN({table.quoted(table.name)}) */"


def _greatest(rows: Iterable[HistoryRow], kinds: dict[int, int]) -> list[HistoryRow]:
    newest: dict[tuple[Plain, ...], tuple[Version, HistoryRow]] = {}
    for row in rows:
        version = Version(row.event_time_us, kinds[row.source_id], row.source_id, row.sequence)
        kept = newest.get(row.key)
        if kept is None or version > kept[0]:
            newest[row.key] = (version, row)
    return [row for _, row in newest.values()]
