"""The picture of growth: how many times its smallest size's cost everything has at larger sizes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import growth_figures as of
from benchmarks.growth_figures import SERIES, Grown, Measure, by_series
from benchmarks.results import ROOT, Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE = ROOT / "docs" / "growth.png"

_INK, _GRID = "#1d2b28", "#d5dedb"
_STREAM, _READ, _JOIN = "#2f7d6d", "#c2703d", "#3d5a99"


class _Line(NamedTuple):
    label: str
    color: str
    style: str
    marker: str


_LINES: Mapping[Measure, _Line] = {
    of.INGEST: _Line("ingest: time an event", _STREAM, "-", "o"),
    of.INGEST_CPU: _Line("ingest: processor time an event", _STREAM, "--", "s"),
    of.WORKER_MEMORY: _Line("worker: peak memory", _STREAM, ":", "^"),
    of.FULL_WORKER_MEMORY: _Line("worker: peak memory, partitions full", _STREAM, ":", "D"),
    of.READ_P50: _Line("online read: p50", _READ, "-", "o"),
    of.READ_P99: _Line("online read: p99", _READ, "--", "s"),
    of.TRAINING: _Line("training set: time", _JOIN, "-", "o"),
    of.TRAINING_CPU: _Line("training set: processor time", _JOIN, "--", "s"),
    of.TRAINING_MEMORY: _Line("training set: peak memory", _JOIN, ":", "^"),
}
_DODGE = 0.035


def draw(figures: Sequence[Figure], path: Path = PICTURE) -> Path:
    """Draw the figures of growth, a panel a series, if there are any; gives the file."""
    shown = by_series(figures)
    if not shown:
        return path
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    fig, places = plt.subplots(2, 2, figsize=(9, 6.6), layout="constrained")
    for axes in places.flat[len(shown) :]:
        axes.set_axis_off()
    for axes, (series, measures) in zip(places.flat, shown.items(), strict=False):
        _draw_panel(axes, series, measures)
    handles = {
        label: handle
        for axes in places.flat
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }  # fmt: skip
    labels = [each.label for each in _LINES.values() if each.label in handles]
    places.flat[-1].legend([handles[each] for each in labels], labels, loc="center", fontsize=8, frameon=False)
    fig.supylabel("times the cost at the smallest size  (point: median, line: spread)", fontsize=8)
    fig.savefig(path, dpi=140, metadata={"Software": None})
    plt.close(fig)
    return path


def _draw_panel(axes: Axes, series: str, measures: Mapping[Measure, Sequence[Grown]]) -> None:
    first = next(iter(measures.values()))
    counts = [first[0].base.count, *(each.size.count for each in first)]
    axes.axhline(1, color=_INK, linewidth=0.8)
    if series == "features":
        proportional = [each / counts[0] for each in counts]
        axes.plot(range(len(counts)), proportional, color="#8a9a96", linewidth=1, linestyle=(0, (1, 2)))
        axes.annotate(
            "in proportion", (len(counts) - 1.35, proportional[-2] * 2.6), fontsize=7.5, color="#6b7b77", ha="right"
        )
    shown = [each for each in measures if each in _LINES]
    for at, measure in enumerate(shown):
        line, grown = _LINES[measure], measures[measure]
        places = [0.0, *(place + 1 + _DODGE * (at - (len(shown) - 1) / 2) for place in range(len(grown)))]
        costs = [each.costs for each in grown]
        medians = [1.0, *map(statistics.median, costs)]
        axes.plot(
            places, medians, color=line.color, linestyle=line.style, marker=line.marker, markersize=4, linewidth=1.3,
            label=line.label,
        )  # fmt: skip
        for place, each in zip(places[1:], costs, strict=True):
            axes.plot([place, place], [each[0], each[-1]], color=line.color, linewidth=1)
    axes.set_yscale("log", base=2)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.45), max(high, 4.4))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} ×")
    axes.set_xticks(range(len(counts)), [f"{each:,}" for each in counts])
    axes.set_xlim(-0.15, len(counts) - 1 + 0.25)
    axes.tick_params(labelsize=8, length=0)
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(SERIES[series], fontsize=9, loc="left", color=_INK, fontweight="bold")
    axes.spines[["top", "right", "left"]].set_visible(False)
