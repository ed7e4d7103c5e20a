"""The picture of the README: how many times as fast as its yardstick each thing is, with the mark of its goal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.results import ROOT, Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE = ROOT / "docs" / "benchmarks.png"

_HOLDS, _MISSED, _NO_GOAL = "#2f7d6d", "#c2703d", "#9db3ae"
_INK = "#1d2b28"


@dataclass(frozen=True, slots=True)
class Panel:
    """One part of the picture: the figures of a benchmark on some stores.

    Attributes:
        title: What stands above it.
        benchmark: Whose figures.
        stores: Beginnings of the names of the stores whose figures these are.
    """

    title: str
    benchmark: str
    stores: tuple[str, ...] = ("",)

    def rows(self, figures: Sequence[Figure]) -> list[tuple[Figure, Figure | None]]:
        """Its figures, each with the one of its 99th percentile if there is one."""
        here = [each for each in figures if each.benchmark == self.benchmark and each.stores.startswith(self.stores)]
        # What shares timestamps is in the table; a picture of twice as many bars would be read by nobody.
        here = [each for each in here if each.pairs is not None and "old" not in each.stores]
        slowest = {each.what: each for each in here if each.unit.endswith("p99")}
        return [(each, slowest.get(each.what)) for each in here if not each.unit.endswith("p99")]


PANELS = (
    Panel("Ingest, against a bare loop that promises nothing", "ingest"),
    Panel("Training sets", "training"),
    Panel("Online reads, embedded, against Feast on SQLite", "reads", ("embedded",)),
    Panel("Online reads, TiKV, against a bare tikv-client", "reads", ("TiKV",)),
)


def draw(figures: Sequence[Figure], path: Path = PICTURE) -> Path:
    """Draw the figures that have a yardstick; gives the file.

    Speed is drawn as how many times the yardstick's it is, also where less is better: to the right is faster.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [(panel, rows) for panel in PANELS if (rows := panel.rows(figures))]
    heights = [len(rows) + 1.6 for _, rows in shown]
    fig, places = plt.subplots(
        len(shown), 1, figsize=(9, 0.27 * sum(heights) + 0.5), height_ratios=heights, sharex=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axes, (panel, rows) in zip(places[:, 0], shown, strict=True):
        _draw_panel(axes, panel, rows)
    last = places[-1, 0]
    last.set_xscale("log")
    low, high = last.get_xlim()
    last.set_xlim(min(low, 0.4), max(high, 2.5) * 2)
    last.xaxis.set_major_formatter(lambda value, _: f"{value:g} ×")
    last.xaxis.set_minor_formatter(lambda *_: "")
    last.tick_params(axis="x", labelsize=8)
    last.set_xlabel(
        "times as fast as the yardstick   (bar: median of p50 or of the rate; ring: of p99; line: spread; tick: goal)",
        fontsize=8,
    )
    fig.savefig(path, dpi=140, metadata={"Software": None})
    plt.close(fig)
    return path


def _draw_panel(axes: Axes, panel: Panel, rows: Sequence[tuple[Figure, Figure | None]]) -> None:
    for at, (figure, slowest) in enumerate(reversed(rows)):
        speeds = list(_speeds(figure))
        color = {True: _HOLDS, False: _MISSED, None: _NO_GOAL}[figure.holds]
        axes.barh(at, speeds[1] - 1, left=1, height=0.62, color=color)
        axes.plot([speeds[0], speeds[2]], [at, at], color=_INK, linewidth=1.1)
        end = speeds[2]
        if slowest is not None:
            tail = list(_speeds(slowest))[1]
            axes.plot([tail], [at], marker="o", markersize=4.5, markerfacecolor="white", markeredgecolor=_INK)
            end = max(end, tail)
        if figure.goal is not None:
            goal = figure.goal if figure.better == "more" else 1 / figure.goal
            axes.plot([goal, goal], [at - 0.4, at + 0.4], color=_INK, linewidth=2)
            end = max(end, goal)
        axes.annotate(
            f"{speeds[1]:.3g} ×", (end, at), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_yticks(range(len(rows)), [_label(panel, each) for each, _ in reversed(rows)], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.axvline(1.0, color=_INK, linewidth=0.8)
    axes.set_title(panel.title, fontsize=9, loc="left", color=_INK, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)


def _speeds(figure: Figure) -> Iterator[float]:
    """How many times as fast as the yardstick: the slowest pair, the median, the fastest pair."""
    assert figure.pairs is not None
    ratios = [figure.pairs.ratios[0], figure.pairs.median, figure.pairs.ratios[-1]]
    yield from ratios if figure.better == "more" else [1 / each for each in reversed(ratios)]


def _label(panel: Panel, figure: Figure) -> str:
    text = figure.what.replace(" x ", " × ")
    if panel.benchmark == "reads":
        return text
    text = f"{figure.stores}: {text}"
    return f"{text}\nagainst {figure.yardstick}" if panel.benchmark == "training" else text
