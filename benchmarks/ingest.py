"""How fast a worker ingests, beside a bare loop that does the same work with no promises.

Both read the same events from the embedded broker, which runs in this process, each time into fresh SQLite stores;
they take turns, each in a process of its own. Times run from when a process is ready to read until the last event is
stored.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.flight_events import PARTITIONS, produce, ready_stores
from benchmarks.options import Options
from benchmarks.pairs import alternate
from benchmarks.results import Figure
from oomstream.agents.broker import EmbeddedBroker
from oomstream.stores.settings import Settings, load_settings
from oomstream.streams.topics import ensure_topics, topics_of

EVENTS = 240_000
"""As many landings as the embedded broker keeps in 4 partitions, with a margin."""
QUICK_EVENTS = 20_000
DEADLINE_S = 300


def run(options: Options) -> Iterator[Figure]:
    """Measure events/s of one worker process against the bare loop's."""
    wanted = QUICK_EVENTS if options.quick else EVENTS
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker() as broker:
        group = ready_stores(load_settings(data_dir=Path(folder, "definitions")))
        ensure_topics(broker.broker, topics_of([group]), timeout_s=30)
        events = produce(broker.broker, group, wanted)
        what = f"{events:,} landings, {PARTITIONS} partitions"
        pairs = alternate(
            lambda at: events / _timed("worker", events, broker.url, Path(folder, f"worker{at}")),
            lambda at: events / _timed("bare_loop", events, broker.url, Path(folder, f"bare{at}")),
            pairs=options.pairs,
            label=what,
        )
        yield Figure("ingest", what, "embedded", "events/s", pairs.ours, "bare loop", pairs.yardstick, goal=1.0)


def _timed(name: str, events: int, broker_url: str, data_dir: Path) -> float:
    environment = {**os.environ, "OOMSTREAM_BROKER_URL": broker_url, "OOMSTREAM_DATA_DIR": str(data_dir)}
    module = "benchmarks.bare_loop" if name == "bare_loop" else "benchmarks.ingest"
    command = [sys.executable, "-m", module, str(events)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=DEADLINE_S)
    return float(done.stdout)


async def _run_worker(settings: Settings, events: int) -> float:
    from oomstream.agents.worker import Worker
    from oomstream.agents.worker.process import collect_seldom, quiet_libraries

    quiet_libraries()
    collect_seldom()  # as `worker_main` does both
    worker = Worker(settings)
    task = asyncio.ensure_future(worker.run())
    ready = asyncio.ensure_future(worker.wait_ready())
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    began = time.perf_counter()
    while worker.metrics.events < events and not task.done():
        await asyncio.wait({task}, timeout=0.005)
    seconds = time.perf_counter() - began
    worker.stop()
    await task
    return seconds


if __name__ == "__main__":
    chosen = load_settings()
    ready_stores(chosen)
    print(asyncio.run(_run_worker(chosen, int(sys.argv[1]))))
