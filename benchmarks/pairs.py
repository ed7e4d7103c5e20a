"""Two contenders in turn on the same work, and the ratio of each pair: what a noisy machine can still tell."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

PAIRS = 5
"""Fewest pairs of a figure that is published."""

Round = Callable[[int], float]
"""Does the work once, given the number of the pair from 0; gives its figure, in the unit of the benchmark."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Figures of two contenders that took turns.

    Attributes:
        ours: One figure a pair.
        yardstick: The other's, in the same order.
    """

    ours: tuple[float, ...]
    yardstick: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Ours over the yardstick's, pair by pair, ascending."""
        return sorted(one / other for one, other in zip(self.ours, self.yardstick, strict=True))

    @property
    def median(self) -> float:
        """The median ratio."""
        return statistics.median(self.ratios)


def alternate(ours: Round, yardstick: Round, *, pairs: int = PAIRS, label: str = "") -> Pairs:
    """Run two contenders in turn; the one that begins changes with each pair, so that neither gains from its place.

    Args:
        ours: A round of ours.
        yardstick: A round of what it is measured against.
        pairs: How many pairs, 1 or more.
        label: What to print before each pair's figures; none prints nothing.
    """
    figures: tuple[list[float], list[float]] = ([], [])
    for at in range(pairs):
        order = ((0, ours), (1, yardstick)) if at % 2 == 0 else ((1, yardstick), (0, ours))
        for side, contender in order:
            figures[side].append(contender(at))
        if label:
            one, other = figures[0][-1], figures[1][-1]
            print(f"  {label}  pair {at + 1}: {one:,.4g} against {other:,.4g}, ratio {one / other:.3f}", flush=True)
    return Pairs(tuple(figures[0]), tuple(figures[1]))


def quantile(ascending: Sequence[float], share: float) -> float:
    """The figure below which that share of some figures lies.

    Args:
        ascending: The figures, one or more, the smallest first.
        share: From 0 to 1.
    """
    return ascending[min(len(ascending) - 1, int(len(ascending) * share))]
