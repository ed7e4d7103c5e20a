"""Export: the newest valid values of every entity at one moment, in order of the entity key.

Each group is read in order of its key, reduced to one row per entity, and the groups' rows are brought together piece
by piece, so that memory holds a piece of each group and not the whole.

Source:
    design.md, section 7; oomcli.md (export).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

from oomstream.query.arrow import Array, Chunked, numbers, one_array, pc, table_of, take
from oomstream.query.columns import plain_type, scan_rows, typed_column
from oomstream.query.labels import ArrowLabels
from oomstream.query.ranges import Range, RangeCutter, compare_keys
from oomstream.query.revision_join import timeline
from oomstream.query.training_set import TrainingSet
from oomstream.query.version_order import VersionOrder, same_as_next
from oomstream.schemas.errors import InvalidRequest
from oomstream.schemas.events import Plain
from oomstream.schemas.groups import Category, Feature, FeatureGroup, KeyField
from oomstream.schemas.types import MIN_TIME_US
from oomstream.stores.base import Cut

Tables: TypeAlias = AsyncGenerator[pa.Table, None]


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What an export is made of.

    Attributes:
        features: Group and feature of every column, in the order asked; groups of one entity.
        at_us: The moment, UTC microseconds; None = that of the read.
        limit: At most so many entities, the first ones in order of their key; None = all.
    """

    features: Sequence[tuple[FeatureGroup, Feature]]
    at_us: int | None = None
    limit: int | None = None

    def groups(self) -> list[tuple[FeatureGroup, list[Feature]]]:
        """The groups in the order in which they are first asked for, each with its features.

        Raises:
            InvalidRequest: They are of more than one entity; names two.
        """
        found: dict[str, tuple[FeatureGroup, list[Feature]]] = {}
        for group, feature in self.features:
            found.setdefault(group.name, (group, []))[1].append(feature)
        first = self.features[0][0]
        for group, _ in found.values():
            if group.entity != first.entity:
                raise InvalidRequest(
                    f"an export has one row per entity, but group {first.name!r} is of entity {first.entity!r} and "
                    f"group {group.name!r} of {group.entity!r}: export them one after the other"
                )
        return list(found.values())


async def export_tables(cut: Cut, request: ExportRequest) -> Tables:
    """The export in pieces.

    Args:
        cut: Where to read.
        request: What to read.

    Yields:
        At least one table of the key fields and the features (``group.feature``), each of its own Arrow type, in
        order of the key over all tables. An entity is there if one of the groups has a valid row of it: one that is
        not a delete and not older than the group's ttl. Features of the other groups are null.

    Raises:
        InvalidRequest: The groups are of more than one entity, or `limit` is less than 0.
        StoreUnavailable: History cannot be read.
    """
    if request.limit is not None and request.limit < 0:
        raise InvalidRequest(f"limit is {request.limit}: it must be 0 or more")
    groups = request.groups()
    keys = groups[0][0].keys
    at_us = cut.now_us if request.at_us is None else request.at_us
    left = request.limit
    yielded = False
    merge = _Merge(
        [_newest_rows(cut, group, features, at_us) for group, features in groups],
        [pa.schema([(_full(group, each), plain_type(each.type)) for each in features]) for group, features in groups],
        len(keys),
    )
    try:
        async for plain in merge.tables():
            piece = plain if left is None else plain.slice(0, left)
            if piece.num_rows:
                yielded = True
                yield await asyncio.to_thread(_typed, piece, keys, request.features)
            if left is not None:
                left -= piece.num_rows
                if not left:
                    break
    finally:
        await merge.close()
    if not yielded:
        yield export_schema(request.features).empty_table()


async def collected(cut: Cut, request: ExportRequest) -> TrainingSet:
    """The whole export as a training set, whose labels are the entities' keys."""
    table = pa.concat_tables([each async for each in export_tables(cut, request)])
    keys = [key.name for key in request.features[0][0].keys]
    return TrainingSet(ArrowLabels(table.select(keys)), table.drop_columns(keys))


def export_schema(features: Sequence[tuple[FeatureGroup, Feature]]) -> pa.Schema:
    """Columns of an export: the key fields, then the features."""
    keys = [pa.field(key.name, key.type.arrow()) for key in features[0][0].keys]
    return pa.schema([*keys, *(pa.field(_full(group, each), each.type.arrow()) for group, each in features)])


def _full(group: FeatureGroup, feature: Feature) -> str:
    return f"{group.name}.{feature.name}"


def _typed(plain: pa.Table, keys: Sequence[KeyField], features: Sequence[tuple[FeatureGroup, Feature]]) -> pa.Table:
    columns = {key.name: typed_column(plain.column(f"k{at}"), key.type) for at, key in enumerate(keys)}
    for group, feature in features:
        name = _full(group, feature)
        columns[name] = typed_column(plain.column(name), feature.type)
    return table_of(columns)


async def _newest_rows(cut: Cut, group: FeatureGroup, features: Sequence[Feature], at_us: int) -> Tables:
    """Valid rows of one group, one per entity, in key order: columns k0, k1, …, then the full feature names."""
    names = [feature.name for feature in features]
    if group.category is Category.STREAM:
        tables = _newest_events(cut, group, names, at_us)
    else:
        tables = _newest_revision(cut, group, names, at_us)
    try:
        async for rows in tables:
            columns = {f"k{at}": rows.column(name) for at, name in enumerate(group.key_names)}
            yield table_of({**columns, **{_full(group, each): rows.column(each.name) for each in features}})
    finally:
        await tables.aclose()


async def _newest_revision(cut: Cut, group: FeatureGroup, names: list[str], at_us: int) -> Tables:
    found = [revision for time_us, revision in timeline(await cut.revisions(group)) if time_us <= at_us]
    if not found or found[-1].is_dummy:
        return
    scan = cut.scan_revision(group, found[-1], names, batch_rows=scan_rows(len(names) + len(group.keys)))
    try:
        async for rows in scan:
            yield rows
    finally:
        if isinstance(scan, AsyncGenerator):
            await scan.aclose()


async def _newest_events(cut: Cut, group: FeatureGroup, names: list[str], at_us: int) -> Tables:
    scan = cut.scan(
        group,
        names,
        min_event_time_us=None if group.ttl_us is None else max(MIN_TIME_US, at_us - group.ttl_us),
        max_event_time_us=at_us,
        batch_rows=scan_rows(len(names) + len(group.keys) + 5),
    )
    cutter = RangeCutter(group.key_names, VersionOrder(group.key_names, cut.kinds).newest_of_each_time)
    try:
        async for rows in scan:
            for newest in await asyncio.to_thread(_reduced, cutter.feed(rows), group):
                yield newest
        for newest in await asyncio.to_thread(_reduced, cutter.rest(), group):
            yield newest
    finally:
        if isinstance(scan, AsyncGenerator):
            await scan.aclose()


def _reduced(ranges: Iterator[Range], group: FeatureGroup) -> list[pa.Table]:
    return [_newest_of_range(each, group) for each in ranges]


def _newest_of_range(history: Range, group: FeatureGroup) -> pa.Table:
    """The newest row of each entity, if it is no delete; rows older than the ttl were never read."""
    rows = history.rows
    more = same_as_next([rows.column(name) for name in group.key_names])
    last = pc.invert(more)
    # Of an entity that goes on in the next range, that one has the newest row.
    goes_on = history.end is not None and history.end.event_time_us is not None
    last = pa.concat_arrays([last, pa.array([not goes_on])])
    return rows.filter(pc.and_(last, pc.invert(rows.column("_deleted"))))


class _Merge:
    """Brings tables of several groups, each in key order, together: one row per key that any of them has.

    Args:
        sources: One per group: tables with columns k0, k1, … and features of names that no other group has.
        features: Names and plain types of each group's features.
        parts: Number of key fields.
    """

    def __init__(self, sources: Sequence[Tables], features: Sequence[pa.Schema], parts: int) -> None:
        self._sources = list(sources)
        self._features = list(features)
        self._names = [f"k{at}" for at in range(parts)]
        self._order: Any = [(name, "ascending") for name in self._names]
        self._held: list[pa.Table | None] = [None] * len(self._sources)

    async def close(self) -> None:
        """End reading."""
        for each in self._sources:
            await each.aclose()

    async def tables(self) -> Tables:
        """The tables, in key order over all of them."""
        ended = [False] * len(self._sources)
        while True:
            for at, source in enumerate(self._sources):
                held = self._held[at]
                if not ended[at] and (held is None or not held.num_rows):
                    self._held[at] = await self._next(source)
                    ended[at] = self._held[at] is None
            tables = [each for each in self._held if each is not None]
            if not tables:
                return
            yield await asyncio.to_thread(self._take, tables)

    @staticmethod
    async def _next(source: Tables) -> pa.Table | None:
        async for table in source:
            if table.num_rows:
                return table
        return None

    def _take(self, tables: list[pa.Table]) -> pa.Table:
        """Everything up to the smallest of the last keys: no table still to be read has such keys."""
        if len(self._sources) == 1:
            self._held = [None]
            return tables[0]
        end = min(tuple(table.column(name)[-1].as_py() for name in self._names) for table in tables)
        parts: dict[int, pa.Table] = {}
        for at, table in enumerate(self._held):
            if table is not None:
                below = self._count_up_to(table, end)
                parts[at] = table.slice(0, below)
                self._held[at] = table.slice(below)
        return self._joined(parts)

    def _count_up_to(self, table: pa.Table, end: tuple[Plain, ...]) -> int:
        before, same = compare_keys([table.column(name) for name in self._names], end)
        return int(pc.sum(pc.or_(before, same)).as_py())

    def _joined(self, parts: Mapping[int, pa.Table]) -> pa.Table:
        """One row per key that any part has; features of parts that lack it are null."""
        numbered: Any = [
            part.select(self._names).append_column(f"p{at}", numbers(part.num_rows)) for at, part in parts.items()
        ]
        places: Any = pa.concat_tables(numbered, promote_options="default")
        places = places.group_by(self._names).aggregate([(f"p{at}", "max") for at in parts]).sort_by(self._order)
        columns: dict[str, Array | Chunked] = {name: places.column(name) for name in self._names}
        for at, schema in enumerate(self._features):
            place = one_array(places.column(f"p{at}_max")) if at in parts else None
            for field in schema:
                if place is None:
                    columns[field.name] = pa.nulls(places.num_rows, field.type)
                else:
                    columns[field.name] = take(parts[at].column(field.name), place)
        return table_of(columns)
