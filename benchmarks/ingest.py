"""How fast a worker ingests, beside a bare loop that does the same work with no promises (goal: a third of it).

Both read the same events from the embedded broker, which runs in this process, each time into fresh SQLite stores;
they take turns, each in a process of its own, and the medians are compared. Times run from when a process is ready to
read until the last event is stored.

Usage: python -m benchmarks.ingest [EVENTS [ROUNDS]]
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.flight_events import PARTITIONS, produce, ready_stores
from oomstream.agents.broker import EmbeddedBroker
from oomstream.stores.settings import Settings, load_settings
from oomstream.streams.topics import ensure_topics, topics_of

EVENTS = 240_000
"""As many landings as the embedded broker keeps in 4 partitions, with a margin."""
ROUNDS = 3
GOAL = 1 / 3
DEADLINE_S = 300


def main() -> int:
    """Run the rounds and print the ratio; exit code 1 if it misses the goal."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS
    rates: dict[str, list[float]] = {"bare_loop": [], "worker": []}
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker() as broker:
        group = ready_stores(load_settings(data_dir=Path(folder, "definitions")))
        ensure_topics(broker.broker, topics_of([group]), timeout_s=30)
        events = produce(broker.broker, group, wanted)
        print(f"{events:,} landings in {PARTITIONS} partitions on the embedded broker; {rounds} rounds, taking turns")
        for at in range(rounds):
            for name in rates:
                rate = events / _timed(name, events, broker.url, Path(folder, f"{name}{at}"))
                rates[name].append(rate)
                print(f"  round {at + 1}  {name:<9} {rate:>9,.0f} events/s", flush=True)
    bare, worker = (statistics.median(rates[name]) for name in ("bare_loop", "worker"))
    ratio = worker / bare
    print(f"median     bare_loop {bare:>9,.0f} events/s")
    print(f"median     worker    {worker:>9,.0f} events/s")
    print(f"ratio      {ratio:.2f} (goal: at least {GOAL:.2f})")
    return 0 if ratio >= GOAL else 1


def _timed(name: str, events: int, broker_url: str, data_dir: Path) -> float:
    environment = {**os.environ, "OOMSTREAM_BROKER_URL": broker_url, "OOMSTREAM_DATA_DIR": str(data_dir)}
    module = "benchmarks.bare_loop" if name == "bare_loop" else "benchmarks.ingest"
    command = [sys.executable, "-m", module, str(events)] + (["--worker"] if name == "worker" else [])
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=DEADLINE_S)
    return float(done.stdout)


async def _run_worker(settings: Settings, events: int) -> float:
    from oomstream.agents.worker import Worker
    from oomstream.agents.worker.process import quiet_libraries

    quiet_libraries()
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
    if "--worker" in sys.argv:
        chosen = load_settings()
        ready_stores(chosen)
        print(asyncio.run(_run_worker(chosen, int(sys.argv[1]))))
    else:
        sys.exit(main())
