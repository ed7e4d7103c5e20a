"""What a round of a process took: time, and processor time, which other work on the machine does not change."""

from __future__ import annotations

import json
import time
from typing import NamedTuple, Self


class Spent(NamedTuple):
    """What a round took.

    Attributes:
        seconds: Time that passed.
        cpu_s: Seconds of processor time of the process, in all its threads.
    """

    seconds: float
    cpu_s: float

    def told(self) -> str:
        """As a line for the process that asked."""
        return json.dumps(self)

    @classmethod
    def heard(cls, line: str) -> Self:
        """From the line."""
        return cls(*json.loads(line))


class Stopwatch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._began, self._began_cpu = time.perf_counter(), time.process_time()

    def spent(self) -> Spent:
        """What has been spent so far."""
        return Spent(time.perf_counter() - self._began, time.process_time() - self._began_cpu)
