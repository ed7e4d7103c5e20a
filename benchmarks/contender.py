"""A contender in a process of its own that lives through all rounds: ready once, then timed as often as asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from benchmarks.memory import peak_kib

ROOT = Path(__file__).parents[1]


class Done(NamedTuple):
    """What a contender says of one round.

    Attributes:
        seconds: How long the work took.
        found: What came out, in a few numbers, by which contenders are held against each other.
        peak_kib: Peak memory of its process so far, KiB.
        cpu_s: Seconds of processor time of its process, in all threads: what else the machine does is not in them.
    """

    seconds: float
    found: Sequence[float]
    peak_kib: int
    cpu_s: float


class Contender:
    """A process that gets ready at once and works when it is told to.

    Args:
        module: Module whose `__main__` calls `serve`.
        arguments: Its arguments.
        environment: Variables beside those of this process.
        python: The interpreter.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> None:
        self._name = " ".join((module, *arguments))
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.peak_kib = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._process.communicate()
        else:
            self._process.kill()
            self._process.wait()

    def wait_ready(self) -> None:
        """Wait until it has all it needs in memory."""
        self._line()

    def work(self) -> Done:
        """Have it do its work once."""
        done = Done(*json.loads(self.ask("go")))
        self.peak_kib = done.peak_kib
        return done

    def ask(self, order: str) -> str:
        """Give it a line, and wait for the line that it answers with."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a contender ended with exit code {self._process.wait(10)}: {self._name}")
        return line


def serve(work: Callable[[], tuple[float, Sequence[Any]]]) -> None:
    """What a contender's process runs once it is ready: one round for each line that comes.

    Args:
        work: Does the work; gives the seconds that it took and what came out.
    """
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.process_time()
        seconds, found = work()
        print(json.dumps([seconds, found, peak_kib(), time.process_time() - began]), flush=True)
