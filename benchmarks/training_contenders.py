"""Those who make training sets in the benchmark: ours, and the scripts that a skilled user would write.

Each begins with the labels in memory, as an Arrow table, and ends with labels and features as an Arrow table.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from pyarrow import parquet

from benchmarks.contender import serve
from benchmarks.plane_history import FEATURES, ROWS_PER_ENTITY, rows_of
from oomstream.query.sync import FeatureStore
from oomstream.schemas.arrow import pc
from oomstream.stores.settings import load_settings

TTL_US = 30 * 86_400_000_000

_JOIN = f"""
SELECT l.* EXCLUDE (t),
  CASE WHEN NOT h._deleted AND l.t - h._event_time <= {TTL_US} THEN h.delay END AS delay,
  CASE WHEN NOT h._deleted AND l.t - h._event_time <= {TTL_US} THEN h.speed END AS speed,
  CASE WHEN NOT h._deleted AND l.t - h._event_time <= {TTL_US} THEN h.carrier END AS carrier
FROM (SELECT *, epoch_us(event_timestamp) AS t FROM labels) l
ASOF LEFT JOIN history h ON l.tail = h.tail AND l.t >= h._event_time
"""


def _found(table: pa.Table, prefix: str = "") -> tuple[Any, ...]:
    """Labels in all, how many have a value, and sums that depend on which row was matched to which label."""
    speed, delay = table.column(f"{prefix}speed"), table.column(f"{prefix}delay")
    weighted = pc.sum(pc.multiply(pc.fill_null(delay, 0), pc.cast(table.column("label"), pa.int64()))).as_py()
    return table.num_rows, len(speed) - speed.null_count, pc.sum(speed).as_py(), pc.sum(delay).as_py(), weighted


def ours(labels: pa.Table) -> Callable[[], tuple[float, Sequence[Any]]]:
    """The query module on the stores that the settings name."""
    store = FeatureStore.open()
    store.__enter__()

    def work() -> tuple[float, Sequence[Any]]:
        began = time.perf_counter()
        made = store.get_historical_features(labels, FEATURES).to_arrow()
        return time.perf_counter() - began, _found(made, "plane.")

    return work


def in_memory(labels: pa.Table, rows: int) -> Callable[[], tuple[float, Sequence[Any]]]:
    """DuckDB's ASOF join over rows that are in its memory already."""
    duck = duckdb.connect(":memory:")
    for start in range(0, rows, 1_000_000):
        part = rows_of(start, min(start + 1_000_000, rows))
        duck.register("part", part)
        duck.execute(f"{'INSERT INTO history' if start else 'CREATE TABLE history AS'} SELECT * FROM part")
    duck.unregister("part")
    duck.register("labels", labels)

    def work() -> tuple[float, Sequence[Any]]:
        began = time.perf_counter()
        made = duck.sql(_JOIN).to_arrow_table()
        return time.perf_counter() - began, _found(made)

    return work


def read_and_join(labels: pa.Table) -> Callable[[], tuple[float, Sequence[Any]]]:
    """ConnectorX reads the rows that the labels can need from TiDB, DuckDB joins them."""
    import connectorx

    url = load_settings().history.replace("tidb://", "mysql://")
    duck = duckdb.connect(":memory:")
    duck.register("labels", labels)

    def work() -> tuple[float, Sequence[Any]]:
        began = time.perf_counter()
        span = duck.execute(
            "SELECT min(epoch_us(event_timestamp)), max(epoch_us(event_timestamp)) FROM labels"
        ).fetchall()[0]
        history = connectorx.read_sql(
            url,
            "SELECT CAST(tail AS CHAR) AS tail, _event_time, _deleted, delay, speed, carrier FROM history_plane "
            f"WHERE _event_time BETWEEN {span[0] - TTL_US} AND {span[1]}",
            return_type="arrow",
        )
        duck.register("history", history)
        made = duck.sql(_JOIN.replace("NOT h._deleted", "h._deleted = 0")).to_arrow_table()
        duck.unregister("history")
        return time.perf_counter() - began, _found(made)

    return work


def main() -> None:
    """Be one of them: NAME FOLDER ROWS."""
    name, folder, rows = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    assert rows % ROWS_PER_ENTITY == 0
    labels = parquet.read_table(folder / "labels.parquet")
    contenders = {
        "ours": lambda: ours(labels),
        "in_memory": lambda: in_memory(labels, rows),
        "read_and_join": lambda: read_and_join(labels),
    }
    serve(contenders[name]())


if __name__ == "__main__":
    main()
