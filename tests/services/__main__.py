"""Start the real servers for a person to play with: ``python -m tests.services``.

``… build`` only builds them; ``… run COMMAND`` runs a command on them, with their URLs in its environment.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from tests.services import kafka, oomclient, tidb, tikv
from tests.services.build import BuildFailed
from tests.services.server import ServerFailed, ServerMissing


def main() -> int:
    """Do what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.services", description="Start Kafka, TiDB and TiKV.")
    parser.add_argument("command", nargs="?", choices=["start", "build", "run"], default="start")
    parser.add_argument("argv", nargs=argparse.REMAINDER, metavar="…", help="run: the command and its arguments")
    asked = parser.parse_args()
    try:
        return _build() if asked.command == "build" else _start(asked.argv)
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
    if missing := oomclient.missing():
        print(missing, file=sys.stderr)  # its tests are skipped
    else:
        print(f"oomclient {oomclient.VERSION}: {oomclient.folder()}")
    return 0 if complete else 1


def _start(argv: Sequence[str]) -> int:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with contextlib.ExitStack() as running:
        urls = {}
        for variable, module in (("BROKER", kafka), ("HISTORY", tidb), ("ONLINE", tikv)):
            available = module.available()
            available.required()
            print(f"starting {available} …", file=sys.stderr, flush=True)
            server = running.enter_context(module.start())
            urls[f"OOMSTREAM_{variable}_URL"] = f"{server.url}/test" if module is tidb else server.url
            if stop.is_set():
                return 130
        code = 0
        if argv:
            # A Ctrl-C reaches the command too, which ends in its own way.
            code = subprocess.run(argv, env={**os.environ, **urls}, check=False).returncode
        if not argv or (code == 0 and sys.stdin.isatty()):
            lines = [f"export {name}={url}" for name, url in urls.items()]
            print("\n".join(["", *lines, "", "Ctrl-C stops them; their data goes with them."]), flush=True)
            stop.wait()
        print("stopping the servers; their data goes with them …", file=sys.stderr, flush=True)
    return code


sys.exit(main())
