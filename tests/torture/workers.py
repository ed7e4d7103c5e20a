"""Workers from the nursery: starting, signalling and waiting for them, and what they wrote."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.faults.harness import ROOT
from tests.torture.errors import TortureFailed

START_S = 30.0
"""How long the nursery, or a worker's start in it, may take."""


class TortureWorker:
    """One worker, from its start to its end.

    Attributes:
        number: Counts the workers of the run from 1.
        pid: Its process.
        log_path: What it writes.
    """

    def __init__(self, number: int, pid: int, log_path: Path) -> None:
        self.number = number
        self.pid = pid
        self.log_path = log_path
        self._code: int | None = None
        self._ended = threading.Event()
        self._handle = os.pidfd_open(pid)  # a process number may be given to another process, this not

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it lives."""
        return self._code

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def claims(self) -> int:
        """How many partitions it has claimed so far, repeated claims included."""
        return self.log.count(": claimed at offset ")

    @property
    def stopped(self) -> bool:
        """Whether it is frozen."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state == "T"

    def wait_stopped(self) -> bool:
        """Wait until every thread of it stands still after SIGSTOP; False if it is gone."""
        deadline = time.monotonic() + START_S
        while self._code is None:
            if all(state == "T" for state in self._thread_states()):
                return True
            if time.monotonic() > deadline:
                raise TortureFailed(f"worker {self.number} did not stop within {START_S:g} s: see {self.log_path}")
            time.sleep(0.001)
        return False

    def _thread_states(self) -> list[str]:
        states = []
        for task in Path(f"/proc/{self.pid}/task").glob("*/stat"):
            with suppress(OSError):  # a thread that has just ended
                states.append(task.read_text().rpartition(")")[2].split()[0])
        return states

    def signal(self, number: signal.Signals) -> bool:
        """Send it a signal; False if it is gone."""
        try:
            signal.pidfd_send_signal(self._handle, number)
        except (ProcessLookupError, OSError):
            return False
        return True

    def kill(self, timeout_s: float = START_S) -> int:
        """SIGKILL, and wait for its end; returns the exit code, which tells whether it was faster."""
        self.signal(signal.SIGKILL)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float) -> int:
        """Wait for its end.

        Raises:
            TortureFailed: It did not end.
        """
        if not self._ended.wait(timeout_s):
            raise TortureFailed(f"worker {self.number} did not end within {timeout_s:g} s: see {self.log_path}")
        assert self._code is not None
        return self._code

    def end(self, code: int) -> None:
        """Note its end."""
        self._code = code
        os.close(self._handle)
        self._handle = -1
        self._ended.set()


class WorkerNursery:
    """Starts workers by fork; see `nursery`.

    Args:
        folder: Where their logs go.
        settings: Settings of every worker, as JSON knows them.
        servers: Whether they will need the clients of servers.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, servers: bool) -> None:
        self._folder = folder
        self._settings = dict(settings)
        self._command = [sys.executable, "-m", "tests.torture.nursery", *(["--servers"] if servers else [])]
        self._numbers = itertools.count(1)
        self._told = threading.Condition()
        self._pids: dict[int, int] = {}
        self._codes: dict[int, int] = {}
        self._workers: dict[int, TortureWorker] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        threading.Thread(target=self._listen, name="nursery", daemon=True).start()
        self._wait_for(lambda: 0 in self._pids)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        for worker in list(self._workers.values()):
            worker.signal(signal.SIGKILL)
        process.stdin.close()
        process.wait(START_S)

    def start(self, crash_at: str | None = None) -> TortureWorker:
        """Start a worker.

        Args:
            crash_at: The crash point at which it dies, as ``point:n``.
        """
        number = next(self._numbers)
        log = self._folder / f"worker-{number:05d}.log"
        settings = self._settings if crash_at is None else {**self._settings, "crash_at": crash_at}
        order = {"id": number, "log": str(log), "settings": settings}
        process = self._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
        self._wait_for(lambda: number in self._pids)
        with self._told:
            worker = self._workers[number] = TortureWorker(number, self._pids.pop(number), log)
            if number in self._codes:
                worker.end(self._codes.pop(number))
                del self._workers[number]
        return worker

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        with self._told:
            if not self._told.wait_for(condition, START_S):
                raise TortureFailed("the process that forks workers does not answer")

    def _listen(self) -> None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                told = json.loads(line)
                with self._told:
                    if "pid" in told:
                        self._pids[told["id"]] = told["pid"]
                    elif (worker := self._workers.pop(told["id"], None)) is not None:
                        worker.end(told["code"])
                    else:
                        self._codes[told["id"]] = told["code"]
                    self._told.notify_all()


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str, *, poll_s: float = 0.01) -> None:
    """Wait until a condition holds.

    Raises:
        TortureFailed: It does not within the time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TortureFailed(f"{what}: not within {timeout_s:g} s")
        time.sleep(poll_s)
