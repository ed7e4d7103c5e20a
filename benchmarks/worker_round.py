"""A round of a worker process on stores that are there: until it has ingested so many events.

It imports no more than a worker does, so that its memory is a worker's.

Usage: python -m benchmarks.worker_round EVENTS
"""

from __future__ import annotations

import asyncio
import json
import sys

from benchmarks.memory import peak_kib
from benchmarks.stopwatch import Spent, Stopwatch
from oomstream.stores.settings import Settings, load_settings


async def run_worker(settings: Settings, events: int) -> Spent:
    """Run a worker until it has ingested so many events; what it spent since it had its partitions."""
    from oomstream.agents.worker import Worker
    from oomstream.agents.worker.process import collect_seldom, quiet_libraries

    quiet_libraries()
    collect_seldom()  # as `worker_main` does both
    worker = Worker(settings)
    task = asyncio.ensure_future(worker.run())
    ready = asyncio.ensure_future(worker.wait_ready())
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    watch = Stopwatch()
    while worker.metrics.events < events and not task.done():
        await asyncio.wait({task}, timeout=0.005)
    spent = watch.spent()
    worker.stop()
    await task
    return spent


if __name__ == "__main__":
    print(json.dumps([*asyncio.run(run_worker(load_settings(), int(sys.argv[1]))), peak_kib()]))
