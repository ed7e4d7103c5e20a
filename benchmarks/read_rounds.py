"""Reads by one or more callers, each in a closed loop, and how long each read took: needs nothing but Python.

A caller asks again as soon as it has its answer. What is timed is the whole of a read, from the call to a dict of
lists. A task's read begins when the task wants to read, not when the event loop gets to it: many tasks wait for each
other, and that is part of what a user of theirs waits for.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.memory import peak_kib
from benchmarks.pairs import quantile
from benchmarks.read_rows import SHAPES, Shape, some_keys

Columns = Mapping[str, Sequence[Any]]
Read = Callable[[Sequence[Mapping[str, str]]], Columns]
"""Answers entity rows with columns."""
AsyncRead = Callable[[Sequence[Mapping[str, str]]], Awaitable[Columns]]

_WARM_UP = 3
"""Reads of each caller before the clock counts."""


class Order(NamedTuple):
    """What a round is to do.

    Attributes:
        shape: Which of `SHAPES`.
        callers: Threads or tasks.
        reads: Reads of all callers together.
        entities: How many entities there are.
        seed: Decides which are read.
    """

    shape: str
    callers: int
    reads: int
    entities: int
    seed: int

    def caller(self, number: int) -> tuple[list[list[dict[str, str]]], Shape]:
        """Entity rows of each read of one caller, those for warming up first."""
        shape, chance = SHAPES[self.shape], random.Random(f"{self.seed} {number}")
        count = _WARM_UP + max(1, self.reads // self.callers)
        return [some_keys(chance, shape, self.entities) for _ in range(count)], shape


class Latencies(NamedTuple):
    """Percentiles of one round, milliseconds; `found` sums up the last answer of the first caller."""

    p50: float
    p99: float
    found: Sequence[float]


def threads_round(order: Order, read_of: Callable[[Shape], Read]) -> Latencies:
    """Read from so many threads."""
    taken: list[int] = []
    found: list[Sequence[float]] = [()] * order.callers
    ready = threading.Barrier(order.callers)

    def caller(number: int) -> None:
        asked, shape = order.caller(number)
        read = read_of(shape)
        for rows in asked[:_WARM_UP]:
            read(rows)
        ready.wait()
        mine, answer = [], None
        for rows in asked[_WARM_UP:]:
            began = time.perf_counter_ns()
            answer = read(rows)
            mine.append(time.perf_counter_ns() - began)
        taken.extend(mine)
        found[number] = summary(answer)

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(order.callers)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return _percentiles(taken, found[0])


async def tasks_round(order: Order, read_of: Callable[[Shape], AsyncRead]) -> Latencies:
    """Read from so many tasks of one event loop."""
    taken: list[int] = []
    found: list[Sequence[float]] = [()] * order.callers
    ready = asyncio.Barrier(order.callers)

    async def caller(number: int) -> None:
        asked, shape = order.caller(number)
        read = read_of(shape)
        for rows in asked[:_WARM_UP]:
            await read(rows)
        await ready.wait()
        answer: Columns | None = None
        for rows in asked[_WARM_UP:]:
            began = time.perf_counter_ns()
            await asyncio.sleep(0)  # its turn, which a read that never waits would keep for itself
            answer = await read(rows)
            taken.append(time.perf_counter_ns() - began)
        found[number] = summary(answer)

    async with asyncio.TaskGroup() as group:
        for number in range(order.callers):
            group.create_task(caller(number))
    return _percentiles(taken, found[0])


def summary(answer: Columns | None) -> list[float]:
    """What an answer holds, in three numbers: rows, values that are not null, the sum of the numbers."""
    columns = [] if answer is None else list(answer.values())
    values = [value for column in columns for value in column if value is not None]
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    return [len(columns[0]) if columns else 0, len(values), sum(numbers)]


def _percentiles(taken: list[int], found: Sequence[float]) -> Latencies:
    ordered = sorted(taken)
    return Latencies(quantile(ordered, 0.5) / 1e6, quantile(ordered, 0.99) / 1e6, found)


def serve_rounds(work: Callable[[Order], Latencies]) -> None:
    """What a reader's process runs: an order a line in, latencies a line out, until its input ends."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps([*work(Order(*json.loads(line))), peak_kib()]), flush=True)
