"""Benchmarks run for anyone: a small part of the work, in processes of their own, with nothing kept."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256

import pytest

from benchmarks.results import RESULTS, ROOT


@pytest.mark.parametrize(
    ("name", "shown"),
    [("ingest", "bare loop"), ("freshness", "events/s, quiet"), ("growth", "64 partitions: ingest")],
)
def test_a_quick_run_shows_its_table_and_keeps_nothing(name: str, shown: str) -> None:
    """`python -m benchmarks NAME --quick` ends well, prints figures, and leaves results.json as it was."""
    before = sha256(RESULTS.read_bytes()).digest()
    command = [sys.executable, "-m", "benchmarks", name, "--quick", "--pairs", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=540, check=False)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    assert sha256(RESULTS.read_bytes()).digest() == before


def test_an_unknown_benchmark_is_named() -> None:
    """A name that is no benchmark ends with a sentence that names it and exit code 2."""
    command = [sys.executable, "-m", "benchmarks", "speed"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "no such benchmark: speed" in done.stderr
