"""Start the real servers for a person to play with: ``python -m tests.services``; ``… build`` only builds them."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading

from tests.services import kafka, tidb, tikv
from tests.services.build import BuildFailed
from tests.services.server import ServerFailed, ServerMissing


def main() -> int:
    """Do what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.services", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["start", "build"], default="start")
    command = parser.parse_args().command
    try:
        return _build() if command == "build" else _start()
    except (BuildFailed, ServerFailed, ServerMissing) as exc:
        print(exc, file=sys.stderr)
        return 1


def _build() -> int:
    complete = True
    for module, build in ((kafka, kafka.jars), (tidb, tidb.binary), (tikv, tikv.binary)):
        native = module.available("native")
        if native.way:
            print(f"{native.what}: {build()}")
        else:
            print(native.missing, file=sys.stderr)
            # Images need no building.
            complete = complete and module.available().way == "docker"
    return 0 if complete else 1


def _start() -> int:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with contextlib.ExitStack() as running:
        lines = []
        for variable, module in (("BROKER", kafka), ("HISTORY", tidb), ("ONLINE", tikv)):
            available = module.available()
            available.required()
            print(f"starting {available} …", file=sys.stderr, flush=True)
            server = running.enter_context(module.start())
            url = f"{server.url}/test" if module is tidb else server.url
            lines.append(f"export OOMSTREAM_{variable}_URL={url}")
            if stop.is_set():
                return 0
        print("\n".join(["", *lines, "", "Ctrl-C stops them; their data goes with them."]), flush=True)
        stop.wait()
        print("stopping …", file=sys.stderr, flush=True)
    return 0


sys.exit(main())
