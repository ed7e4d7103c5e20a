"""Figures of benchmarks, and the file that keeps them: benchmarks/results.json."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from benchmarks.pairs import Pairs

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results.json"
_PACKAGES = ("faust-streaming", "confluent-kafka", "tikv-client", "aiomysql", "fastavro", "duckdb", "connectorx")


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured.

    Attributes:
        benchmark: Which benchmark, such as `ingest`.
        what: What was done, in a few words that say the sizes.
        stores: `embedded`, or which servers.
        unit: What the numbers count, such as `events/s` or `ms p50`.
        ours: Our figures, one a pair (or a single one where there is nothing to compare with).
        yardstick: What it is measured against; empty for none.
        against: The yardstick's figures, pair by pair.
        better: Whether more is better or less is.
        goal: The ratio (ours over the yardstick's) that is asked for, or none.
        facts: More that was seen, by name: percentiles, peak memory, events per core.
    """

    benchmark: str
    what: str
    stores: str
    unit: str
    ours: Sequence[float]
    yardstick: str = ""
    against: Sequence[float] = ()
    better: Literal["more", "less"] = "more"
    goal: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pairs(self) -> Pairs | None:
        """The pairs, where there is a yardstick."""
        return Pairs(tuple(self.ours), tuple(self.against)) if self.yardstick else None

    @property
    def holds(self) -> bool | None:
        """Whether the median ratio reaches the goal; None where there is none."""
        if self.goal is None or self.pairs is None:
            return None
        return self.pairs.median >= self.goal if self.better == "more" else self.pairs.median <= self.goal

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it from every other figure."""
        return self.benchmark, self.stores, self.what, self.unit, self.yardstick


def conditions() -> dict[str, Any]:
    """Where and when a benchmark ran: machine, versions, commit."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {memory} MiB, shared",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in _PACKAGES if _is_installed(name)},
    }


def load(path: Path = RESULTS) -> tuple[list[Figure], dict[str, Any]]:
    """The figures of a file, and under which conditions each benchmark ran; nothing if there is no file."""
    if not path.exists():
        return [], {}
    read = json.loads(path.read_text())
    return [Figure(**each) for each in read["figures"]], read["conditions"]


def keep(figures: Sequence[Figure], path: Path = RESULTS) -> None:
    """Put figures into the file, in the place of older ones of the same benchmark and stores."""
    kept, known = load(path)
    replaced = {(each.benchmark, each.stores) for each in figures}
    kept = [each for each in kept if (each.benchmark, each.stores) not in replaced]
    now = conditions()
    for benchmark, stores in sorted(replaced):
        known[f"{benchmark}, {stores}"] = now
    ordered = sorted([*kept, *figures], key=lambda each: each.key)
    text = json.dumps(
        {"conditions": dict(sorted(known.items())), "figures": [_rounded(each) for each in ordered]}, indent=1
    )
    path.write_text(text + "\n")


def _rounded(figure: Figure) -> dict[str, Any]:
    return {name: _round(value) for name, value in asdict(figure).items()}


def _round(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, (list, tuple)):
        return [_round(each) for each in value]
    if isinstance(value, dict):
        return {name: _round(each) for name, each in value.items()}
    return value


def _commit() -> str:
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(asked, capture_output=True, text=True, check=False, timeout=10).stdout.strip() or "unknown"


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
