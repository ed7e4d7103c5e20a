"""The picture of the README: every ratio that has a goal, as a bar beside the mark of the goal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import ROOT, Figure

PICTURE = ROOT / "docs" / "benchmarks.png"


def draw(figures: Sequence[Figure], path: Path = PICTURE) -> Path:
    """Draw the figures that have a goal; gives the file.

    Speed is drawn as how many times the yardstick's it is, also where less is better: to the right is faster.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [each for each in figures if each.goal is not None and each.pairs is not None]
    fig, axes = plt.subplots(figsize=(9, 0.8 + 0.42 * max(len(shown), 1)), layout="constrained")
    for at, each in enumerate(reversed(shown)):
        assert each.pairs is not None
        assert each.goal is not None
        speeds = sorted(ratio if each.better == "more" else 1 / ratio for ratio in each.pairs.ratios)
        median = each.pairs.median if each.better == "more" else 1 / each.pairs.median
        goal = each.goal if each.better == "more" else 1 / each.goal
        axes.barh(at, median, height=0.6, color="#2f7d6d" if each.holds else "#c2703d")
        axes.plot([speeds[0], speeds[-1]], [at, at], color="#1d2b28", linewidth=1.2)
        axes.plot([goal, goal], [at - 0.38, at + 0.38], color="#1d2b28", linewidth=2)
        axes.text(max(speeds[-1], goal) * 1.06, at, f"{median:.2f} x", va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), [_label(each) for each in reversed(shown)], fontsize=8)
    axes.set_xscale("log")
    axes.axvline(1.0, color="#8a9a96", linewidth=0.8)
    axes.set_xlabel("speed, as a multiple of the yardstick's (bar: median, line: spread, mark: goal)", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=140, metadata={"Software": None})
    plt.close(fig)
    return path


def _label(figure: Figure) -> str:
    return f"{figure.benchmark}, {figure.stores}: {figure.what}\nagainst {figure.yardstick}"
