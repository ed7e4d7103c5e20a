"""The watchdog ends a worker that has stopped moving, and no other."""

from __future__ import annotations

import pytest
from faust.types import TP

from oomstream.agents.worker.watch import Watchdog
from oomstream.schemas.errors import Fatal

TOPIC = TP("plane", 3)


def dog() -> Watchdog:
    """A watchdog with a patience of 60 s, and 900 s more for a batch in hand."""
    return Watchdog(stuck_s=60, busy_s=900)


def test_a_standstill_with_lag_is_fatal() -> None:
    """Records to read and nothing moved for the whole patience: the error names the partition and both offsets."""
    watchdog = dog()
    watchdog.look(TOPIC, done=5, end=9, busy=False, now=0)
    watchdog.look(TOPIC, done=5, end=10, busy=False, now=60)
    with pytest.raises(Fatal, match=r"plane\[3\]: nothing has moved for 61 s .*at 5, the log ends at 10"):
        watchdog.look(TOPIC, done=5, end=10, busy=False, now=61)


def test_progress_no_lag_and_silence_of_the_broker_are_no_standstill() -> None:
    """A partition that moves, has nothing to read, or whose end nobody knows is left alone for any time."""
    watchdog = dog()
    for now in range(0, 10_000, 50):
        watchdog.look(TOPIC, done=now, end=99_999, busy=False, now=now)
        watchdog.look(TP("plane", 4), done=7, end=7, busy=False, now=now)
        watchdog.look(TP("plane", 5), done=7, end=None, busy=False, now=now)


def test_a_batch_in_hand_has_its_own_budget() -> None:
    """A store that is down is waited for as long as the outage budget says, and not for ever."""
    watchdog = dog()
    for now in range(0, 960, 10):
        watchdog.look(TOPIC, done=5, end=9, busy=True, now=now)
    with pytest.raises(Fatal, match="nothing has moved"):
        watchdog.look(TOPIC, done=5, end=9, busy=True, now=961)


def test_a_partition_that_comes_back_begins_anew() -> None:
    """What was known of a partition that was taken away is forgotten."""
    watchdog = dog()
    watchdog.look(TOPIC, done=5, end=9, busy=False, now=0)
    watchdog.keep(set())
    watchdog.look(TOPIC, done=5, end=9, busy=False, now=100)
    watchdog.look(TOPIC, done=5, end=9, busy=False, now=150)
