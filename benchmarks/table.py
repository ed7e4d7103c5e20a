"""Figures as a table for people."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from benchmarks.results import Figure


def print_table(figures: Iterable[Figure]) -> None:
    """Print figures, one a row."""
    table = Table("what", "stores", "ours", "yardstick", "ratio", "spread", "goal", box=None, pad_edge=False)
    for each in figures:
        table.add_row(*row(each))
    Console(width=160).print(table)


def row(figure: Figure) -> tuple[str, ...]:
    """One figure in words: what, stores, ours, yardstick, median ratio, its spread, goal."""
    ours = f"{statistics.median(figure.ours):,.4g} {figure.unit}"
    what = f"{figure.benchmark}: {figure.what}"
    pairs = figure.pairs
    if pairs is None:
        return what, figure.stores, ours, "", "", "", ""
    against = f"{statistics.median(figure.against):,.4g} ({figure.yardstick})"
    spread = f"{pairs.ratios[0]:.2f} to {pairs.ratios[-1]:.2f}"
    return what, figure.stores, ours, against, f"{pairs.median:.2f}", spread, _goal(figure)


def _goal(figure: Figure) -> str:
    if figure.goal is None:
        return ""
    sign = ">=" if figure.better == "more" else "<="
    return f"{sign} {figure.goal:.2f} {'holds' if figure.holds else 'missed'}"
