"""How much memory a training set from TiDB takes: 10 million rows of history and 1 million labels stay under 1 GiB.

History is filled by multi-row inserts; labels are a parquet file; a process of its own, in which nothing but the query
module is loaded, joins them into another parquet file. The database is that of OOMSTREAM_HISTORY_URL, made for this
and empty, or a fresh one on the TiDB of the tests.

Usage: python -m benchmarks.training_memory [ROWS [LABELS]]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.memory import peak_kib
from benchmarks.plane_history import FEATURES, fill, write_labels
from oomstream.query.sync import FeatureStore
from oomstream.stores.settings import Settings, load_settings

ROWS = 10_000_000
LABELS = 1_000_000
LIMIT_KIB = 1 << 20
DEADLINE_S = 3_600


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
