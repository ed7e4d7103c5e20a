"""Rows of history in the order of their versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from oomstream.query.arrow import Array, Chunked, one_array, pc
from oomstream.schemas.versions import SourceKind


class VersionOrder:
    """Puts rows of a scan, which are in order of (key, event time, source, sequence), in order of (key, version).

    The two differ only in the kind of the source, which comes before the source in a version; so rows are moved only
    where rows of equal key and time come from sources of several kinds.

    Args:
        keys: Names of the key columns.
        kinds: Kind of every source by id.
    """

    def __init__(self, keys: Sequence[str], kinds: Mapping[int, SourceKind]) -> None:
        self._keys = tuple(keys)
        self._sources = pa.array(list(kinds), pa.int64())
        self._kinds = pa.array([int(kind) for kind in kinds.values()], pa.int64())

    def sorted(self, rows: pa.Table) -> pa.Table:
        """The rows, those of each entity from the smallest version to the greatest."""
        return self._sorted(rows, self._same_time_as_next(rows))

    def newest_of_each_time(self, rows: pa.Table) -> pa.Table:
        """The row of greatest version of each entity and event time, in order."""
        if "_source" not in rows.column_names:
            return rows  # no two of them are of one entity and event time
        tied = self._same_time_as_next(rows)
        if not pc.any(tied).as_py():
            return rows
        last = pa.concat_arrays([pc.invert(tied), pa.array([True])])
        return self._sorted(rows, tied).filter(last)

    def _same_time_as_next(self, rows: pa.Table) -> Array:
        return same_as_next([rows.column(name) for name in (*self._keys, "_event_time")])

    def _sorted(self, rows: pa.Table, tied: Array) -> pa.Table:
        if len(rows) < 2 or not pc.any(tied).as_py():
            return rows
        kinds = self._kinds.take(pc.index_in(one_array(rows.column("_source")), value_set=self._sources))
        falls = pc.and_(tied, pc.greater(kinds.slice(0, len(kinds) - 1), kinds.slice(1)))
        if not pc.any(falls).as_py():
            return rows
        order = [*self._keys, "_event_time", "kind", "_source", "_sequence"]
        narrow = rows.select([*self._keys, "_event_time", "_source", "_sequence"]).append_column("kind", kinds)
        return rows.take(pc.sort_indices(narrow, sort_keys=[(name, "ascending") for name in order]))


def same_as_next(columns: Sequence[Array | Chunked]) -> Array:
    """For each row but the last, whether all of the columns have the same value in the next row."""
    same: Array | None = None
    for column in columns:
        values = one_array(column)
        if not len(values):
            return pa.array([], pa.bool_())
        equal = pc.equal(values.slice(1), values.slice(0, len(values) - 1))
        same = equal if same is None else pc.and_(same, equal)
    assert same is not None
    return same
