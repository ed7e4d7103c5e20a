"""Figures of benchmarks: what holds, what is kept, and that the page shows what was kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.pairs import alternate
from benchmarks.picture import PANELS
from benchmarks.results import Figure, keep, load
from benchmarks.table import PAGE, row, write_page

if TYPE_CHECKING:
    from pathlib import Path


def figure(*, better: str = "more", goal: float | None = 1.0, what: str = "work") -> Figure:
    """Three pairs, of ratios 0.9, 1 and 3."""
    ours, against = [9, 10, 30], [10, 10, 10]
    return Figure("ingest", what, "embedded", "events/s", ours, "loop", against, better, goal)  # type: ignore[arg-type]


def test_the_published_page_shows_the_published_figures(tmp_path: Path) -> None:
    """docs/benchmarks.md is what `make bench` writes out of benchmarks/results.json."""
    assert PAGE.read_text() == write_page(*load(), tmp_path / "page.md").read_text()


def test_every_published_figure_says_where_it_was_taken_and_from_enough_pairs() -> None:
    """Machine, versions and commit of each benchmark are kept; what has a goal was measured in at least five pairs."""
    figures, conditions = load()
    assert figures
    for each in figures:
        assert {"machine", "versions", "commit", "at"} <= conditions[f"{each.benchmark}, {each.stores}"].keys()
        assert each.goal is None or len(each.ours) == len(each.against) >= 5


def test_the_picture_has_each_kind_of_figure() -> None:
    """Every panel of the picture has rows, and a p99 stands beside its own p50."""
    figures, _ = load()
    for panel in PANELS:
        rows = panel.rows(figures)
        assert rows
        for shown, slowest in rows:
            assert slowest is None or (slowest.what, slowest.unit) == (shown.what, "ms p99")


@pytest.mark.parametrize(
    ("better", "goal", "holds"),
    [("more", 1.0, True), ("more", 1.1, False), ("less", 1.0, True), ("less", 0.9, False), ("more", None, None)],
)
def test_a_goal_is_held_by_the_median_ratio(better: str, goal: float | None, *, holds: bool | None) -> None:
    """More must reach the goal, less must not pass it; without a goal nothing is claimed."""
    assert figure(better=better, goal=goal).holds is holds


def test_a_row_says_median_ratio_and_spread() -> None:
    """Medians of both sides, and of the ratios pair by pair."""
    assert row(figure()) == (
        "ingest: work", "embedded", "10 events/s", "10 (loop)", "1.00", "0.90 to 3.00", ">= 1.00 holds",
    )  # fmt: skip


def test_new_figures_take_the_place_of_the_same_benchmark_only(tmp_path: Path) -> None:
    """Figures of another benchmark, or on other stores, stay as they are."""
    path = tmp_path / "results.json"
    reads = Figure("reads", "1 key", "embedded", "ms p50", [1.0])
    keep([figure(what="old"), reads], path)
    keep([figure(what="new")], path)
    figures, conditions = load(path)
    assert [each.what for each in figures] == ["new", "1 key"]
    assert set(conditions) == {"ingest, embedded", "reads, embedded"}


def test_contenders_take_turns_and_neither_always_begins() -> None:
    """Each pair runs both, and the one that begins changes from pair to pair."""
    order: list[str] = []
    pairs = alternate(lambda at: order.append("o") or at + 1, lambda _: order.append("y") or 2, pairs=3)  # type: ignore[func-returns-value]
    assert "".join(order) == "oyyooy"
    assert pairs.ours == (1, 2, 3)
    assert pairs.ratios == [0.5, 1.0, 1.5]
