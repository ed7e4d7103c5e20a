"""Records that left the log before they were read: an error that names them, or a recorded skip; never silence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oomstream.agents.broker import EmbeddedBroker
from oomstream.agents.worker import Worker
from oomstream.schemas.errors import LostRange
from oomstream.stores.settings import Settings
from oomstream.streams.broker import Broker
from tests.faults.harness import left
from tests.unit.agents.harness import RecordingWorker, Written, apply, group, produce, settings_for, until

OVERRUN = 200
EVENT_BYTES = 60_000


@pytest.fixture
def broker() -> Iterator[Broker]:
    """An embedded broker, which keeps about 5 MB of a partition."""
    with EmbeddedBroker() as embedded:
        yield embedded.broker


def events(start: int, count: int, size: int = 0) -> list[tuple[int, bytes]]:
    """JSON events of one partition."""
    values: list[dict[str, Any]] = [
        {"tail": "N1", "at": 1_700_000_000_000_000 + number, "delay": number, "carrier": "x" * size}
        for number in range(start, start + count)
    ]
    return [(0, json.dumps(value).encode()) for value in values]


async def ingest(settings: Settings, broker: Broker, count: int) -> None:
    """Run a worker until it has ingested so many events."""
    worker = Worker(settings, broker=broker)
    task = asyncio.create_task(worker.run())
    await until(lambda: worker.metrics.events >= count, task=task)
    await until(lambda: worker.metrics.lag == 0, task=task)
    worker.stop()
    await task


def test_a_range_lost_between_two_runs(tmp_path: Path, broker: Broker) -> None:
    """Case 26: a worker that starts below the log's beginning names the range and stops; told to skip, it goes on."""
    settings = settings_for(tmp_path, broker)
    apply(settings, broker, group(partitions=1))
    produce(broker, "plane", events(0, 10))
    asyncio.run(ingest(settings, broker, 10))
    produce(broker, "plane", events(10, OVERRUN, EVENT_BYTES))
    with pytest.raises(LostRange, match=r"plane\[0\]: the log no longer holds offsets 10 to \d+ .*never ingested"):
        asyncio.run(ingest(settings, broker, 1))
    asyncio.run(ingest(settings_for(tmp_path, broker, on_lost_range="skip"), broker, 1))
    found = left(settings)
    delays = [row.values[0] for row in found.history]
    (source,) = found.sources
    assert source.next_sequence == 10 + OVERRUN
    assert delays[:10] == list(range(10))
    assert delays[10:] == list(range(10 + OVERRUN - len(delays[10:]), 10 + OVERRUN))
    assert 50 < len(delays) < 10 + OVERRUN


def test_a_range_lost_while_it_reads(tmp_path: Path, broker: Broker) -> None:
    """Case 26: a worker that the log's beginning overtakes stops as well, instead of going on behind the gap."""
    settings = settings_for(tmp_path, broker, batch_rows=1)
    apply(settings, broker, group(partitions=1))
    written = Written()

    async def scenario() -> None:
        written.hold[0] = asyncio.Event()
        task = asyncio.create_task(RecordingWorker(written, settings, broker).run())
        await asyncio.to_thread(produce, broker, "plane", events(0, OVERRUN, EVENT_BYTES))
        await until(lambda: bool(written.positions), task=task)
        await asyncio.to_thread(produce, broker, "plane", events(OVERRUN, OVERRUN, EVENT_BYTES))
        written.hold.pop(0).set()
        await task

    with pytest.raises(LostRange, match="outside the log"):
        asyncio.run(scenario())
    offsets = [offset for offset, _ in written.records[0]]
    assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
