"""A history store in a list: for tests that need ingest times of their own choosing, or scans in small pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pyarrow as pa

from oomstream.schemas.events import Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.types import Kind
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import Cut, HistoryRow, HistoryStore
from oomstream.stores.revisions import Revision

_ARROW = {Kind.STRING: pa.string(), Kind.BYTES: pa.binary(), Kind.BOOLEAN: pa.bool_(), Kind.DOUBLE: pa.float64()}
_INTEGERS = {Kind.INT, Kind.LONG, Kind.DATE, Kind.TIMESTAMP_MICROS, Kind.TIMESTAMP_MILLIS}


def _sort_key(row: HistoryRow) -> tuple[Any, ...]:
    parts = tuple(part.encode() if isinstance(part, str) else part for part in row.key)
    return (parts, row.event_time_us, row.source_id, row.sequence)


class MemoryCut(Cut):
    """A `Cut` over rows in a list, which it gives `table_rows` at a time."""

    def __init__(
        self,
        rows: Mapping[str, Iterable[HistoryRow]],
        kinds: Mapping[int, SourceKind],
        *,
        now_us: int = 0,
        table_rows: int = 1000,
    ) -> None:
        self.now_us = now_us
        self.kinds = kinds
        self.scans: list[dict[str, Any]] = []
        self._rows = {name: sorted(each, key=_sort_key) for name, each in rows.items()}
        self._table_rows = table_rows

    async def revisions(self, group: FeatureGroup) -> list[Revision]:
        """None: these tests have stream groups only."""
        return []

    async def scan_revision(
        self,
        group: FeatureGroup,
        revision: Revision,
        features: Sequence[str],
        *,
        keys: Sequence[tuple[Plain, ...]] | None = None,
        batch_rows: int = 100_000,
    ) -> AsyncIterator[pa.Table]:
        """Fail: there is no revision."""
        raise AssertionError(revision)
        yield

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
        """Rows that pass the filters, in order."""
        self.scans.append({"group": group.name, "keys": keys, "min": min_event_time_us, "max": max_event_time_us})
        wanted = None if keys is None else set(keys)
        rows = [
            row
            for row in self._rows.get(group.name, ())
            if (wanted is None or row.key in wanted)
            and (min_event_time_us is None or row.event_time_us >= min_event_time_us)
            and (max_event_time_us is None or row.event_time_us <= max_event_time_us)
            and (max_ingest_time_us is None or row.ingest_time_us <= max_ingest_time_us)
        ]
        for start in range(0, len(rows), self._table_rows):
            yield _table(group, features, rows[start : start + self._table_rows])

    async def scan_in_parts(
        self,
        group: FeatureGroup,
        features: Sequence[str],
        *,
        splits: Sequence[Plain],
        versions: bool = True,
        **limits: Any,
    ) -> AsyncIterator[pa.Table]:
        """The scan; what tells versions apart is left out of every table of which it may be."""
        rows = Counter((row.key, row.event_time_us) for row in self._rows.get(group.name, ()))
        names = [*group.key_names, "_event_time"]
        async for table in self.scan(group, features, **limits):
            moments = [tuple(row.values()) for row in table.select(names).to_pylist()]
            if versions or any(rows[moment[:-1], moment[-1]] > 1 for moment in moments):
                yield table
            else:
                yield table.drop_columns(["_source", "_sequence", "_ingest_time"])


def _table(group: FeatureGroup, features: Sequence[str], rows: Sequence[HistoryRow]) -> pa.Table:
    columns: dict[str, Any] = {}
    for at, key in enumerate(group.keys):
        columns[key.name] = pa.array([row.key[at] for row in rows], _ARROW.get(key.type.kind, pa.int64()))
    columns["_event_time"] = pa.array([row.event_time_us for row in rows], pa.int64())
    columns["_source"] = pa.array([row.source_id for row in rows], pa.int64())
    columns["_sequence"] = pa.array([row.sequence for row in rows], pa.int64())
    columns["_ingest_time"] = pa.array([row.ingest_time_us for row in rows], pa.int64())
    columns["_deleted"] = pa.array([row.deleted for row in rows], pa.bool_())
    places = {feature.name: at for at, feature in enumerate(group.features)}
    for name in features:
        kind = group.features[places[name]].type.kind
        arrow = pa.int64() if kind in _INTEGERS else _ARROW.get(kind, pa.string())
        columns[name] = pa.array([row.values[places[name]] for row in rows], arrow)
    return pa.table(columns)


class MemoryHistory:
    """As much of a `HistoryStore` as a training set asks for."""

    url = "memory://"
    transaction_limit_s = 10.0

    def __init__(self, cut: MemoryCut) -> None:
        self.the_cut = cut

    @asynccontextmanager
    async def cut(self) -> AsyncIterator[Cut]:
        """The one cut there is."""
        yield self.the_cut


def as_history(cut: MemoryCut) -> HistoryStore:
    """A `MemoryHistory` in the type that the code under test asks for."""
    history: Any = MemoryHistory(cut)
    return history  # type: ignore[no-any-return]
