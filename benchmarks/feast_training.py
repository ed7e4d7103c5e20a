"""Feast with its DuckDB offline store, in an environment of its own: makes training sets from a parquet file.

Usage: python -m benchmarks.feast_training FOLDER

Its history is FOLDER/history.parquet, which is the form that this store of Feast's reads; labels are in memory as a
DataFrame, which is the form that Feast takes. What it makes is an Arrow table, as with the other contenders.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from feast import (  # type: ignore[import-not-found]
    Entity,
    FeatureView,
    Field,
    FileSource,
    ValueType,
)
from feast.types import Float64, Int64, String  # type: ignore[import-not-found]
from pyarrow import parquet

from benchmarks.contender import serve
from benchmarks.feast_store import open_store

_TTL = timedelta(days=30)


def main() -> None:
    """Register the history and serve rounds."""
    warnings.simplefilter("ignore", DeprecationWarning)  # of what Feast calls, each time
    folder = Path(sys.argv[1])
    store = open_store(folder, offline="duckdb")
    plane = Entity(name="plane", join_keys=["tail"], value_type=ValueType.STRING)
    fields = {"tail": String, "delay": Int64, "speed": Float64, "carrier": String}
    view = FeatureView(
        name="plane",
        entities=[plane],
        ttl=_TTL,
        schema=[Field(name=name, dtype=kind) for name, kind in fields.items()],
        source=FileSource(path=str(folder / "history.parquet"), timestamp_field="at"),
    )
    store.apply([plane, view])
    labels = parquet.read_table(folder / "labels.parquet").to_pandas()

    def work() -> tuple[float, Sequence[Any]]:
        began = time.perf_counter()
        made = store.get_historical_features(labels, ["plane:delay", "plane:speed", "plane:carrier"]).to_arrow()
        seconds = time.perf_counter() - began
        speed = made.column("speed")
        return seconds, (made.num_rows, len(speed) - speed.null_count, pc.sum(speed).as_py())

    serve(work)


if __name__ == "__main__":
    main()
