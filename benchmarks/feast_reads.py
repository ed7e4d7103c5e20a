"""Feast with its SQLite online store, in an environment of its own: fills it, then reads as it is told.

Usage: python -m benchmarks.feast_reads FOLDER ENTITIES threads|tasks

A row in Feast's store is one feature of one entity. Its registry is kept in memory and never read again. Tasks read as
Feast's own server does, which has no asynchronous read of SQLite: in threads.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import (  # type: ignore[import-not-found]
    Entity,
    FeatureView,
    Field,
    FileSource,
    ValueType,
)
from feast.types import Float64, Int64, String  # type: ignore[import-not-found]

from benchmarks.feast_store import open_store, registry_of
from benchmarks.read_rounds import Columns, Latencies, Order, Read, serve_rounds, tasks_round, threads_round
from benchmarks.read_rows import GROUPS, KEY, TTL_S, Shape, event_time_s, feature_name, feature_type, tail, values_of

_TYPES = {"long": Int64, "double": Float64, "string": String}
_DTYPES: dict[str, Any] = {"long": "Int64", "double": "float64", "string": "object"}
_ENTITIES_AT_ONCE = 1_000


def main() -> None:
    """Fill a store and serve rounds."""
    folder, entities, how = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    store = open_store(folder, offline="file")
    if not registry_of(folder).exists():
        _fill(store, folder, entities)

    def read_of(shape: Shape) -> Read:
        features = [f"{group}:{name}" for group, name in shape.names]
        # Three groups call their features alike; Feast then wants full names.
        full = len(shape.features) > 1

        def read(rows: Sequence[Mapping[str, str]]) -> Columns:
            answer: Columns = store.get_online_features(
                features=features, entity_rows=list(rows), full_feature_names=full
            ).to_dict()
            return answer

        return read

    def in_threads(order: Order) -> Latencies:
        return threads_round(order, read_of)

    async def in_tasks(order: Order) -> Latencies:
        def async_read_of(shape: Shape) -> Any:
            read = read_of(shape)
            return lambda rows: asyncio.to_thread(read, rows)

        return await tasks_round(order, async_read_of)

    serve_rounds(in_threads if how == "threads" else lambda order: asyncio.run(in_tasks(order)))


def _fill(store: Any, folder: Path, entities: int) -> None:
    plane = Entity(name="plane", join_keys=[KEY], value_type=ValueType.STRING)
    source = FileSource(path=str(folder / "none.parquet"), timestamp_field="at")
    views = [
        FeatureView(
            name=group,
            entities=[plane],
            ttl=timedelta(seconds=TTL_S),
            schema=[
                Field(name=KEY, dtype=String),
                *(Field(name=feature_name(at), dtype=_TYPES[feature_type(at)]) for at in range(count)),
            ],
            online=True,
            source=source,
        )
        for group, count in GROUPS.items()
    ]
    _frame("crew", 0, 1, datetime.now(UTC)).to_parquet(folder / "none.parquet")
    store.apply([plane, *views])
    at = datetime.fromtimestamp(event_time_s(), UTC)
    for group in GROUPS:
        for start in range(0, entities, _ENTITIES_AT_ONCE):
            store.write_to_online_store(group, _frame(group, start, min(start + _ENTITIES_AT_ONCE, entities), at))


def _frame(group: str, start: int, end: int, at: datetime) -> pd.DataFrame:
    rows = [values_of(group, entity) for entity in range(start, end)]
    columns: dict[str, Any] = {KEY: [tail(entity) for entity in range(start, end)], "at": [at] * len(rows)}
    for place in range(GROUPS[group]):
        name = feature_name(place)
        columns[name] = pd.array([row[name] for row in rows], dtype=_DTYPES[feature_type(place)])
    return pd.DataFrame(columns)


if __name__ == "__main__":
    main()
