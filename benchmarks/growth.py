"""What grows with history, with partitions and with features, and how fast: always beside the smallest size.

Embedded. All sizes of a series take turns in every round, so that a size and the smallest are measured within seconds
of each other: a worker process ingests new events on top of what is there, a process reads 100 entities online again
and again, another makes a training set of the same number of labels. What must grow, and why: docs/performance.md.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks import growth_figures as of
from benchmarks import wide_planes
from benchmarks.contender import Contender
from benchmarks.growth_figures import Found, Size, figures
from benchmarks.options import Options
from benchmarks.plane_history import ROWS_PER_ENTITY, write_labels
from benchmarks.results import Figure
from benchmarks.stopwatch import Spent
from oomstream.agents.broker import EmbeddedBroker
from oomstream.stores.settings import load_settings

ROWS = (1_000_000, 10_000_000, 30_000_000)
PARTITIONS = (1, 8, 64)
FEATURES = (5, 50, 200)

LABELS = 100_000
EVENTS_ON_ROWS = 100_000
EVENTS_ON_PARTITIONS = 50_000
"""As many as the embedded broker keeps of one partition, with a margin."""
EVENTS_ON_FEATURES = 20_000
"""As many of 200 features as it keeps of eight partitions."""
ROWS_UNDER_FEATURES = 200_000
ENTITIES_ON_PARTITIONS = 10_000
ROUNDS = 3
QUICK_SHARE = 1_000
DEADLINE_S = 600


class Work(NamedTuple):
    """How much is done in a series.

    Attributes:
        rows: Rows of history to begin with; 0 for none, and no reads.
        events: Events that a worker ingests a round.
        labels: Labels of a training set.
        features: Features of the group.
        partitions: Partitions of its topic.
    """

    rows: int
    events: int
    labels: int = LABELS
    features: int = 5
    partitions: int = 8

    def share(self) -> Work:
        """A thousandth of it."""
        # Rows are those of whole entities, and so many that a lookup of each label takes less than a scan.
        rows = max(2 * ROWS_PER_ENTITY, self.rows // QUICK_SHARE) if self.rows else 0
        return self._replace(rows=rows, events=self.events // QUICK_SHARE, labels=self.labels // QUICK_SHARE)


def series() -> Iterator[list[tuple[Size, Work]]]:
    """Every series: its sizes, the smallest first, and the work at each."""
    yield [(Size("rows", count), Work(count, EVENTS_ON_ROWS)) for count in ROWS]
    on_partitions = Work(0, EVENTS_ON_PARTITIONS)
    yield [(Size("partitions", count), on_partitions._replace(partitions=count)) for count in PARTITIONS]
    on_features = Work(ROWS_UNDER_FEATURES, EVENTS_ON_FEATURES)
    yield [(Size("features", count), on_features._replace(features=count)) for count in FEATURES]


def run(options: Options) -> Iterator[Figure]:
    """Measure every series; one beside servers would measure their machine, so there is none."""
    if options.servers:
        print("  left out: growth is measured embedded")
        return
    for sizes in series():
        # A quick run does a thousandth of the work, at both ends of the series.
        chosen = [(size, work.share()) for size, work in (sizes[0], sizes[-1])] if options.quick else sizes
        yield from _measure(chosen, min(options.pairs, ROUNDS))


def _measure(sizes: Sequence[tuple[Size, Work]], rounds: int) -> Iterator[Figure]:
    found: Found = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        places = [Place(Path(folder, str(at)), size, work) for at, (size, work) in enumerate(sizes)]
        for each in places:
            each.fill()
        for each in places:
            each.start_readers(stack)
        for at in range(rounds):
            first = at % len(places)  # none always begins
            for each in [*places[first:], *places[:first]]:
                each.round(at, found)
    yield from figures(found)


class Place:
    """One size of a series: its stores, and the processes that read them.

    Args:
        folder: Where its files are made.
        size: Which size.
        work: What is done there.
    """

    def __init__(self, folder: Path, size: Size, work: Work) -> None:
        self._size, self._work, self._folder = size, work, folder
        self._entities = work.rows // ROWS_PER_ENTITY or ENTITIES_ON_PARTITIONS
        self._settings = load_settings(data_dir=folder)
        self._registered = wide_planes.make(self._settings, work.features, work.partitions)
        self._labels = folder / "labels.parquet"
        self._reads: Contender | None = None
        self._training: Contender | None = None

    def fill(self) -> None:
        """Write history, online rows and labels, if there is to be a history."""
        if not self._work.rows:
            return
        began = time.monotonic()
        wide_planes.fill(self._settings, self._registered, self._work.rows)
        write_labels(self._labels, self._work.rows, self._work.labels)
        os.sync()  # or the system writes what was just made while something is measured
        print(f"  {self._size}: history written in {time.monotonic() - began:,.0f} s", flush=True)

    def start_readers(self, stack: ExitStack) -> None:
        """Start the processes that read, and have each work once: that pays for imports and cold caches."""
        if not self._work.rows:
            return
        environment = {"OOMSTREAM_DATA_DIR": str(self._folder)}

        def started(name: str, argument: object) -> Contender:
            arguments = (name, str(self._work.features), str(argument))
            return stack.enter_context(Contender("benchmarks.growth_reader", *arguments, environment=environment))

        self._reads, self._training = started("reads", self._entities), started("training", self._labels)
        for each in (self._reads, self._training):
            each.wait_ready()
            each.work()

    def round(self, at: int, found: Found) -> None:
        """Ingest, read and join once."""
        ingested, peak_kib = self._ingest(at)
        events = self._work.events
        seen = {
            of.INGEST: events / ingested.seconds,
            of.INGEST_CPU: ingested.cpu_s / events * 1e6,
            of.WORKER_MEMORY: peak_kib / 1024,
        }
        if self._reads is not None and self._training is not None:
            reads, training = self._reads.work(), self._training.work()
            seen |= {
                of.READ_P50: reads.found[0],
                of.READ_P99: reads.found[1],
                of.TRAINING: training.seconds,
                of.TRAINING_CPU: training.cpu_s,
                of.TRAINING_MEMORY: training.peak_kib / 1024,
            }
        else:
            # Not what it takes: batches of all partitions are under way when the first are done.
            seen[of.FULL_WORKER_MEMORY] = self._ingest(at, full=True)[1] / 1024
        for measure, value in seen.items():
            found.setdefault((measure, self._size), []).append(value)
        told = ", ".join(f"{value:,.4g} {measure.unit}" for measure, value in seen.items())
        print(f"  {self._size}, round {at + 1}: {told}", flush=True)

    def _ingest(self, at: int, *, full: bool = False) -> tuple[Spent, int]:
        """Have a worker process ingest this round's events; what it spent, and its peak memory in KiB.

        Args:
            at: The round.
            full: Whether every partition holds so many events; as many as in all are ingested.
        """
        events = wide_planes.new_events(self._registered, self._entities, self._work.events, seed=at)
        with tempfile.TemporaryDirectory(dir=self._folder) as empty, EmbeddedBroker() as broker:
            times = self._work.partitions if full else 1
            wide_planes.produce(broker.broker, self._registered.group, events, times=times)
            stores = self._folder
            if not self._work.rows:  # each round on stores of its own
                stores = Path(empty)
                for each in self._folder.glob("*.db"):
                    shutil.copy(each, stores)
            environment = {**os.environ, "OOMSTREAM_BROKER_URL": broker.url, "OOMSTREAM_DATA_DIR": str(stores)}
            command = [sys.executable, "-m", "benchmarks.worker_round", str(self._work.events)]
            done = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=DEADLINE_S
            )
        *spent, peak_kib = json.loads(done.stdout)
        return Spent(*spent), peak_kib
