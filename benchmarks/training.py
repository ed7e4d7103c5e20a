"""How long a training set takes: point-in-time features for labels, from history in a store.

Embedded, the yardstick is DuckDB's own ASOF join over the same rows already in its memory: what the join costs if
reading costs nothing. On TiDB it is ConnectorX's read of the rows that the labels can need, and that join. Each
contender is a process of its own that lives through all pairs; all begin with the labels in memory and end with an
Arrow table, and what they found has to be the same. Ours keeps the order of the labels; the yardsticks need not.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.contender import Contender, Done
from benchmarks.options import Options
from benchmarks.pairs import alternate
from benchmarks.plane_history import fill, write_labels
from benchmarks.results import Figure
from oomstream.stores.settings import Settings, load_settings

SIZES = ((100_000, 1_000_000), (1_000_000, 10_000_000))
"""Labels and rows of history."""
QUICK_SIZES = ((10_000, 100_000),)
GOALS = {"in_memory": 1.5, "read_and_join": 1.2}
YARDSTICKS = {"in_memory": "DuckDB, rows in memory", "read_and_join": "ConnectorX + DuckDB"}


def run(options: Options) -> Iterator[Figure]:
    """Measure seconds a training set, at two sizes."""
    for labels, rows in QUICK_SIZES if options.quick else SIZES:
        with tempfile.TemporaryDirectory() as folder:
            yield _measure(Path(folder), labels, rows, options)


def _measure(folder: Path, labels: int, rows: int, options: Options) -> Figure:
    settings = _settings(folder, options.servers)
    began = time.monotonic()
    fill(settings, rows)
    write_labels(folder / "labels.parquet", rows, labels)
    what = f"{labels:,} labels, {rows:,} rows"
    print(f"  {what}: history written in {time.monotonic() - began:,.0f} s", flush=True)
    other = "read_and_join" if options.servers else "in_memory"
    with ExitStack() as stack:
        contenders = [stack.enter_context(_start(name, folder, rows, settings)) for name in ("ours", other)]
        for each in contenders:
            each.wait_ready()
            each.work()  # the first time pays for imports and cold caches
        mine, theirs = contenders
        found: list[Done] = []
        pairs = alternate(
            lambda _: _timed(mine, found),
            lambda _: _timed(theirs, found),
            pairs=options.pairs,
            label=what,
        )
        facts = {"peak_mib": mine.peak_kib >> 10, "yardstick_peak_mib": theirs.peak_kib >> 10}
    return Figure(
        "training",
        what,
        "TiDB" if options.servers else "embedded",
        "s",
        pairs.ours,
        YARDSTICKS[other],
        pairs.yardstick,
        better="less",
        goal=GOALS[other],
        facts=facts,
    )


def _settings(folder: Path, servers: bool) -> Settings:
    if not servers:
        return load_settings(data_dir=folder)
    return load_settings(data_dir=folder, online_url=f"sqlite:///{folder}/online.db")


def _start(name: str, folder: Path, rows: int, settings: Settings) -> Contender:
    environment = {
        "OOMSTREAM_DATA_DIR": str(settings.data_dir),
        "OOMSTREAM_HISTORY_URL": settings.history,
        "OOMSTREAM_ONLINE_URL": settings.online,
    }
    return Contender("benchmarks.training_contenders", name, str(folder), str(rows), environment=environment)


def _timed(contender: Contender, found: list[Done]) -> float:
    done = contender.work()
    found.append(done)
    if not _same(done.found, found[0].found):
        raise AssertionError(f"training sets differ: {done.found} and {found[0].found}")
    return done.seconds


def _same(one: Sequence[float], other: Sequence[float]) -> bool:
    # Sums of floats depend on the order of the rows in their last digits.
    return all(abs(a - b) <= 1e-9 * max(abs(a), abs(b)) for a, b in zip(one, other, strict=True))
