"""Case 3 of the list of what the product must survive: resource bombs, in a process that may crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MAX_GROWTH_MIB = 50


def growth_mib(*arguments: str) -> float:
    """By how much a child that decodes these messages grew; it must end well."""
    child = subprocess.run(
        [sys.executable, "-m", "tests.unit.schemas.bombs", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    return float(child.stdout)


def test_case_3_bombs_leave_memory_flat() -> None:
    """Case 3: depth, item counts, digits, sizes and hostile registry schemas crash nothing and take < 50 MB."""
    assert growth_mib("bombs") < MAX_GROWTH_MIB


@pytest.mark.parametrize("seed", ["1", "2"])
def test_case_3_damaged_messages_crash_nothing(seed: str) -> None:
    """Case 3: tens of thousands of damaged messages neither raise, nor crash the process, nor take memory."""
    assert growth_mib("fuzz", seed) < MAX_GROWTH_MIB
