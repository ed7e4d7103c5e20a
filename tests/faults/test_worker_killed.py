"""A worker that is killed, stopped or starved: nothing is lost, nothing is doubled, and it says why it ends."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from oomstream.schemas.versions import SourceKind
from oomstream.stores.crash_points import PIPELINE_POINTS
from oomstream.stores.settings import Settings
from oomstream.streams.broker import Broker, need_broker
from oomstream.streams.dlq_topic import read_dead_letters
from oomstream.streams.producer import FeatureProducer
from tests.faults.harness import WorkerProcess, broker_process, history_count, holding_write, left, settings_of
from tests.unit.agents.harness import apply, group, produce

PARTITIONS = 4
ONCE = ("after_dlq", "during_drain")
"""Crash points that a worker may reach only once: there are few dead letters, and one drain."""
ROUNDS, ROUND_S = 20, 5.0
START = datetime(2024, 5, 1, tzinfo=UTC)


class Stage(NamedTuple):
    """A broker process and registered groups.

    Attributes:
        folder: Data folder of all processes.
        settings: Settings on it.
        broker: The broker.
    """

    folder: Path
    settings: Settings
    broker: Broker


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """An embedded broker in another process, with the group `plane`."""
    with broker_process(tmp_path):
        settings = settings_of(tmp_path)
        broker = need_broker(settings)
        apply(settings, broker, group(partitions=PARTITIONS))
        yield Stage(tmp_path, settings, broker)


class Produced(NamedTuple):
    """One event as it was produced."""

    tail: str
    at_us: int
    delay: int


def produce_events(stage: Stage, count: int, seed: int) -> list[Produced]:
    """Events of 300 planes with late, equal and repeated event times."""
    chance = random.Random(seed)
    events = []
    with FeatureProducer.open(stage.settings) as producer:
        for number in range(count):
            at = START + timedelta(seconds=chance.randrange(count // 10))
            tail = f"N{chance.randrange(300)}"
            producer.produce("plane", {"tail": tail, "at": at, "delay": number})
            events.append(Produced(tail, int(at.timestamp() * 1_000_000), number))
    return events


def assert_exact(stage: Stage, events: list[Produced], letters: int = 0) -> None:
    """History holds every event once, online the greatest version of each plane, and positions agree with both."""
    assert len({each.identity for each in read_dead_letters(stage.broker, "plane", timeout_s=10)}) == letters
    found = left(stage.settings)
    rows = sorted((row.key[0], row.event_time_us, row.values[0]) for row in found.history)
    assert rows == sorted(events)
    assert len({(row.source_id, row.sequence) for row in found.history}) == len(events)
    ends = {source.id: source.next_sequence for source in found.sources}
    assert sum(ends.values()) == len(events) + letters
    assert all(source.online_sequence == source.next_sequence for source in found.sources)
    newest: dict[object, tuple[tuple[int, int, int, int], object]] = {}
    for row in found.history:
        version = (row.event_time_us, int(SourceKind.TOPIC), row.source_id, row.sequence)
        newest[row.key] = max(
            newest.get(row.key, (version, row.values)), (version, row.values), key=lambda each: each[0]
        )
    assert {key: (tuple(version), values) for key, (version, values) in found.online.items()} == newest


@pytest.mark.parametrize("seed", [1])
def test_killed_ten_times_loses_and_doubles_nothing(stage: Stage, seed: int) -> None:
    """Case 21: SIGKILL at ten moments, chosen by progress: in the end history, online and positions are exact."""
    events = produce_events(stage, 30_000, seed)
    points = sorted(random.Random(seed).sample(range(500, 29_000), 10))
    for point in points:
        worker = WorkerProcess(stage.folder, batch_rows=300)
        worker.until(lambda point=point: history_count(stage.settings) >= point)  # type: ignore[misc]
        assert worker.kill().code == -9
    last = WorkerProcess(stage.folder, batch_rows=300)
    last.until(lambda: history_count(stage.settings) == len(events))
    ended = last.drain()
    assert ended.code == 0, ended.log
    assert_exact(stage, events)


def test_killed_at_every_crash_point(stage: Stage) -> None:
    """Case 21: SIGKILL at each numbered point of the pipeline in turn: history, online and letters are exact."""
    events = produce_events(stage, 12_000, seed=7)
    garbage = 40
    produce(stage.broker, "plane", [(at % PARTITIONS, b"garbage") for at in range(garbage)])
    more = produce_events(stage, 4_000, seed=8)
    for point in PIPELINE_POINTS:
        worker = WorkerProcess(stage.folder, batch_rows=300, crash_at=point if point in ONCE else f"{point}:2")
        if point == "during_drain":
            before = history_count(stage.settings)
            worker.until(lambda before=before: history_count(stage.settings) > before)  # type: ignore[misc]
            worker.signal(signal.SIGTERM)
        assert worker.wait().code == -9, point
    last = WorkerProcess(stage.folder, batch_rows=300)
    last.until(lambda: history_count(stage.settings) == len(events) + len(more))
    assert last.drain().code == 0
    assert_exact(stage, events + more, letters=garbage)


def test_three_workers_killed_in_rotation(stage: Stage) -> None:
    """Case 21: three workers, of which always the longest-serving one dies, at the next point; the others take over."""
    events: list[Produced] = []
    garbage = 0
    doomed: list[tuple[str, WorkerProcess]] = []
    for point in PIPELINE_POINTS:
        doomed.append((point, WorkerProcess(stage.folder, batch_rows=300, crash_at=point)))
        if len(doomed) == 3:
            garbage += die(stage, *doomed.pop(0), events)
    for point, worker in doomed:
        garbage += die(stage, point, worker, events)
    last = WorkerProcess(stage.folder)
    last.until(lambda: history_count(stage.settings) == len(events))
    assert last.drain().code == 0
    assert_exact(stage, events, letters=garbage)


def die(stage: Stage, point: str, worker: WorkerProcess, events: list[Produced]) -> int:
    """Give a worker what brings it to its crash point, beside others that are armed too; gives how many letters.

    Others may have taken all that was produced before it holds a partition, so there is more until it is dead.
    """
    if point == "during_drain":
        worker.until(lambda: "claimed at offset" in worker.log)  # only who holds a partition drains
    garbage = 0
    for _ in range(ROUNDS):
        produce(stage.broker, "plane", [(at, b"garbage") for at in range(PARTITIONS)])
        garbage += PARTITIONS
        events += produce_events(stage, 1_000, len(events))
        if point == "during_drain":
            worker.signal(signal.SIGTERM)
        if worker.has_ended(ROUND_S):
            break
    assert worker.wait().code == -9, point
    return garbage


def test_sigterm_under_load_drains(stage: Stage) -> None:
    """Case 29: SIGTERM in the middle of the stream: exit code 0, positions stored, and the next start goes on there."""
    events = produce_events(stage, 20_000, seed=2)
    worker = WorkerProcess(stage.folder, batch_rows=300)
    worker.until(lambda: history_count(stage.settings) >= 3_000)
    ended = worker.drain()
    assert ended.code == 0, ended.log
    assert "drained" in ended.log
    assert "Traceback" not in ended.log
    half = left(stage.settings)
    assert len(half.history) < len(events)
    assert sum(source.next_sequence for source in half.sources) == len(half.history)
    assert all(source.online_sequence == source.next_sequence for source in half.sources)
    second = WorkerProcess(stage.folder)
    second.until(lambda: history_count(stage.settings) == len(events))
    assert second.drain().code == 0
    assert_exact(stage, events)


def test_a_frozen_worker_that_wakes_doubles_nothing(stage: Stage) -> None:
    """Case 22: SIGSTOP past the session timeout, another worker takes over, SIGCONT: what the first has is refused."""
    events = produce_events(stage, 20_000, seed=6)
    frozen = WorkerProcess(stage.folder, batch_rows=300)
    frozen.until(lambda: history_count(stage.settings) >= 2_000)
    with holding_write(stage.settings):  # frozen within a transaction it would stop every writer (guarantees.md)
        frozen.freeze()
    before = history_count(stage.settings)
    second = WorkerProcess(stage.folder, batch_rows=300)
    second.until(lambda: history_count(stage.settings) >= before + 2_000)
    frozen.signal(signal.SIGCONT)
    second.until(lambda: history_count(stage.settings) == len(events))
    for worker in (frozen, second):
        ended = worker.drain()
        assert ended.code == 0, ended.log
    assert_exact(stage, events)


def test_garbage_stops_it_at_the_limit_with_flat_memory(stage: Stage) -> None:
    """Case 8: a topic of nothing but garbage: the worker stops with a sentence, its memory flat; so does the next."""
    usual = WorkerProcess(stage.folder)
    produce(stage.broker, "plane", [(at % PARTITIONS, b"garbage") for at in range(400)])  # as many as a bad day has
    produce_events(stage, 2_000, seed=3)
    usual.until(lambda: history_count(stage.settings) == 2_000)
    baseline = usual.drain()
    assert baseline.code == 0, baseline.log
    garbage = random.Random(4)
    produce(stage.broker, "plane", [(at % PARTITIONS, garbage.randbytes(60)) for at in range(120_000)])
    for _ in range(2):
        ended = WorkerProcess(stage.folder).wait()
        assert ended.code == 1
        assert "plane[" in ended.log
        assert "stopped before any more become dead letters" in ended.log
        assert "Traceback" not in ended.log
        assert ended.peak_kib - baseline.peak_kib < 50 * 1024
    letters = list(read_dead_letters(stage.broker, "plane", timeout_s=10))
    assert len(letters) <= 400 + PARTITIONS * stage.settings.dlq_max_consecutive
    assert history_count(stage.settings) == 2_000


def test_a_broker_that_ends_ends_the_worker(tmp_path: Path) -> None:
    """Case 30: the embedded broker never comes back as the same one: the worker ends with a sentence, exit code 1."""
    with broker_process(tmp_path) as process:
        settings = settings_of(tmp_path)
        broker = need_broker(settings)
        apply(settings, broker, group(partitions=PARTITIONS))
        worker = WorkerProcess(tmp_path)
        produce_events(Stage(tmp_path, settings, broker), 100, seed=5)
        worker.until(lambda: history_count(settings) == 100)
        process.terminate()
        ended = worker.wait()
    assert ended.code == 1, ended.log
    assert "the embedded broker (control port" in ended.log
    assert "Traceback" not in ended.log
