"""Scans of history at one cut, as Arrow tables in order of the primary key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

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
from oomstream.stores.sql.dialects import CutReader, Dialect, StoredColumn
from oomstream.stores.sql.revision_tables import RevisionForm
from oomstream.stores.sql.revisions import Revisions, revision_of
from oomstream.stores.sql.seek import seek
from oomstream.stores.sql.tables import HistoryTable, MetaTables
from oomstream.stores.sql.text import quote_name

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
    return _SqlCut(reader, tables, dialect, table_of, now_us, {row[0]: SourceKind(row[1]) for row in kinds})


class _SqlCut(Cut):
    def __init__(
        self,
        reader: CutReader,
        tables: MetaTables,
        dialect: Dialect,
        table_of: Callable[[FeatureGroup], HistoryTable],
        now_us: int,
        kinds: dict[int, SourceKind],
    ) -> None:
        self.now_us = now_us
        self.kinds = kinds
        self._reader = reader
        self._dialect = dialect
        self._published = Revisions(tables, dialect).published
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

    async def seek(
        self,
        group: FeatureGroup,
        features: Sequence[str],
        moments: pa.Table,
        *,
        keys: Sequence[tuple[Plain, ...]] | None = None,
        max_age_us: int | None = None,
        batch_rows: int = 100_000,
    ) -> AsyncIterator[pa.Table] | None:
        """The newest row of each moment, where there are no more moments than rows."""
        table = self._table_of(group)
        if not await self._has_rows(table, keys, moments.num_rows):
            return None
        return seek(self._reader, table, features, moments, self.kinds, max_age_us, batch_rows)

    async def _has_rows(self, table: HistoryTable, keys: Sequence[tuple[Plain, ...]] | None, count: int) -> bool:
        """Whether the entities have so many rows in all; it counts no further."""
        rows = await self._rows_of(table, keys)
        sql = f"SELECT count(*) FROM (SELECT 1 FROM {rows} LIMIT {count}) AS counted"  # noqa: S608 - quoted names
        [(there,)] = await self._reader.rows(sql)
        return bool(there == count)

    async def revisions(self, group: FeatureGroup) -> list[Revision]:
        """Published revisions, by id."""
        return [revision_of(row) for row in await self._reader.rows(_text(self._published(group.id), self._dialect))]

    async def scan_revision(
        self,
        group: FeatureGroup,
        revision: Revision,
        features: Sequence[str],
        *,
        keys: Sequence[tuple[Plain, ...]] | None = None,
        batch_rows: int = 100_000,
    ) -> AsyncIterator[pa.Table]:
        """Rows of a revision in key order."""
        stored = await self._reader.rows(self._dialect.columns_text(revision.table))
        form = RevisionForm(group, revision, [StoredColumn(*row) for row in stored], self._dialect)
        there = [name for name in features if name in form.values]
        sql = f"SELECT {', '.join(form.expressions(there))} FROM {form.table}"  # noqa: S608 - quoted names
        if keys is not None:
            if not keys:
                return
            names = [quote_name(name, self._dialect.quote) for name in group.key_names]
            wanted = await self._reader.fill_wanted(names, keys)
            sql += f" WHERE ({', '.join(form.keys)}) IN (SELECT {', '.join(names)} FROM {wanted})"  # noqa: S608
        sql += f" ORDER BY {', '.join(form.keys)}"
        complete = with_missing(form, features)
        with telling_changes(form):
            async for batch in self._reader.tables(sql, [], revision_schema(group, there), batch_rows):
                yield complete(batch)

    async def _statement(
        self, table: HistoryTable, features: Sequence[str], keys: Sequence[tuple[Plain, ...]] | None
    ) -> tuple[str, list[Any]]:
        names = [*table.group.key_names, "_event_time", "_source", "_sequence", "_ingest_time", "_deleted", *features]
        columns = ", ".join(f"h.{table.quoted(name)}" for name in names)
        return f"SELECT {columns} FROM {await self._rows_of(table, keys)}", []  # noqa: S608 - quoted names

    async def _rows_of(self, table: HistoryTable, keys: Sequence[tuple[Plain, ...]] | None) -> str:
        """What stands behind FROM for the rows of these entities, or of all (also for none, which nobody reads)."""
        stored = f"{table.quoted(table.name)} AS h"
        if not keys:
            return f"{stored} WHERE 1 = 1"
        quoted = [table.quoted(name) for name in table.group.key_names]
        wanted = await self._reader.fill_wanted(quoted, keys)
        same_key = " AND ".join(f"h.{name} = w.{name}" for name in quoted)
        # CROSS JOIN: SQLite then keeps the order of the tables, and so walks the keys in the order of both.
        return f"{wanted} AS w CROSS JOIN {stored} WHERE {same_key}"

    def _order(self, table: HistoryTable, keys: Sequence[tuple[Plain, ...]] | None) -> str:
        by = "w" if keys else "h"
        parts = [f"{by}.{table.quoted(name)}" for name in table.group.key_names]
        return ", ".join([*parts, *(f"h.{table.quoted(each)}" for each in ("_event_time", "_source", "_sequence"))])


def _text(query: sa.Select[Any], dialect: Dialect) -> str:
    return str(query.compile(dialect=dialect.core, compile_kwargs={"literal_binds": True}))
