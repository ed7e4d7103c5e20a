"""Figures as tables for people: in the terminal, and docs/benchmarks.md."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.results import ROOT, Figure

PAGE = ROOT / "docs" / "benchmarks.md"
_COLUMNS = ("what", "stores", "ours", "yardstick", "ratio", "spread", "goal")
_INTRODUCTION = """\
# What was measured

Written by `make bench` out of [results.json](../benchmarks/results.json). Ours and the yardstick took turns in one run;
a ratio is ours over the yardstick's, pair by pair: its median and spread. How each figure is taken, where the time goes
and what was tried: [performance.md](performance.md).

![Ratios with their goals](benchmarks.png)
"""


def print_table(figures: Iterable[Figure]) -> None:
    """Print figures, one a row."""
    table = Table(*_COLUMNS, box=None, pad_edge=False)
    for each in figures:
        table.add_row(*row(each))
    Console(width=160).print(table)


def write_page(figures: Sequence[Figure], conditions: Mapping[str, Any], path: Path = PAGE) -> Path:
    """Write all figures with the conditions that they were measured under, a section a benchmark; gives the file."""
    path.write_text("\n".join(_page(figures, conditions)))
    return path


def _page(figures: Sequence[Figure], conditions: Mapping[str, Any]) -> Iterator[str]:
    yield _INTRODUCTION
    for (benchmark, stores), group in groupby(figures, key=lambda each: each.key[:2]):
        under = conditions[f"{benchmark}, {stores}"]
        yield f"## {benchmark}, {stores}\n"
        place = f"{under['machine']}; {under['system']}; Python {under['python']}"
        yield f"{under['at'][:10]}, commit {under['commit']}; {place}."
        yield ", ".join(f"{name} {version}" for name, version in under["versions"].items()) + ".\n"
        shown = list(group)
        facts = sorted({name for each in shown for name in each.facts})
        columns = [name for name in _COLUMNS if name != "stores"] + [each.replace("_", " ") for each in facts]
        yield f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"
        for each in shown:
            _, _, *cells = row(each)
            more = [_fact(each.facts.get(name, "")) for name in facts]
            yield f"| {' | '.join([each.what, *cells, *more])} |"
        yield ""


def _fact(value: Any) -> str:
    return value if isinstance(value, str) else number(value)


def number(value: float) -> str:
    """A figure with as many digits as say something."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def row(figure: Figure) -> tuple[str, ...]:
    """One figure in words: what, stores, ours, yardstick, median ratio, its spread, goal."""
    ours = f"{number(statistics.median(figure.ours))} {figure.unit}"
    what = f"{figure.benchmark}: {figure.what}"
    pairs = figure.pairs
    if pairs is None:
        return what, figure.stores, ours, "", "", "", ""
    against = f"{number(statistics.median(figure.against))} ({figure.yardstick})"
    spread = f"{pairs.ratios[0]:.2f} to {pairs.ratios[-1]:.2f}"
    return what, figure.stores, ours, against, f"{pairs.median:.2f}", spread, _goal(figure)


def _goal(figure: Figure) -> str:
    if figure.goal is None:
        return ""
    sign = ">=" if figure.better == "more" else "<="
    return f"{sign} {figure.goal:.2f} {'holds' if figure.holds else 'missed'}"
