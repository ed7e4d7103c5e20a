"""The worker on a broker: everything arrives once and in order, whatever Kafka's side does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiokafka.consumer.fetcher
import pytest

from oomstream.agents.worker import Worker
from oomstream.schemas.errors import Fatal
from oomstream.stores.settings import Settings
from oomstream.streams.broker import Broker
from tests.unit.agents.harness import (
    RecordingWorker,
    Written,
    apply,
    apply_async,
    commit,
    committed,
    group,
    produce,
    settings_for,
    until,
)


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
    """A worker that runs, and is drained at the end."""
    task = asyncio.create_task(worker.run())
    try:
        yield task
    finally:
        worker.stop()
        await task


def numbered(partitions: int, count: int, start: int = 0) -> list[tuple[int, bytes]]:
    """Numbered values, dealt out to the partitions in turn."""
    return [(number % partitions, str(number).encode()) for number in range(start, start + count)]


def prepared(folder: Path, broker: Broker, partitions: int = 4, **more: Any) -> Settings:
    """Settings with the group `plane` registered and its topic made."""
    settings = settings_for(folder, broker, **more)
    apply(settings, broker, group(partitions=partitions))
    return settings


def assert_all(written: Written, partitions: int, count: int) -> None:
    """Every record of every partition was ingested once, in order."""
    for partition in range(partitions):
        values = [str(number).encode() for number in range(partition, count, partitions)]
        assert written.records[partition] == list(enumerate(values))


def test_everything_arrives_once_and_in_order(tmp_path: Path, broker: Broker) -> None:
    """All records of all partitions are ingested once, in order, in batches within the limit; offsets are exact."""
    settings = prepared(tmp_path, broker, batch_rows=500)
    produce(broker, "plane", numbered(4, 20_000))
    written = Written()

    async def scenario() -> None:
        worker = RecordingWorker(written, settings, broker)
        async with running(worker) as task:
            await until(lambda: written.count >= 20_000, task=task)
            await until(lambda: worker.metrics.lag == 0, task=task)
            assert worker.metrics.events == 20_000
            assert worker.metrics.partitions == 4

    asyncio.run(scenario())
    assert_all(written, 4, 20_000)
    assert max(written.batches) <= 500
    assert committed(broker, "oomstream", "plane", 4) == dict.fromkeys(range(4), 5_000)


def test_records_stay_as_the_parser_made_them(tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one record is wrapped in aiokafka's own class, which costs more than its parsing does."""
    settings = prepared(tmp_path, broker, partitions=2)
    produce(broker, "plane", numbered(2, 1_000))
    written = Written()
    wrapped: list[object] = []
    monkeypatch.setattr(aiokafka.consumer.fetcher, "ConsumerRecord", wrapped.append)

    async def scenario() -> None:
        async with running(RecordingWorker(written, settings, broker)) as task:
            await until(lambda: written.count >= 1_000 or bool(wrapped), task=task)

    asyncio.run(scenario())
    assert wrapped == []
    assert_all(written, 2, 1_000)


def test_a_slow_partition_holds_up_no_other(tmp_path: Path, broker: Broker) -> None:
    """While one partition's batch does not end, the others are read to their ends."""
    settings = prepared(tmp_path, broker, batch_rows=200)
    produce(broker, "plane", numbered(4, 8_000))
    written = Written()

    async def scenario() -> None:
        written.hold[2] = asyncio.Event()
        async with running(RecordingWorker(written, settings, broker)) as task:
            await until(lambda: all(len(written.records[each]) == 2_000 for each in (0, 1, 3)), task=task)
            assert written.records[2] == []
            written.hold.pop(2).set()
            await until(lambda: written.count == 8_000, task=task)

    asyncio.run(scenario())
    assert_all(written, 4, 8_000)


def test_positions_come_from_the_database(tmp_path: Path, broker: Broker) -> None:
    """A consumer group set forward or back between two runs changes nothing: each goes on where the last one ended."""
    settings = prepared(tmp_path, broker, partitions=2)
    written = Written()

    async def one_run(upto: int) -> None:
        async with running(RecordingWorker(written, settings, broker)) as task:
            await until(lambda: written.count >= upto, task=task)

    produce(broker, "plane", numbered(2, 1_000))
    asyncio.run(one_run(1_000))
    commit(broker, "oomstream", "plane", {0: 3, 1: 4_000})
    produce(broker, "plane", numbered(2, 1_000, start=1_000))
    asyncio.run(one_run(2_000))
    assert_all(written, 2, 2_000)


def test_start_latest_and_a_time(tmp_path: Path, broker: Broker) -> None:
    """A source never seen begins at the log's end with start=latest, and behind the end for a time yet to come."""
    for name, start in (("a", "latest"), ("b", "2100-01-01")):
        settings = settings_for(tmp_path / name, broker, start=start, consumer_group=name)
        apply(settings, broker, group(partitions=1))
        written = Written()
        before = 0 if name == "a" else 101
        produce(broker, "plane", numbered(1, 100))

        async def scenario(settings: Settings = settings, written: Written = written) -> None:
            async with running(RecordingWorker(written, settings, broker)) as task:
                await until(lambda: bool(written.positions), task=task)
                await asyncio.to_thread(produce, broker, "plane", [(0, b"new")])
                await until(lambda: written.count == 1, task=task)

        asyncio.run(scenario())
        assert written.records[0] == [(before + 100, b"new")]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_every_compression_is_read(tmp_path: Path, broker: Broker, codec: str) -> None:
    """Producers may compress in any of Kafka's ways."""
    settings = prepared(tmp_path, broker, partitions=1)
    produce(broker, "plane", [(0, b"x" * 200)] * 50, **{"compression.type": codec})
    written = Written()

    async def scenario() -> None:
        async with running(RecordingWorker(written, settings, broker)) as task:
            await until(lambda: written.count == 50, task=task)

    asyncio.run(scenario())


def test_a_batch_is_bounded_in_bytes(tmp_path: Path, broker: Broker) -> None:
    """Large records, however well compressed, are handed over in batches of about batch_bytes."""
    settings = prepared(tmp_path, broker, partitions=1, batch_bytes=1 << 20)
    produce(broker, "plane", [(0, bytes(300_000))] * 40, **{"compression.type": "zstd"})
    written = Written()

    async def scenario() -> None:
        async with running(RecordingWorker(written, settings, broker)) as task:
            await until(lambda: written.count == 40, task=task)

    asyncio.run(scenario())
    assert [offset for offset, _ in written.records[0]] == list(range(40))
    assert max(written.batches) == 3


def test_fenced_while_assigned_claims_again(tmp_path: Path, broker: Broker) -> None:
    """A worker whose source was claimed by another drops what it holds, claims again and repeats nothing."""
    settings = prepared(tmp_path, broker, partitions=1)
    written = Written()

    async def scenario() -> None:
        worker = RecordingWorker(written, settings, broker)
        async with running(worker) as task:
            await asyncio.to_thread(produce, broker, "plane", numbered(1, 100))
            await until(lambda: written.count == 100, task=task)
            (name,) = written.owners
            written.owners[name] += 1
            await asyncio.to_thread(produce, broker, "plane", numbered(1, 100, start=100))
            await until(lambda: written.count == 200, task=task)
            assert worker.metrics.claims == 2

    asyncio.run(scenario())
    assert_all(written, 1, 200)


def test_two_workers_share_and_hand_over(tmp_path: Path, broker: Broker) -> None:
    """Partitions spread over two workers and come back when one leaves; nothing is lost or doubled."""
    settings = prepared(tmp_path, broker)
    written = Written()

    async def scenario() -> None:
        first, second = (RecordingWorker(written, settings, broker) for _ in range(2))
        async with running(first) as task:
            await asyncio.to_thread(produce, broker, "plane", numbered(4, 4_000))
            await until(lambda: written.count >= 1_000, task=task)
            async with running(second):
                await until(lambda: first.metrics.partitions == second.metrics.partitions == 2, task=task)
                await asyncio.to_thread(produce, broker, "plane", numbered(4, 4_000, start=4_000))
                await until(lambda: written.count == 8_000, task=task)
            await until(lambda: first.metrics.partitions == 4, task=task)
            await asyncio.to_thread(produce, broker, "plane", numbered(4, 4_000, start=8_000))
            await until(lambda: written.count == 12_000, task=task)

    asyncio.run(scenario())
    assert_all(written, 4, 12_000)


def test_a_new_group_is_read_without_a_restart(tmp_path: Path, broker: Broker) -> None:
    """A running worker waits for the first group, and takes up one that is registered later."""
    settings = settings_for(tmp_path, broker)
    written = Written()

    async def scenario() -> None:
        async with running(RecordingWorker(written, settings, broker)) as task:
            await apply_async(settings, broker, group(partitions=1))
            await asyncio.to_thread(produce, broker, "plane", numbered(1, 10))
            await until(lambda: written.count == 10, task=task)
            await apply_async(settings, broker, group("boat", partitions=1))
            await asyncio.to_thread(produce, broker, "boat", numbered(1, 10))
            await until(lambda: written.count == 20, task=task)

    asyncio.run(scenario())
    assert sorted(name.name for name in written.positions) == ["boat", "plane"]


def test_a_programming_error_stops_the_worker(tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 24: an unexpected exception in the pipeline ends the worker with nothing acknowledged."""
    settings = prepared(tmp_path, broker, partitions=1)
    written = Written()

    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("tests.unit.agents.harness.RecordingPipeline.advance", broken)
    produce(broker, "plane", numbered(1, 10))
    with pytest.raises(Fatal, match=r"plane\[0\]: unexpected ZeroDivisionError"):
        asyncio.run(RecordingWorker(written, settings, broker).run())
    assert committed(broker, "oomstream", "plane", 1) == {}


def test_unknown_group_is_named(tmp_path: Path, broker: Broker) -> None:
    """A worker that is asked for a group which does not exist says so."""
    settings = prepared(tmp_path, broker)
    with pytest.raises(Exception, match="no feature group named 'boat'"):
        asyncio.run(Worker(settings, ["boat"], broker=broker).run())


def test_a_batch_that_hangs_holds_up_no_rebalance(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 23: a batch in flight that does not end is dropped in time, and the partition's next owner ingests it."""
    monkeypatch.setattr("oomstream.agents.worker.session.DRAIN_S", 0.5)
    settings = prepared(tmp_path, broker, partitions=2)
    written = Written()

    async def scenario() -> None:
        written.hold = {0: asyncio.Event(), 1: asyncio.Event()}
        async with running(RecordingWorker(written, settings, broker)) as first:
            await asyncio.to_thread(produce, broker, "plane", numbered(2, 100))
            await until(lambda: len(written.positions) == 2, task=first)
            held, written.hold = written.hold, {}  # who has a batch in hand waits on, who takes one does not
            async with running(RecordingWorker(written, settings, broker)) as second:
                await until(lambda: written.count == 100, task=second)
                for each in held.values():
                    each.set()

    asyncio.run(scenario())
    assert_all(written, 2, 100)


def test_a_worker_that_stands_still_ends(tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition that has records and does not move ends the worker with a sentence, after the watchdog's patience."""
    monkeypatch.setattr("oomstream.agents.worker.session.DRAIN_S", 0.5)
    settings = prepared(tmp_path, broker, partitions=1, outage_budget_us=500_000)
    written = Written()
    produce(broker, "plane", numbered(1, 10))

    async def scenario() -> None:
        written.hold = {0: asyncio.Event()}
        task = asyncio.create_task(RecordingWorker(written, settings, broker, stuck_s=0.5).run())
        await until(lambda: bool(written.positions), task=task)
        await asyncio.wait_for(task, 60)

    with pytest.raises(Fatal, match=r"plane\[0\]: nothing has moved for \d+ s .*at 0, the log ends at 10"):
        asyncio.run(scenario())
