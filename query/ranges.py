"""History in pieces: a scan cut into ranges of entities, and of time within an entity that is too large for one.

A scan comes in order of the primary key (entity key, event time, source, sequence). A `Range` is a run of its rows
that holds every row of its entities; only where one entity alone is larger than a range is it cut in time, always
between two different event times, so that rows of equal time are judged together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from oomstream.query.arrow import Chunked, pc
from oomstream.schemas.events import Plain

RANGE_ROWS = 1_000_000
"""Rows after which a range is cut, about."""

RANGE_BYTES = 64 << 20
"""Bytes after which a range is cut, about: what one join holds of history."""


class Boundary(NamedTuple):
    """Where a range ends: what comes later in (key, event time) is not in it.

    Attributes:
        key: Entity key that the next range begins with.
        event_time_us: First event time of that entity in the next range; None if all of the entity is in the next.
    """

    key: tuple[Plain, ...]
    event_time_us: int | None


class Range(NamedTuple):
    """One piece of a scan.

    Attributes:
        rows: Its rows, in one chunk.
        end: Where it ends; None for the last one.
    """

    rows: pa.Table
    end: Boundary | None


class RangeCutter:
    """Cuts a scan into ranges, holding no more than about two of them.

    Args:
        keys: Names of the key columns.
        prepare: Applied to rows before they are cut; keeps the order of (key, event time), may leave rows out.
        max_rows: Rows after which to cut.
        max_bytes: Bytes after which to cut.
    """

    def __init__(
        self,
        keys: Sequence[str],
        prepare: Callable[[pa.Table], pa.Table],
        *,
        max_rows: int = RANGE_ROWS,
        max_bytes: int = RANGE_BYTES,
    ) -> None:
        self._keys = tuple(keys)
        self._prepare = prepare
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._held: list[pa.Table] = []
        self._new_rows = 0
        self._new_bytes = 0

    def feed(self, rows: pa.Table) -> Iterator[Range]:
        """Take in the next table of the scan and give the ranges that it completes."""
        if not rows.num_rows:
            return
        self._held.append(rows)
        # What was left over from the last cut is not counted: cut again only after as much again has come, so that an
        # entity that cannot be cut is not looked through for every table.
        self._new_rows += rows.num_rows
        self._new_bytes += rows.nbytes
        if self._new_rows >= self._max_rows or self._new_bytes >= self._max_bytes:
            yield from self._cut()

    def rest(self) -> Iterator[Range]:
        """Give what is left after the scan, as the last range."""
        if self._held:
            yield Range(self._all(), None)

    def _all(self) -> pa.Table:
        # Tables with versions and without them may come from one scan: where they are missing they are null.
        rows = self._prepare(pa.concat_tables(self._held, promote_options="default").combine_chunks())
        self._held = []
        self._new_rows = self._new_bytes = 0
        return rows

    def _cut(self) -> Iterator[Range]:
        rows = self._all()
        key = tuple(rows.column(name)[-1].as_py() for name in self._keys)
        _, of_last = compare_keys([rows.column(name) for name in self._keys], key)
        entity_start = rows.num_rows - pc.sum(of_last).as_py()
        if entity_start:
            yield Range(rows.slice(0, entity_start), Boundary(key, None))
            rows = rows.slice(entity_start)
        if rows.num_rows >= self._max_rows or rows.nbytes >= self._max_bytes:
            times = rows.column("_event_time")
            time = times[-1].as_py()
            time_start = rows.num_rows - pc.sum(pc.equal(times, time)).as_py()
            if time_start:
                yield Range(rows.slice(0, time_start), Boundary(key, time))
                rows = rows.slice(time_start)
        self._held = [rows]


def compare_keys(columns: Sequence[Chunked], key: Sequence[Any]) -> tuple[Chunked, Chunked]:
    """Whether the key in each row of some key columns is before a key, and whether it is the same."""
    before: Any = None
    same: Any = None
    for column, part in zip(columns, key, strict=True):
        scalar = pa.scalar(part, column.type)
        less, equal = pc.less(column, scalar), pc.equal(column, scalar)
        before = less if same is None else pc.or_(before, pc.and_(same, less))
        same = equal if same is None else pc.and_(same, equal)
    return before, same
