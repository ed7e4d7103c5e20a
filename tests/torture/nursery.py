"""A process that has imported everything once and forks workers: a worker is there in milliseconds, not in seconds.

``python -m tests.torture.nursery`` reads orders from stdin and writes what happens to stdout, one JSON object a line.
It has one thread and no event loop, so a child begins as a fresh interpreter would that had just finished importing,
and goes the ordinary way from there (`worker_main`). When stdin ends it ends, and takes the workers with it.

* order ``{"id": 7, "log": PATH, "settings": {NAME: VALUE, …}}`` gives ``{"id": 7, "pid": 4711}``;
* the end of a worker gives ``{"id": 7, "code": -9}``.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from oomstream.agents.worker import worker_main
from oomstream.stores.settings import load_settings

# What a worker imports only when it needs it.
LATER = (
    "aiokafka.consumer.consumer",
    "oomstream.stores.sql.history",
    "oomstream.stores.sql.online",
    "oomstream.stores.sql.sqlite",
)
LATER_ON_SERVERS = ("oomstream.stores.sql.mysql", "oomstream.stores.tikv.store", "tikv_client.asynchronous")

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_libc = ctypes.CDLL(None, use_errno=True)


class Nursery:
    """The loop of the process."""

    def __init__(self) -> None:
        self._workers: dict[int, int] = {}
        self._pid = os.getpid()
        self._wake, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        """Take orders until there are no more."""
        with selectors.DefaultSelector() as ready:
            ready.register(0, selectors.EVENT_READ)
            ready.register(self._wake, selectors.EVENT_READ)
            rest = b""
            while True:
                fds = {key.fd for key, _ in ready.select()}
                if self._wake in fds:
                    os.read(self._wake, 4096)
                    self._reap()
                if 0 in fds:
                    more = os.read(0, 1 << 16)
                    if not more:
                        return
                    *lines, rest = (rest + more).split(b"\n")
                    for line in lines:
                        self._start(json.loads(line))

    def _start(self, order: dict[str, Any]) -> None:
        pid = os.fork()
        if pid == 0:
            _be_worker(order, self._pid)
        self._workers[pid] = order["id"]
        _say(id=order["id"], pid=pid)

    def _reap(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _say(id=self._workers.pop(pid), code=os.waitstatus_to_exitcode(status))

    def end(self) -> None:
        """Kill the workers that are left."""
        for pid in self._workers:
            os.kill(pid, signal.SIGKILL)


def _say(**what: int) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def _be_worker(order: dict[str, Any], parent: int) -> NoReturn:
    """In the child: what a shell would have done for it, then the worker itself."""
    _libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for here, there in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(here, there)
    settings = {name: Path(value) if name == "data_dir" else value for name, value in order["settings"].items()}
    sys.exit(worker_main(load_settings(**settings)))


def main(servers: bool) -> None:
    """Import, and serve."""
    for module in (*LATER, *(LATER_ON_SERVERS if servers else ())):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # what is imported is never looked at again, so its pages stay shared
    nursery = Nursery()
    _say(id=0, pid=os.getpid())
    try:
        nursery.serve()
    finally:
        if os.getpid() == nursery._pid:  # a child passes here too, on its way out
            nursery.end()


if __name__ == "__main__":
    main("--servers" in sys.argv[1:])
