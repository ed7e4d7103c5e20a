"""Scans of history at one cut, as Arrow tables in order of the primary key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from oomstream.schemas.events import Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.types import Kind, ValueType
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import Cut
from oomstream.stores.sql.dialects import CutReader, Dialect
from oomstream.stores.sql.tables import HistoryTable, MetaTables

if TYPE_CHECKING:
    import pyarrow as pa


async def sql_cut(
    reader: CutReader, tables: MetaTables, dialect: Dialect, table_of: Callable[[FeatureGroup], HistoryTable]
) -> Cut:
    """A cut on a read transaction that has just begun; its first statement fixes the moment."""
    source = tables.source
    now: sa.Select[Any] = sa.select(sa.literal_column(dialect.clock))
    kinds = await reader.rows(_text(sa.select(source.c.id, source.c.kind), dialect))
    [(now_us,)] = await reader.rows(_text(now, dialect))
    return _SqlCut(reader, dialect, table_of, now_us, {row[0]: SourceKind(row[1]) for row in kinds})


class _SqlCut(Cut):
    def __init__(
        self,
        reader: CutReader,
        dialect: Dialect,
        table_of: Callable[[FeatureGroup], HistoryTable],
        now_us: int,
        kinds: dict[int, SourceKind],
    ) -> None:
        self.now_us = now_us
        self.kinds = kinds
        self._reader = reader
        self._dialect = dialect
        self._table_of = table_of

    async def scan(
        self,
        group: FeatureGroup,
        features: Sequence[str],
        *,
        keys: Sequence[tuple[Plain, ...]] | None = None,
        min_event_time_us: int | None = None,
        max_event_time_us: int | None = None,
        max_ingest_time_us: int | None = None,
        batch_rows: int = 100_000,
    ) -> AsyncIterator[pa.Table]:
        """Rows of a group in order of the primary key."""
        table = self._table_of(group)
        sql, parameters = await self._statement(table, features, keys)
        limits = (
            ("_event_time", ">=", min_event_time_us),
            ("_event_time", "<=", max_event_time_us),
            ("_ingest_time", "<=", max_ingest_time_us),
        )
        for column, comparison, limit in limits:
            if limit is not None:
                sql += f" AND h.{table.quoted(column)} {comparison} {self._dialect.parameter}"
                parameters.append(limit)
        if keys is None or len(keys):
            sql += " ORDER BY " + self._order(table, keys)
            schema = scan_schema(group, features)
            async for batch in self._reader.tables(sql, parameters, schema, batch_rows):
                yield without_values_of_deletes(batch, len(features))

    async def _statement(
        self, table: HistoryTable, features: Sequence[str], keys: Sequence[tuple[Plain, ...]] | None
    ) -> tuple[str, list[Any]]:
        names = [*table.group.key_names, "_event_time", "_source", "_sequence", "_ingest_time", "_deleted", *features]
        columns = ", ".join(f"h.{table.quoted(name)}" for name in names)
        stored = f"{table.quoted(table.name)} AS h"
        if not keys:
            return f"SELECT {columns} FROM {stored} WHERE 1 = 1", []  # noqa: S608 - quoted names
        quoted = [table.quoted(name) for name in table.group.key_names]
        wanted = await self._reader.fill_wanted(quoted, keys)
        same_key = " AND ".join(f"h.{name} = w.{name}" for name in quoted)
        # CROSS JOIN: SQLite then keeps the order of the tables, and so walks the keys in the order of both.
        return f"SELECT {columns} FROM {wanted} AS w CROSS JOIN {stored} WHERE {same_key}", []  # noqa: S608

    def _order(self, table: HistoryTable, keys: Sequence[tuple[Plain, ...]] | None) -> str:
        by = "w" if keys else "h"
        parts = [f"{by}.{table.quoted(name)}" for name in table.group.key_names]
        return ", ".join([*parts, *(f"h.{table.quoted(each)}" for each in ("_event_time", "_source", "_sequence"))])


def scan_schema(group: FeatureGroup, features: Sequence[str]) -> pa.Schema:
    """Arrow schema of a scan: every value in plain form."""
    import pyarrow as pa

    fields = [pa.field(key.name, _plain_arrow(key.type)) for key in group.keys]
    fields += [pa.field(name, pa.int64()) for name in ("_event_time", "_source", "_sequence", "_ingest_time")]
    fields.append(pa.field("_deleted", pa.bool_()))
    by_name = {feature.name: feature.type for feature in group.features}
    return pa.schema(fields + [pa.field(name, _plain_arrow(by_name[name])) for name in features])


def _plain_arrow(kind: ValueType) -> pa.DataType:
    import pyarrow as pa

    match kind.kind:
        case Kind.BOOLEAN:
            return pa.bool_()
        case Kind.INT | Kind.LONG | Kind.DATE | Kind.TIMESTAMP_MILLIS | Kind.TIMESTAMP_MICROS:
            return pa.int64()
        case Kind.FLOAT | Kind.DOUBLE:
            return pa.float64()
        case Kind.BYTES:
            return pa.binary()
    return pa.string()


def without_values_of_deletes(batch: pa.Table, features: int) -> pa.Table:
    """Null the features of deletes, which the default of a column added later has filled."""
    import pyarrow as pa
    import pyarrow.compute as pc

    deleted = batch.column("_deleted")
    if not features or not pc.any(deleted).as_py():
        return batch
    first = batch.num_columns - features
    for at in range(first, batch.num_columns):
        field = batch.schema.field(at)
        kept = pc.if_else(deleted, pa.scalar(None, field.type), batch.column(at))
        batch = batch.set_column(at, field, kept)
    return batch


def _text(query: sa.Select[Any], dialect: Dialect) -> str:
    return str(query.compile(dialect=dialect.core))
