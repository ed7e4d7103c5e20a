"""What the benchmark of growth measures, at which sizes, and its figures as tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from benchmarks.pairs import Pairs
from benchmarks.results import ROOT, Figure
from benchmarks.table import number

BENCHMARK = "growth"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- growth: written by make bench -->\n", "<!-- end of growth -->\n"


@dataclass(frozen=True, slots=True, order=True)
class Size:
    """One size of a series.

    Attributes:
        series: What is counted, such as `rows`.
        count: How many.
    """

    series: str
    count: int

    def __str__(self) -> str:
        return f"{self.count:,} {self.series.removesuffix('s') if self.count == 1 else self.series}"


class Measure(NamedTuple):
    """Something that is measured at every size.

    Attributes:
        name: What it is.
        unit: Its unit.
        better: Whether more is better, or less.
    """

    name: str
    unit: str
    better: Literal["more", "less"] = "less"


INGEST = Measure("ingest", "events/s", "more")
INGEST_CPU = Measure("ingest, processor", "µs/event")
WORKER_MEMORY = Measure("worker, peak memory", "MiB")
FULL_WORKER_MEMORY = Measure("worker, peak memory, every partition full", "MiB")
READ_P50 = Measure("online read of 100 keys", "ms p50")
READ_P99 = Measure("online read of 100 keys", "ms p99")
TRAINING = Measure("training set", "s")
TRAINING_CPU = Measure("training set, processor", "s")
TRAINING_MEMORY = Measure("training set, peak memory", "MiB")

MEASURES = (
    INGEST,
    INGEST_CPU,
    WORKER_MEMORY,
    FULL_WORKER_MEMORY,
    READ_P50,
    READ_P99,
    TRAINING,
    TRAINING_CPU,
    TRAINING_MEMORY,
)

SERIES: Mapping[str, str] = {
    "rows": "Rows of history",
    "partitions": "Partitions of the same events",
    "features": "Features of a row",
}
"""Every series, and its title."""

Found = dict[tuple[Measure, Size], list[float]]
"""What was measured, a figure a round."""


def figures(found: Found) -> Iterator[Figure]:
    """Every size beside the smallest of its series."""
    smallest: dict[str, Size] = {}
    for _, size in found:
        smallest[size.series] = min(size, smallest.get(size.series, size))
    for (measure, size), ours in found.items():
        base = smallest[size.series]
        if size != base:
            against = found[measure, base]
            what = f"{size}: {measure.name}"
            yield Figure(BENCHMARK, what, "embedded", measure.unit, ours, str(base), against, measure.better)


class Grown(NamedTuple):
    """A figure of growth, read back.

    Attributes:
        measure: What was measured.
        size: At which size.
        base: The smallest size of its series.
        pairs: Both, round by round.
    """

    measure: Measure
    size: Size
    base: Size
    pairs: Pairs

    @classmethod
    def of(cls, figure: Figure) -> Grown:
        """From what is kept."""
        assert figure.pairs is not None
        size, _, name = figure.what.partition(": ")
        measure = Measure(name, figure.unit, figure.better)
        return cls(measure, _size(size), _size(figure.yardstick), figure.pairs)

    @property
    def costs(self) -> list[float]:
        """How many times the smallest size's cost, round by round, ascending: a rate is turned round."""
        return (
            [1 / each for each in reversed(self.pairs.ratios)] if self.measure.better == "more" else self.pairs.ratios
        )


def _size(text: str) -> Size:
    count, _, series = text.partition(" ")
    return Size(f"{series.removesuffix('s')}s", int(count.replace(",", "")))


def by_series(figures: Sequence[Figure]) -> dict[str, dict[Measure, list[Grown]]]:
    """Figures of growth by series and measure, in the order of `SERIES` and of size."""
    grown = sorted(
        (Grown.of(each) for each in figures if each.benchmark == BENCHMARK), key=lambda each: each.size.count
    )
    found: dict[str, dict[Measure, list[Grown]]] = {}
    for series in SERIES:
        for measure in MEASURES:
            if rows := [each for each in grown if (each.size.series, each.measure) == (series, measure)]:
                found.setdefault(series, {})[measure] = rows
    return found


def tables(figures: Sequence[Figure]) -> str:
    """Markdown: a table a series; a cell is a median, how many times the smallest size's it is, and the spread."""
    parts = []
    for series, rows in by_series(figures).items():
        first = next(iter(rows.values()))
        sizes = [first[0].base, *(each.size for each in first)]
        lines = [f"| {SERIES[series]} | {' | '.join(f'{each.count:,}' for each in sizes)} |"]
        lines.append(f"|---|{'---|' * len(sizes)}")
        for measure, grown in rows.items():
            cells = [number(statistics.median(grown[0].pairs.yardstick)), *map(_cell, grown)]
            lines.append(f"| {measure.name}, {measure.unit} | {' | '.join(cells)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _cell(grown: Grown) -> str:
    ratios = grown.pairs.ratios
    said = f"**{grown.pairs.median:.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    if grown.size.series == "features":
        said += f", a value {statistics.median(grown.costs) * grown.base.count / grown.size.count:.2f}"
    return f"{number(statistics.median(grown.pairs.ours))}: {said}"


def write_tables(figures: Sequence[Figure], path: Path = PAGE) -> Path:
    """Put the tables into their place in the page, where there is a figure of growth; gives the file."""
    if text := tables(figures):
        before, begin, rest = path.read_text().partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise ValueError(f"{path} has no place for the tables of growth, which stand between two comments")
        path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    return path
