"""How many functions some work calls: a measure that no busy machine trips."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Calls:
    """A count.

    Attributes:
        made: Calls of Python and C functions so far.
    """

    made = 0


@contextmanager
def counting() -> Iterator[Calls]:
    """Count the calls in this thread, those of its event loop included, until the block ends."""
    calls = Calls()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        calls.made += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def calls_of(work: Callable[[], object]) -> int:
    """How many functions `work` calls in this thread."""
    with counting() as calls:
        work()
    return calls.made
