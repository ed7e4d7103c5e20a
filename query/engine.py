"""The point-in-time join over Arrow, one range of history after the other.

For each label the row of greatest version wins among those of its entity with event time <= label time; whether it is
a delete or too old is asked of that row only. The join itself (`oomstream.query.asof`) sees keys, times and row
numbers, never features: those are taken out of the scanned Arrow tables by row number, so that no value passes through
another type system.

Source:
    design.md, section 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from oomstream.query.arrow import Array, one_array, pc, table_of, take
from oomstream.query.asof import Answers
from oomstream.query.ranges import RANGE_BYTES, RANGE_ROWS, Boundary, Range, RangeCutter, compare_keys
from oomstream.query.version_order import VersionOrder
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.versions import SourceKind

LABEL_ROWS = 200_000
"""Labels that are joined at once at most."""


class GroupJoin:
    """Joins the labels with one group's history, fed as a scan.

    Args:
        group: The group.
        features: Names of its features, as scanned.
        labels: Labels without null keys: columns k0, k1, … (plain keys), t (int64 us), r (row number, int64).
        rows: Rows of the whole label table.
        kinds: Kind of every source by id.
        available: Also require ingest time <= label time.
        range_rows: Rows of history after which a join runs.
        range_bytes: Bytes of history after which a join runs.
    """

    def __init__(
        self,
        group: FeatureGroup,
        features: Sequence[str],
        labels: pa.Table,
        rows: int,
        kinds: Mapping[int, SourceKind],
        *,
        available: bool = False,
        range_rows: int = RANGE_ROWS,
        range_bytes: int = RANGE_BYTES,
    ) -> None:
        order = VersionOrder(group.key_names, kinds)
        self._group = group
        self._features = list(features)
        self._labels = labels
        self._rows = rows
        self._available = available
        self._cutter = RangeCutter(
            group.key_names,
            order.sorted if available else order.newest_of_each_time,
            max_rows=range_rows,
            max_bytes=range_bytes,
        )
        self._found: list[pa.Table] = []
        self._found_rows = 0

    def feed(self, rows: pa.Table) -> None:
        """Join the next table of the scan, or keep it until there is enough for a join."""
        for each in self._cutter.feed(rows):
            self._join(each)

    def finish(self, schema: pa.Schema) -> pa.Table:
        """Join what is left.

        Args:
            schema: Names and plain types of the features, for when nothing was found at all.

        Returns:
            The features in plain form, one row per row of the label table, in its order; null where nothing is valid.
        """
        for each in self._cutter.rest():
            self._join(each)
        if not self._found:
            return schema.empty_table().take(pa.nulls(self._rows, pa.int64()))
        self._collapse(keep_rows=False)
        return self._found.pop()

    def _join(self, history: Range) -> None:
        labels = self._take_labels(history.end)
        if not labels.num_rows:
            return
        rows = history.rows
        answers = Answers([one_array(rows.column(name)) for name in self._group.key_names], self._moments(rows))
        for start in range(0, labels.num_rows, LABEL_ROWS):
            piece = labels.slice(start, LABEL_ROWS)
            keys = [one_array(piece.column(f"k{at}")) for at in range(len(self._group.keys))]
            matches = answers.find(keys, one_array(piece.column("t")))
            self._keep(piece.select(["t", "r"]).take(matches.labels), matches.rows, rows)

    def _take_labels(self, end: Boundary | None) -> pa.Table:
        """The labels that a range decides; those that only later ranges can decide stay.

        A range cut in time decides the labels of its last entity that lie before the cut, since each later label
        finds a row at the cut or after it. Where rows also have to be ingested by the label time it may be that none
        of those can be used, so that such labels are joined with every range of the entity, and the last match wins:
        later ranges hold greater versions.
        """
        labels = self._labels
        if end is None:
            self._labels = labels.slice(0, 0)
            return labels
        before, same = compare_keys([labels.column(f"k{at}") for at in range(len(end.key))], end.key)
        taken = before
        if end.event_time_us is not None:
            if self._available:
                taken = pc.or_(before, same)
            else:
                taken = before = pc.or_(before, pc.and_(same, pc.less(labels.column("t"), end.event_time_us)))
        self._labels = labels.filter(pc.invert(before))
        return labels.filter(taken)

    def _moments(self, rows: pa.Table) -> Array:
        """From when on each row can be the answer."""
        moments = rows.column("_event_time")
        if self._available:
            moments = pc.max_element_wise(moments, rows.column("_ingest_time"))
        return one_array(moments)

    def _keep(self, matched: pa.Table, number: Array, rows: pa.Table) -> None:
        """Take the features of the rows that matched out of a range; null where the row is a delete or too old."""
        valid = pc.invert(rows.column("_deleted").take(number))
        if self._group.ttl_us is not None:
            age = pc.subtract(matched.column("t"), rows.column("_event_time").take(number))
            valid = pc.and_(valid, pc.less_equal(age, self._group.ttl_us))
        place = one_array(pc.if_else(valid, number, pa.scalar(None, pa.int64())))
        values = table_of({name: take(rows.column(name), place) for name in self._features})
        self._found.append(values.append_column(" row", matched.column("r")))
        self._found_rows += matched.num_rows
        if self._found_rows > 2 * self._rows:
            self._collapse(keep_rows=True)

    def _collapse(self, *, keep_rows: bool) -> None:
        """Of several matches of a label keep the last, and bring them into the order of the labels."""
        found = pa.concat_tables(self._found)
        self._found = []
        order = pc.inverse_permutation(found.column(" row").combine_chunks(), max_index=self._rows - 1)
        if keep_rows:
            order = order.drop_null()
            self._found_rows = len(order)
        else:
            found = found.drop_columns([" row"])
        self._found.append(table_of({name: take(found.column(name), order) for name in found.column_names}))
