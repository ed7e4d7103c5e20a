"""How long online reads take, beside Feast's SQLite store (embedded) or a bare tikv-client (servers).

Every contender lives in a process of its own that is started once, holds the same rows and is told round by round what
to read; all take turns. Latencies are of whole reads, from entity rows to a dict of lists.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.contender import Contender
from benchmarks.feast_environment import python as feast_python
from benchmarks.options import Options
from benchmarks.pairs import alternate
from benchmarks.read_rounds import Latencies, Order
from benchmarks.read_rows import SHAPES, Shape
from benchmarks.results import Figure
from tests.services.build import BuildFailed

ENTITIES = 5_000
QUICK_ENTITIES = 500
CALLERS = (1, 32)
HOW = {"threads": "sync", "tasks": "async"}

_FEAST = "Feast 0.67, SQLite"
_FEAST_GOAL = 0.2
_READS_A_CALLER = 4
"""At least; so that 32 callers overlap for more than a moment."""
_QUICK_SHARE = 8
_FILL_TIMEOUT_S = 600


def run(options: Options) -> Iterator[Figure]:
    """Measure p50 and p99, milliseconds a read."""
    if options.servers:
        return
    entities = QUICK_ENTITIES if options.quick else ENTITIES
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        environment = {"OOMSTREAM_DATA_DIR": str(folder / "ours")}
        fill(entities, environment)
        try:
            feast = feast_python()
        except BuildFailed as exc:
            print(f"  no figure beside Feast: its environment cannot be made ({str(exc).splitlines()[0]})")
            return
        (folder / "feast").mkdir()
        for how in HOW:
            with ExitStack() as stack:
                ours = stack.enter_context(Contender("benchmarks.our_reads", how, environment=environment))
                arguments = (str(folder / "feast"), str(entities), how)
                theirs = stack.enter_context(Contender("benchmarks.feast_reads", *arguments, python=feast))
                for each in (ours, theirs):
                    each.wait_ready()
                for shape, callers in itertools.product(SHAPES.values(), CALLERS):
                    what = f"{shape.name}, {HOW[how]}, {callers} {'caller' if callers == 1 else 'callers'}"
                    orders = rounds(shape, callers, entities, options)
                    yield from figures(Match(ours, theirs, _FEAST, "embedded", _FEAST_GOAL), what, orders)


def fill(entities: int, environment: Mapping[str, str]) -> None:
    """Write our rows, in a process of its own."""
    Path(environment["OOMSTREAM_DATA_DIR"]).mkdir(exist_ok=True)
    subprocess.run(
        [sys.executable, "-m", "benchmarks.our_reads", "fill", str(entities)],
        env={**os.environ, **environment},
        check=True,
        timeout=_FILL_TIMEOUT_S,
    )


def rounds(shape: Shape, callers: int, entities: int, options: Options) -> list[Order]:
    """What each pair does."""
    reads = shape.reads // (_QUICK_SHARE if options.quick else 1)
    reads = max(reads, callers * _READS_A_CALLER)
    return [Order(shape.name, callers, reads, entities, seed) for seed in range(options.pairs)]


class Match(NamedTuple):
    """Two contenders on the same stores, and what is asked of the first.

    Attributes:
        ours: Reads through the query module.
        yardstick: Reads in another way.
        name: What the other is called.
        stores: As in `Figure`.
        goal: As in `Figure`.
    """

    ours: Contender
    yardstick: Contender
    name: str
    stores: str
    goal: float | None


def figures(match: Match, what: str, orders: Sequence[Order]) -> Iterator[Figure]:
    """Both in turn, one order a pair; p50 and p99 of the same rounds, each a figure."""
    ours: list[Latencies] = []
    theirs: list[Latencies] = []

    def taken(contender: Contender, order: Order, kept: list[Latencies]) -> float:
        kept.append(Latencies(*json.loads(contender.ask(json.dumps(order)))[: len(Latencies._fields)]))
        return kept[-1].p50

    alternate(
        lambda at: taken(match.ours, orders[at], ours),
        lambda at: taken(match.yardstick, orders[at], theirs),
        pairs=len(orders),
        label=what,
    )
    assert [each.found for each in ours] == [each.found for each in theirs], "they do not read the same values"
    for unit, pick in (("ms p50", lambda each: each.p50), ("ms p99", lambda each: each.p99)):
        one, other = (list(map(pick, side)) for side in (ours, theirs))
        yield Figure("reads", what, match.stores, unit, one, match.name, other, "less", match.goal)
