"""Memory of a process that makes a training set from TiDB (10 million rows: benchmarks/training_memory.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.plane_history import fill, write_labels
from oomstream.stores.settings import load_settings
from tests.faults.harness import ROOT
from tests.integration.backends import environment_of
from tests.services.mysql_protocol import SqlServer

LABELS = 10_000
WIDTH = 600
# What allocators keep for threads that are gone would be measured else: it grows too, ever more slowly.
ALLOCATORS = {"MALLOC_ARENA_MAX": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
PROGRAM = """
import asyncio, sys
from benchmarks.memory import peak_kib
from benchmarks.plane_history import FEATURES
from oomstream.query.training import TrainingRequest, build_training_set
from oomstream.stores.opening import history_store
from oomstream.stores.settings import load_settings

async def join():
    settings = load_settings()
    async with history_store(settings.history, settings) as history:
        features = (await history.load_catalog()).features(FEATURES)
        request = TrainingRequest(features, range_rows=10_000, range_bytes=4 << 20)
        made = await build_training_set(history, sys.argv[1], request)
        column = made.features.column("plane.speed")
        print(peak_kib(), len(column) - column.null_count)

asyncio.run(join())
"""


def peak_kib(server: SqlServer, folder: Path, rows: int) -> int:
    """Peak memory of a process that joins so many rows of history with always as many labels."""
    folder.mkdir()
    settings = load_settings(data_dir=folder, history_url=server.fresh_database())
    fill(settings, rows, width=WIDTH)
    write_labels(folder / "labels.parquet", rows, LABELS)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder / "labels.parquet")],
        env={"PATH": "/usr/bin:/bin", **ALLOCATORS, **environment_of(settings)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    peak, matched = map(int, done.stdout.split())
    assert 0.9 * LABELS < matched < LABELS
    return peak


def test_memory_does_not_grow_with_history(tmp_path: Path, tidb_server: SqlServer) -> None:
    """With four times the history the peak is about the same: it grows by less than half of what came to it."""
    small, large = 80_000, 320_000
    before = peak_kib(tidb_server, tmp_path / "small", small)
    after = peak_kib(tidb_server, tmp_path / "large", large)
    assert after - before < (large - small) * WIDTH / 1024 / 2
