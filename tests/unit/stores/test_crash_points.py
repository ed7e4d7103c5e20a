"""Crash points do nothing unless armed, and then what they were armed for."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomstream.schemas.errors import InvalidSetting
from oomstream.stores.crash_points import POINTS, arm, reach

ROOT = Path(__file__).parents[3]
PIPELINE = ("stores", "streams", "agents")

_REACHER = """
import sys
from oomstream.stores.crash_points import arm, reach
arm(sys.argv[1])
for name in sys.argv[2:]:
    reach(name)
    print(name, flush=True)
"""


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    arm(None)


def reached_with(spec: str, *points: str) -> tuple[list[str], int]:
    """Points that a process passes, and its exit code."""
    command = [sys.executable, "-c", _REACHER, spec, *points]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout.split(), done.returncode


def test_nothing_happens_unless_armed() -> None:
    """Every point may be reached at any time in a process that armed none."""
    arm(None)
    for point in POINTS:
        reach(point)


@pytest.mark.parametrize("spec", ["after_poll:2", "1:2"])
def test_it_dies_at_the_nth_time(spec: str) -> None:
    """By name or by number: other points are passed, this one once, and the second time is the last."""
    passed, code = reached_with(spec, "after_history", "after_poll", "before_ack", "after_poll", "after_online")
    assert passed == ["after_history", "after_poll", "before_ack"]
    assert code == -signal.SIGKILL


def test_it_freezes_and_goes_on() -> None:
    """With `:freeze` the process stops, and after SIGCONT it goes on and never stops there again."""
    command = [sys.executable, "-c", _REACHER, "before_ack:freeze", "before_ack", "before_ack"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=60)[0].split() == ["before_ack", "before_ack"]
    assert process.returncode == 0


@pytest.mark.parametrize("spec", ["", "nowhere", "after_poll:0", "after_poll:x", "0", "99", "after_poll:1:thaw"])
def test_wrong_points_are_refused(spec: str) -> None:
    """What is no point, or no number of times, is an error that lists the points."""
    with pytest.raises(InvalidSetting, match="after_poll, after_dlq"):
        arm(spec)


def test_every_point_is_somewhere() -> None:
    """Each number stands for a place that the code reaches, and the code reaches no place without a number."""
    code = "".join(path.read_text() for room in PIPELINE for path in sorted((ROOT / room).rglob("*.py")))
    assert set(re.findall(r'reach\("(\w+)"\)', code)) == set(POINTS)
