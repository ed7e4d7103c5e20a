"""An outage is waited out with growing pauses, up to its budget."""

from __future__ import annotations

import asyncio

import pytest

from oomstream.schemas.errors import Fatal, StoreUnavailable
from oomstream.streams.backoff import LONGEST_WAIT_S, Backoff


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


class Down:
    """An operation that fails the first n times."""

    def __init__(self, failures: int) -> None:
        self.left = failures

    async def __call__(self) -> str:
        if self.left:
            self.left -= 1
            raise StoreUnavailable("store at x is down")
        return "done"


def backoff(clock: Clock, budget_s: float) -> Backoff:
    """A backoff without jitter on a clock of ours."""
    return Backoff(budget_s, where="t[0]", clock=clock, sleep=clock.sleep, jitter=lambda: 1.0)


def test_waits_grow_to_a_cap() -> None:
    """Each wait is twice the last one, up to the cap."""
    clock = Clock()
    assert asyncio.run(backoff(clock, 900).call(Down(12))) == "done"
    assert clock.slept[:3] == [0.05, 0.1, 0.2]
    assert clock.slept[-1] == LONGEST_WAIT_S


def test_budget_ends_it() -> None:
    """Past the budget the outage is fatal, and the error names what was waiting and why."""
    clock = Clock()
    with pytest.raises(Fatal, match=r"t\[0\]: gave up after 60 s of trying: store at x is down"):
        asyncio.run(backoff(clock, 60).call(Down(10_000)))
    assert 60 <= clock.now_s <= 60 + LONGEST_WAIT_S


def test_budget_is_per_outage() -> None:
    """A success ends the outage: the next one has the whole budget again."""
    clock = Clock()
    wait = backoff(clock, 20)

    async def scenario() -> None:
        for _ in range(5):
            assert await wait.call(Down(6)) == "done"

    asyncio.run(scenario())
    assert clock.now_s > 12
