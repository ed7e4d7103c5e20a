"""A mistake in our own code: the worker ends, says where, and acknowledges nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomstream.agents.broker import EmbeddedBroker
from oomstream.streams.broker import Broker
from tests.faults.harness import ROOT, history_count, left
from tests.faults.test_lost_range import ingest
from tests.unit.agents.harness import apply, committed, group, produce, settings_for

_PROGRAM = """
import sys
from pathlib import Path
from oomstream.streams.ingest import SourceIngest
from tests.faults.process import run_worker

def broken(*_, **__):
    raise ZeroDivisionError

setattr(SourceIngest, sys.argv[2], broken)
sys.exit(run_worker(Path(sys.argv[1]), ["session_timeout_us=1500000"]))
"""


@pytest.fixture
def broker() -> Iterator[Broker]:
    """An embedded broker."""
    with EmbeddedBroker() as embedded:
        yield embedded.broker


@pytest.mark.parametrize(
    ("method", "rows"),
    [("_take", 0), ("_newest_rows", 5)],
    ids=["before history", "between history and online"],
)
def test_a_mistake_ends_the_worker(tmp_path: Path, broker: Broker, method: str, rows: int) -> None:
    """Case 24: exit code 1, the partition and the kind of error in one sentence, nothing committed to Kafka."""
    settings = settings_for(tmp_path, broker)
    apply(settings, broker, group(partitions=1))
    event = b'{"tail": "N1", "at": 1700000000000000, "delay": 1, "carrier": null}'
    produce(broker, "plane", [(0, event)] * 5)
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path), method]
    environment = {"OOMSTREAM_BROKER_URL": broker.url, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90)
    assert done.returncode == 1, done.stderr
    assert "plane[0]: unexpected ZeroDivisionError in the pipeline; nothing was acknowledged" in done.stderr
    assert committed(broker, settings.consumer_group, "plane", 1) == {}
    assert history_count(settings) == rows
    asyncio.run(ingest(settings, broker, 5 - rows))  # without the mistake, the next start does what is left to do
    found = left(settings)
    assert (len(found.history), list(found.online)) == (5, [("N1",)])
