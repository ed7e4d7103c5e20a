"""How long a training set takes: point-in-time features for labels, from history in a store.

Embedded, the yardstick is DuckDB's own ASOF join over the same rows already in its memory: what the join costs if
reading costs nothing. On TiDB it is ConnectorX's read of the rows that the labels can need, and that join. Each
contender is a process of its own that lives through all pairs; all begin with the labels in memory and end with an
Arrow table, and what they found has to be the same. Ours keeps the order of the labels; the yardsticks need not.
Beside them, without a goal, Feast with its DuckDB store, which reads the same rows from a parquet file.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import feast_environment
from benchmarks.contender import Contender, Done
from benchmarks.options import Options
from benchmarks.pairs import alternate
from benchmarks.plane_history import fill, write_labels, write_rows
from benchmarks.results import Figure
from oomstream.stores.settings import Settings, load_settings

SIZES = ((100_000, 1_000_000), (1_000_000, 10_000_000))
"""Labels and rows of history."""
QUICK_SIZES = ((10_000, 100_000),)
MOST_WORK = 100_000_000
"""Rows times slowness from which on two pairs have to do: Feast's ten million rows take minutes a pair."""


class Yardstick(NamedTuple):
    """What ours is measured against.

    Attributes:
        name: What to call it.
        goal: The ratio that is asked for, or none.
        slowness: How many times as long as the others it takes, about.
    """

    name: str
    goal: float | None
    slowness: int = 1


YARDSTICKS = {
    "in_memory": Yardstick("DuckDB, rows in memory", 1.5),
    "read_and_join": Yardstick("ConnectorX + DuckDB", 1.2),
    "feast": Yardstick("Feast 0.67, its DuckDB store", None, 20),
}


def run(options: Options) -> Iterator[Figure]:
    """Measure seconds a training set, at two sizes; embedded also beside Feast."""
    for labels, rows in QUICK_SIZES if options.quick else SIZES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            settings = _settings(folder, options.servers)
            began = time.monotonic()
            fill(settings, rows)
            write_labels(folder / "labels.parquet", rows, labels)
            what = f"{labels:,} labels, {rows:,} rows"
            print(f"  {what}: history written in {time.monotonic() - began:,.0f} s", flush=True)
            yardstick = "read_and_join" if options.servers else "in_memory"
            yield _measure(what, yardstick, _start(yardstick, folder, rows, settings), folder, rows, settings, options)
            if not options.servers and not options.quick:
                write_rows(folder / "history.parquet", rows)
                feast = Contender("benchmarks.feast_training", str(folder), python=feast_environment.python())
                yield _measure(what, "feast", feast, folder, rows, settings, options)


def _measure(
    what: str, yardstick: str, against: Contender, folder: Path, rows: int, settings: Settings, options: Options
) -> Figure:
    """Ours and a yardstick in turn."""
    pairs_wanted = options.pairs if rows * YARDSTICKS[yardstick].slowness < MOST_WORK else min(2, options.pairs)
    ours: list[Done] = []
    others: list[Done] = []
    with against as theirs, _start("ours", folder, rows, settings) as mine:
        for each in (mine, theirs):
            each.wait_ready()
        _check_same(mine.work().found, theirs.work().found)  # the first time pays for imports and cold caches
        pairs = alternate(
            lambda _: _timed(mine, ours),
            lambda _: _timed(theirs, others),
            pairs=pairs_wanted,
            label=f"{what}, {YARDSTICKS[yardstick].name}",
        )
        _check_same(ours[-1].found, others[-1].found)
        facts = {
            "peak_mib": mine.peak_kib >> 10,
            "yardstick_peak_mib": theirs.peak_kib >> 10,
            "cpu_s": statistics.median(done.cpu_s for done in ours),
            "yardstick_cpu_s": statistics.median(done.cpu_s for done in others),
        }
    return Figure(
        "training",
        what,
        "TiDB" if options.servers else "embedded",
        "s",
        pairs.ours,
        YARDSTICKS[yardstick].name,
        pairs.yardstick,
        better="less",
        goal=YARDSTICKS[yardstick].goal,
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


def _timed(contender: Contender, rounds: list[Done]) -> float:
    rounds.append(contender.work())
    return rounds[-1].seconds


def _check_same(one: Sequence[float], other: Sequence[float]) -> None:
    # Sums of floats depend on the order of the rows in their last digits; Feast says less than the others.
    if not all(abs(a - b) <= 1e-9 * max(abs(a), abs(b)) for a, b in zip(one, other, strict=False)):
        raise AssertionError(f"training sets differ: {one} and {other}")
