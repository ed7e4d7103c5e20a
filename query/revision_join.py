"""The point-in-time join over batch groups: for each label the newest revision at its time, then the entity's row.

Source:
    design.md, section 7; oomcli.md (join: the newest revision whose time <= the label's time).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import TypeAlias

import pyarrow as pa

from oomstream.query.arrow import Array, Chunked, numbers, one_array, pc, table_of, take
from oomstream.query.columns import scan_rows
from oomstream.query.engine import GroupJoin
from oomstream.query.label_columns import pushed_keys
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import Cut
from oomstream.stores.revisions import Revision

Timeline: TypeAlias = list[tuple[int, Revision]]
"""From which moment on (UTC microseconds) which revision is a group's state, in order of the moments."""

MakeJoin: TypeAlias = Callable[[pa.Table, int, Mapping[int, SourceKind]], GroupJoin]
"""Makes the join of a label side, with its number of rows and the kinds of the sources."""

_OF_REVISIONS = {0: SourceKind.FILE}
"""Kind of the one source that rows of a revision are given for the join."""


def timeline(revisions: Sequence[Revision], *, as_of_us: int | None = None, available: bool = False) -> Timeline:
    """When each revision becomes its group's state.

    Of two revisions of one time the later import wins, as the greater version does in a stream group.

    Args:
        revisions: A group's revisions in any order.
        as_of_us: Only those that had been published by then, with the times that they had; None = all as they are.
        available: A revision counts only once it is published, even from its own time on.
    """
    usable: list[tuple[int, int, int, Revision]] = []
    for revision in revisions:
        published_us = revision.create_time_us
        if as_of_us is not None and published_us > as_of_us and not revision.is_dummy:
            continue
        time_us = revision.time_us if as_of_us is None else revision.time_at(as_of_us)
        moment = max(time_us, published_us) if available and not revision.is_dummy else time_us
        usable.append((moment, time_us, revision.id, revision))
    found: Timeline = []
    newest = (-1, -1)
    for moment, time_us, revision_id, revision in sorted(usable, key=lambda each: each[:3]):
        if (time_us, revision_id) < newest:
            continue  # available only after a newer one
        newest = (time_us, revision_id)
        if found and found[-1][0] == moment:
            found.pop()
        found.append((moment, revision))
    return found


async def join_revisions(
    cut: Cut,
    group: FeatureGroup,
    features: Sequence[str],
    labels: pa.Table,
    states: Timeline,
    make_join: MakeJoin,
    schema: pa.Schema,
    *,
    rows: int,
) -> pa.Table:
    """Join labels with the revisions that were the group's state at their times.

    Args:
        cut: Where to read.
        group: The batch group.
        features: Names of its features.
        labels: Labels without null keys: columns k0, k1, … (plain keys), t (int64 us), r (row number, int64).
        states: The group's revisions.
        make_join: Makes the joins.
        schema: Names and plain types of the features.
        rows: Rows of the whole label table.

    Returns:
        The features in plain form, one row per row of the label table, in its order; null where the entity is not in
        the revision, or no revision is old enough.
    """
    batch_rows = scan_rows(len(features) + len(group.keys))
    found = [schema.empty_table()]
    order: list[Array] = [pa.array([], pa.int64())]
    for at, (moment, revision) in enumerate(states):
        until = states[at + 1][0] if at + 1 < len(states) else None
        mine = await asyncio.to_thread(_between, labels, moment, until)
        if not mine.num_rows or revision.is_dummy:
            continue
        numbered = mine.set_column(mine.column_names.index("r"), "r", numbers(mine.num_rows))
        join = make_join(numbered, mine.num_rows, _OF_REVISIONS)
        keys = await asyncio.to_thread(pushed_keys, mine, len(group.keys))
        scan = cut.scan_revision(group, revision, features, keys=keys, batch_rows=batch_rows)
        try:
            async for each in scan:
                await asyncio.to_thread(join.feed, _as_history(each, moment))
        finally:
            if isinstance(scan, AsyncGenerator):
                await scan.aclose()
        found.append(await asyncio.to_thread(join.finish, schema))
        order.append(one_array(mine.column("r")))
    return await asyncio.to_thread(_in_order, found, order, rows)


def _between(labels: pa.Table, start: int, end: int | None) -> pa.Table:
    times = labels.column("t")
    chosen = pc.greater_equal(times, start)
    if end is not None:
        chosen = pc.and_(chosen, pc.less(times, end))
    return labels.filter(chosen)


def _as_history(rows: pa.Table, moment: int) -> pa.Table:
    """Rows of a revision in the form of a history scan: one event per entity, at the moment it counts from."""
    count = rows.num_rows
    time: Array = pa.repeat(pa.scalar(moment, pa.int64()), count)
    zero: Array = pa.repeat(pa.scalar(0, pa.int64()), count)
    ours: dict[str, Array | Chunked] = {
        "_event_time": time,
        "_source": zero,
        "_sequence": zero,
        "_ingest_time": time,
        "_deleted": pa.repeat(pa.scalar(False), count),
    }
    return table_of({**{name: rows.column(name) for name in rows.column_names}, **ours})


def _in_order(found: list[pa.Table], order: list[Array], rows: int) -> pa.Table:
    """Results of parts of the labels as one table in the labels' order; null for labels of no part."""
    together = pa.concat_tables(found)
    place = pc.inverse_permutation(pa.concat_arrays(order), max_index=rows - 1)
    return table_of({name: take(together.column(name), place) for name in together.column_names})
