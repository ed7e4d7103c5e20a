"""The point-in-time join: DuckDB's ASOF join over Arrow, one range of history after the other.

For each label the row of greatest version wins among those of its entity with event time <= label time; whether it is
a delete or too old is asked of that row only. DuckDB sees keys, times and row numbers, never features: those are
taken out of the scanned Arrow tables by row number, so that no value passes through another type system.

Source:
    design.md, section 7.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from oomstream.query.arrow import Chunked, numbers, one_array, pc, table_of, take
from oomstream.query.ranges import RANGE_BYTES, RANGE_ROWS, Boundary, Range, RangeCutter, compare_keys
from oomstream.query.version_order import VersionOrder, same_as_next
from oomstream.schemas.errors import StoreUnavailable
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.versions import SourceKind

LABEL_ROWS = 1_000_000
"""Labels that one statement joins at most."""

_SETTINGS: dict[str, Any] = {
    "threads": min(4, os.cpu_count() or 1),
    "memory_limit": "1GB",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
}


class Duck:
    """A private DuckDB in memory that reaches no network, loads no extension and spills into a folder of its own."""

    def __init__(self) -> None:
        # Made by the first statement: a training set may need none.
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._closed = False
        # A caller that is cancelled leaves its statement running in a thread: closing stops it and waits for its end.
        self._running = threading.Lock()

    def _open(self) -> duckdb.DuckDBPyConnection:
        if self._closed:
            raise StoreUnavailable("the training join was closed before its end")
        if self._connection is None:
            self._folder = tempfile.TemporaryDirectory(prefix="oomstream-")
            connection = duckdb.connect(":memory:", config={**_SETTINGS, "temp_directory": self._folder.name})
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            self._connection = connection
        return self._connection

    def close(self) -> None:
        """Give back memory and folder."""
        self._closed = True
        if self._connection is not None:
            self._connection.interrupt()
        with self._running:
            if self._connection is not None:
                self._connection.close()
            if self._folder is not None:
                self._folder.cleanup()

    def query(self, sql: str, **tables: pa.Table) -> pa.Table:
        """Run a statement over Arrow tables, which it knows by name. No text of users is in a statement.

        Raises:
            StoreUnavailable: Memory or the disk for temporary files is full.
        """
        with self._running:
            connection = self._open()
            try:
                for name, table in tables.items():
                    connection.register(name, table)
                result: pa.Table = connection.sql(sql).to_arrow_table()
            except duckdb.Error as exc:
                raise StoreUnavailable(
                    f"the training join failed in DuckDB ({type(exc).__name__}; memory {_SETTINGS['memory_limit']}, "
                    f"temporary files in {tempfile.gettempdir()})"
                ) from exc
            finally:
                for name in tables:
                    connection.unregister(name)
        return result


class GroupJoin:
    """Joins the labels with one group's history, fed as a scan.

    Args:
        duck: Where the joins run.
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
        duck: Duck,
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
        self._duck = duck
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
        side = self._reachable(history.rows) if self._available else self._by_event_time(history.rows)
        for start in range(0, labels.num_rows, LABEL_ROWS):
            matched = self._duck.query(self._sql, labels=labels.slice(start, LABEL_ROWS), history=side)
            self._keep(matched, history.rows)

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

    @property
    def _sql(self) -> str:
        equal = " AND ".join(f"l.k{at} = h.k{at}" for at in range(len(self._group.keys)))
        return f"SELECT l.r, l.t, h.i FROM labels l ASOF JOIN history h ON {equal} AND l.t >= h.t"  # noqa: S608 - numbered names

    def _by_event_time(self, rows: pa.Table) -> pa.Table:
        return self._side(rows, rows.column("_event_time"))

    def _reachable(self, rows: pa.Table) -> pa.Table:
        """For each moment at which an entity's answer changes, the number of the row that is the answer from then on.

        A row can be used from max(event time, ingest time). Rows are numbered in order of version, so the answer at a
        moment is the greatest number among the rows usable by then: a running maximum over that moment.
        """
        usable = pc.max_element_wise(rows.column("_event_time"), rows.column("_ingest_time"))
        side = self._side(rows, usable)
        keys = [side.column(f"k{at}") for at in range(len(self._group.keys))]
        same_entity = same_as_next(keys)
        moments = one_array(usable)
        this, following = moments.slice(0, len(moments) - 1), moments.slice(1)
        if not pc.any(pc.and_(same_entity, pc.greater_equal(this, following))).as_py():
            return side  # every entity's rows became usable in order
        partition = ", ".join(f"k{at}" for at in range(len(keys)))
        return self._duck.query(
            f"SELECT DISTINCT {partition}, t, max(i) OVER (PARTITION BY {partition} ORDER BY t) AS i "  # noqa: S608 - numbered names
            "FROM history",
            history=side,
        )

    def _side(self, rows: pa.Table, times: Chunked) -> pa.Table:
        keys = {f"k{at}": rows.column(name) for at, name in enumerate(self._group.key_names)}
        return table_of({**keys, "t": times, "i": numbers(rows.num_rows)})

    def _keep(self, matched: pa.Table, rows: pa.Table) -> None:
        """Take the features of matched rows out of a range; null where the row is a delete or too old."""
        number = matched.column("i")
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
