"""How much memory a training set from TiDB takes: 10 million rows of history and 1 million labels stay under 1 GiB.

History is filled by multi-row inserts; labels are a parquet file; a process of its own, in which nothing but the query
module is loaded, joins them into another parquet file. The database is that of OOMSTREAM_HISTORY_URL, made for this
and empty, or a fresh one on the TiDB of the tests.

Usage: python -m benchmarks.training_memory [ROWS [LABELS]]
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pymysql
from pyarrow import parquet

from benchmarks.memory import peak_kib
from oomstream.query.sync import FeatureStore
from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.plan import make_plan
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import SourceName
from oomstream.stores.opening import history_store, init_stores, online_store
from oomstream.stores.settings import Settings, load_settings
from oomstream.stores.urls import StoreUrl

ROWS = 10_000_000
LABELS = 1_000_000
ROWS_PER_ENTITY = 100
LIMIT_KIB = 1 << 20
DEADLINE_S = 3_600

GROUP = group_from_avsc(
    {
        "type": "record",
        "name": "plane",
        "entity": "plane",
        "keys": ["tail"],
        "event_time": "at",
        "ttl": "30d",
        "fields": [
            {"name": "tail", "type": "string"},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            {"name": "delay", "type": ["null", "long"]},
            {"name": "speed", "type": "double"},
            {"name": "carrier", "type": ["null", "string"]},
        ],
    }
)
FEATURES = ["plane.delay", "plane.speed", "plane.carrier"]

_T0 = 1_700_000_000_000_000
_STEP_US = 60_000_000
_ROWS_PER_INSERT = 5_000
_INSERTS_AT_ONCE = 2


class Measured(NamedTuple):
    """One training set.

    Attributes:
        seconds: How long the reading process worked, its start included.
        peak_kib: Its peak memory.
        matched: Labels for which a row of history was found.
    """

    seconds: float
    peak_kib: int
    matched: int


def main() -> int:
    """Fill, join, print; exit code 1 if it takes too much memory."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    labels = int(sys.argv[2]) if len(sys.argv) > 2 else LABELS
    with tempfile.TemporaryDirectory() as folder, _history_url() as url:
        settings = load_settings(data_dir=Path(folder), history_url=url)
        began = time.monotonic()
        fill(settings, rows)
        print(f"rows    {rows:>12,}  inserted in {time.monotonic() - began:,.0f} s", flush=True)
        write_labels(Path(folder, "labels.parquet"), rows, labels)
        found = measure(settings, Path(folder))
    print(f"labels  {labels:>12,}  of which {found.matched:,} have values")
    print(f"joined  {found.seconds:>12,.1f} s")
    print(f"peak    {found.peak_kib / 1024:>12,.0f} MiB (limit {LIMIT_KIB / 1024:,.0f} MiB)")
    return 0 if found.peak_kib < LIMIT_KIB else 1


@contextmanager
def _history_url() -> Iterator[str]:
    if (given := os.environ.get("OOMSTREAM_HISTORY_URL")) is not None:
        yield given
        return
    from tests.services import tidb

    with tidb.start() as server:
        yield server.fresh_database()


def fill(settings: Settings, rows: int, *, width: int = 0) -> None:
    """Make the stores and write so many rows of history, `ROWS_PER_ENTITY` for each entity, a minute apart.

    Args:
        settings: Where the stores are.
        rows: How many.
        width: Characters of the text feature, at least.
    """
    source_id = asyncio.run(_prepare(settings))
    starts = range(0, rows, _ROWS_PER_INSERT)
    statements = ((source_id, start, min(start + _ROWS_PER_INSERT, rows), width) for start in starts)
    with ThreadPoolExecutor(_INSERTS_AT_ONCE) as pool:
        waiting = []
        for each in statements:
            waiting.append(pool.submit(_insert, settings.history, *each))
            if len(waiting) > 2 * _INSERTS_AT_ONCE:
                waiting.pop(0).result()
        for one in waiting:
            one.result()


async def _prepare(settings: Settings) -> int:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    async with history_store(settings.history, settings) as history, online_store(settings.online, settings) as online:
        await init_stores(history, online)
        await history.apply(make_plan(await history.load_catalog(), [GROUP]))
        return (await history.claim(SourceName(SourceKind.TOPIC, "plane", "first"))).id


def _insert(url: str, source_id: int, start: int, end: int, width: int) -> None:
    values = ", ".join(
        f"('{_tail(at // ROWS_PER_ENTITY)}', {_T0 + at % ROWS_PER_ENTITY * _STEP_US}, {source_id}, {at}, {_T0}, 0, "
        f"{'NULL' if at % 7 == 0 else at}, {at / 8}, '{f'carrier {at % 20}'.ljust(width, '.')}')"
        for at in range(start, end)
    )
    names = "tail, _event_time, _source, _sequence, _ingest_time, _deleted, delay, speed, carrier"
    address = StoreUrl.parse(url)
    [(host, port)] = address.hosts
    connection = pymysql.connect(
        host=host,
        port=port or 4000,
        user=address.user or "root",
        password=address.password or "",
        database=address.path,
        autocommit=True,
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"INSERT INTO history_plane ({names}) VALUES {values}")
    finally:
        connection.close()


def _tail(number: int) -> str:
    return f"N{number:08d}"


def write_labels(path: Path, rows: int, labels: int) -> None:
    """Write labels of any entities, at any time of their history and a little before and after it."""
    chance = random.Random(rows)
    entities = max(1, rows // ROWS_PER_ENTITY)
    span_us = ROWS_PER_ENTITY * _STEP_US
    times = [_T0 + chance.randrange(-span_us // 20, span_us * 21 // 20) for _ in range(labels)]
    table = pa.table(
        {
            "tail": [_tail(chance.randrange(entities)) for _ in range(labels)],
            "event_timestamp": pa.array(times, pa.timestamp("us", "UTC")),
            "label": pa.array([at % 2 for at in range(labels)], pa.int8()),
        }
    )
    parquet.write_table(table, path)


def measure(settings: Settings, folder: Path) -> Measured:
    """Join `labels.parquet` of a folder in a process of its own."""
    environment = {
        **os.environ,
        "OOMSTREAM_DATA_DIR": str(settings.data_dir),
        "OOMSTREAM_HISTORY_URL": settings.history,
        "OOMSTREAM_ONLINE_URL": settings.online,
    }
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training_memory", "--join", str(folder)],
        env=environment,
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=DEADLINE_S,
    )
    peak, matched = map(int, done.stdout.split())
    return Measured(time.monotonic() - began, peak, matched)


def join(folder: Path) -> None:
    """What the reading process does: labels in, training set out, then its peak memory and the labels with values."""
    with FeatureStore.open() as store:
        made = store.get_historical_features(str(folder / "labels.parquet"), FEATURES)
        made.to_parquet(folder / "train.parquet")
        speed = made.features.column("plane.speed")
        print(peak_kib(), len(speed) - speed.null_count)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--join"]:
        join(Path(sys.argv[2]))
    else:
        sys.exit(main())
