"""How long online reads take, beside Feast's SQLite store (embedded) or a bare tikv-client (servers).

Every contender lives in a process of its own that is started once, holds the same rows and is told round by round what
to read; all take turns. Latencies are of whole reads, from entity rows to a dict of lists.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
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
from oomstream.stores.settings import load_settings
from tests.services.build import BuildFailed

ENTITIES = 5_000
QUICK_ENTITIES = 500
CALLERS = (1, 32)
HOW = {"threads": "sync", "tasks": "async"}

_FEAST = "Feast 0.67, SQLite"
_FEAST_GOAL = 0.2
_BARE = "bare tikv-client"
_BARE_GOAL = 1.1
_STALENESS = "50ms"
_QUICK_SHARE = 8
_TIMEOUT_S = 600


def run(options: Options) -> Iterator[Figure]:
    """Measure p50 and p99, milliseconds a read."""
    entities = QUICK_ENTITIES if options.quick else ENTITIES
    with tempfile.TemporaryDirectory() as folder:
        yield from (_on_tikv if options.servers else _embedded)(Path(folder), entities, options)


def _embedded(folder: Path, entities: int, options: Options) -> Iterator[Figure]:
    try:
        feast = feast_python()
    except BuildFailed as exc:
        print(f"  left out: Feast's environment cannot be made ({str(exc).splitlines()[0]})")
        return
    environment = {"OOMSTREAM_DATA_DIR": str(folder / "ours")}
    _ours("fill", str(entities), environment=environment)
    (folder / "feast").mkdir()
    for how in HOW:
        with ExitStack() as stack:
            ours = _started(stack, Contender("benchmarks.our_reads", how, environment=environment))
            arguments = (str(folder / "feast"), str(entities), how)
            theirs = _started(stack, Contender("benchmarks.feast_reads", *arguments, python=feast))
            yield from _shapes(Match(ours, theirs, _FEAST, "embedded", _FEAST_GOAL), how, entities, options)


def _on_tikv(folder: Path, entities: int, options: Options) -> Iterator[Figure]:
    """Definitions are kept in a file here, online rows in a namespace of their own, which is emptied again."""
    url = f"{os.environ['OOMSTREAM_ONLINE_URL'].rstrip('/')}/reads-{time.time_ns()}"
    environment = {
        "OOMSTREAM_DATA_DIR": str(folder),
        "OOMSTREAM_ONLINE_URL": url,
        "OOMSTREAM_HISTORY_URL": f"sqlite:///{folder / 'history.db'}",
    }
    native = importlib.util.find_spec("oomstream_tikv") is not None and load_settings().tikv_driver != "tikv-client"
    client = "native driver" if native else "tikv-client"
    ids = json.loads(_ours("fill", str(entities), environment=environment))
    arguments = [f"{name}={number}" for name, number in ids.items()]
    try:
        for how in HOW:
            with ExitStack() as stack:
                bare = _started(stack, Contender("benchmarks.tikv_reads", url, how, *arguments))
                ours = _started(stack, Contender("benchmarks.our_reads", how, environment=environment))
                yield from _shapes(Match(ours, bare, _BARE, f"TiKV, {client}", _BARE_GOAL), how, entities, options)
                stale = {**environment, "OOMSTREAM_ONLINE_MAX_AGE": _STALENESS}
                ours = _started(stack, Contender("benchmarks.our_reads", how, environment=stale))
                stores = f"TiKV, {client}, up to {_STALENESS} old"
                yield from _shapes(Match(ours, bare, _BARE, stores, 1.0), how, entities, options)
    finally:
        _ours("clear", environment=environment)


def _ours(*arguments: str, environment: Mapping[str, str]) -> str:
    """Run a command of our reader's to its end; gives what it printed."""
    Path(environment["OOMSTREAM_DATA_DIR"]).mkdir(exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.our_reads", *arguments]
    done = subprocess.run(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True, timeout=_TIMEOUT_S
    )
    return done.stdout


def _started(stack: ExitStack, contender: Contender) -> Contender:
    stack.enter_context(contender).wait_ready()
    return contender


def _shapes(match: Match, how: str, entities: int, options: Options) -> Iterator[Figure]:
    for shape, callers in itertools.product(SHAPES.values(), CALLERS):
        what = f"{shape.name}, {HOW[how]}, {callers} {'caller' if callers == 1 else 'callers'}"
        yield from figures(match, what, rounds(shape, callers, entities, options))


def rounds(shape: Shape, callers: int, entities: int, options: Options) -> list[Order]:
    """What each pair does."""
    reads = max(callers, shape.reads[callers] // (_QUICK_SHARE if options.quick else 1))
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
