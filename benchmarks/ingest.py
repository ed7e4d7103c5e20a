"""How fast a worker ingests, beside a bare loop that does the same work with no promises.

Both read the same events, each time into fresh stores; they take turns, each in a process of its own. Times run from
when a process is ready to read until the last event is stored. Embedded, the broker runs in this process, and the
stores are SQLite files; on servers, the stores are a database of TiDB and a namespace of TiKV, which are removed again.

Usage of a round: python -m benchmarks.ingest EVENTS TOPIC
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from confluent_kafka.admin import AdminClient

from benchmarks.flight_events import GROUP, PARTITIONS, forget_stores, produce, ready_stores
from benchmarks.options import Options
from benchmarks.pairs import alternate
from benchmarks.results import Figure
from benchmarks.stopwatch import Spent
from benchmarks.worker_round import run_worker
from oomstream.agents.broker import EmbeddedBroker
from oomstream.stores.settings import Settings, load_settings
from oomstream.stores.urls import url_with_path
from oomstream.streams.broker import need_broker
from oomstream.streams.topics import ensure_topics, topics_of

EVENTS = 240_000
"""As many landings as the embedded broker keeps in 4 partitions, with a margin."""
SERVER_EVENTS = 80_000
QUICK_EVENTS = 20_000
DEADLINE_S = 300


class _Place(NamedTuple):
    """Where the events are, and where stores may be made.

    Attributes:
        topic: Their topic.
        events: How many there are.
        environment: Variables that name the broker.
        folder: For files.
        servers: Whether stores are made on servers.
    """

    topic: str
    events: int
    environment: Mapping[str, str]
    folder: Path
    servers: bool

    def settings(self, name: str) -> tuple[Settings, dict[str, str]]:
        """Stores of that name, and the variables that say so."""
        said = {**self.environment, "OOMSTREAM_DATA_DIR": str(self.folder / name)}
        if self.servers:
            fresh = f"{self.topic}_{name}"
            for variable in ("OOMSTREAM_HISTORY_URL", "OOMSTREAM_ONLINE_URL"):
                said[variable] = url_with_path(os.environ[variable], fresh)
            urls = {"history_url": said["OOMSTREAM_HISTORY_URL"], "online_url": said["OOMSTREAM_ONLINE_URL"]}
            return load_settings(data_dir=self.folder / name, **urls), said
        return load_settings(data_dir=self.folder / name), said


def run(options: Options) -> Iterator[Figure]:
    """Measure events/s of one worker process against the bare loop's."""
    bare = "benchmarks.bare_loop_servers" if options.servers else "benchmarks.bare_loop"
    workers: list[Spent] = []
    bares: list[Spent] = []
    with _events(options) as place:
        what = f"{place.events:,} landings, {PARTITIONS} partitions"
        pairs = alternate(
            lambda at: place.events / _timed("benchmarks.ingest", f"worker{at}", place, workers),
            lambda at: place.events / _timed(bare, f"bare{at}", place, bares),
            pairs=options.pairs,
            label=what,
        )
    facts = {
        "events_per_core_s": _per_core(place.events, workers),
        "yardstick_events_per_core_s": _per_core(place.events, bares),
    }
    yield Figure(
        "ingest",
        what,
        "Kafka, TiDB, TiKV" if options.servers else "embedded",
        "events/s",
        pairs.ours,
        "bare loop",
        pairs.yardstick,
        goal=1.2 if options.servers else 1.0,
        facts=facts,
    )


def _per_core(events: int, spent: list[Spent]) -> float:
    """Events a second of processor time of the client process, the median."""
    return statistics.median(events / each.cpu_s for each in spent)


@contextmanager
def _events(options: Options) -> Iterator[_Place]:
    """A topic full of events, which is there until the end of the block."""
    wanted = QUICK_EVENTS if options.quick else SERVER_EVENTS if options.servers else EVENTS
    with tempfile.TemporaryDirectory() as folder:
        if not options.servers:
            with EmbeddedBroker() as broker:
                environment = {"OOMSTREAM_BROKER_URL": broker.url}
                settings = load_settings(data_dir=Path(folder, "definitions"), broker_url=broker.url)
                events = _fill(settings, GROUP, wanted)
                yield _Place(GROUP, events, environment, Path(folder), servers=False)
            return
        # Of its own: other benchmarks on the same servers use the group's usual one.
        topic = f"ingest_{uuid.uuid4().hex[:12]}"
        files = {f"{each}_url": f"sqlite:///{folder}/{each}.db" for each in ("history", "online")}
        settings = load_settings(**files)
        try:
            events = _fill(settings, topic, wanted)
            yield _Place(topic, events, {}, Path(folder), servers=True)
        finally:
            admin = AdminClient(need_broker(settings).client_config(30.0))
            for deleted in admin.delete_topics([topic, f"{topic}.dlq"]).values():
                deleted.result(30.0)


def _fill(settings: Settings, topic: str, wanted: int) -> int:
    group = ready_stores(settings, topic)
    ensure_topics(need_broker(settings), topics_of([group]), timeout_s=30)
    return produce(need_broker(settings), group, wanted)


def _timed(module: str, name: str, place: _Place, rounds: list[Spent]) -> float:
    settings, said = place.settings(name)
    command = [sys.executable, "-m", module, str(place.events), place.topic]
    try:
        done = subprocess.run(
            command, env={**os.environ, **said}, stdout=subprocess.PIPE, text=True, check=True, timeout=DEADLINE_S
        )
    finally:
        if place.servers:
            forget_stores(settings)
    rounds.append(Spent.heard(done.stdout))
    return rounds[-1].seconds


if __name__ == "__main__":
    chosen = load_settings()
    ready_stores(chosen, sys.argv[2])
    print(asyncio.run(run_worker(chosen, int(sys.argv[1]))).told())
