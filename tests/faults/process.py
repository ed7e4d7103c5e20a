"""Processes that the fault tests start: ``python -m tests.faults.process broker|worker FOLDER [NAME=VALUE …]``.

The worker's settings are given as JSON values by name. At its end it writes its peak memory to stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

from benchmarks.memory import peak_kib
from oomstream.agents.broker import EmbeddedBroker
from oomstream.agents.worker import worker_main
from oomstream.stores.settings import load_settings


def run_broker(folder: Path) -> int:
    """An embedded broker until SIGTERM, or until whoever started it is gone."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    parent = os.getppid()
    with EmbeddedBroker(folder):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while not ended.wait(1.0) and os.getppid() == parent:
            pass
    return 0


def run_worker(folder: Path, options: list[str]) -> int:
    """A worker as `oomstream worker` runs it."""
    given = {name: json.loads(value) for name, _, value in (each.partition("=") for each in options)}
    code = worker_main(load_settings(data_dir=folder, **given))
    sys.stderr.write(f"peak_kib={peak_kib()}\n")
    return code


if __name__ == "__main__":
    role, place, *more = sys.argv[1:]
    sys.exit(run_broker(Path(place)) if role == "broker" else run_worker(Path(place), more))
