"""Ending the process without a crash.

tikv-client's Rust threads touch Python for a moment after a call has answered, and the interpreter is torn down under
them if it ends just then: SIGSEGV or SIGABRT in about one of four programs that end after many reads, and rows that
stay locked for seconds because the second half of a commit was still under way. So the end waits until the last call
is a little while ago and the threads have gone to sleep. Delete this module with the driver that needs it.
"""

from __future__ import annotations

import atexit
import os
import time
from pathlib import Path

from oomstream.schemas.errors import InvalidSetting

QUIET_S = 0.3
"""How long after the last call the interpreter may end (measured: 0.2 s was enough in 24 of 24 runs)."""

_LONGEST_S = 2.0
"""How much longer a machine that is so busy that the threads do not get to run may hold up the end."""

_LOOK_EVERY_S = 0.02

_last_call: float | None = None
_pid: int | None = None


def prepare() -> None:
    """Arrange for the wait; before the first connection of the process.

    Raises:
        InvalidSetting: The process was forked from one that had connected; the client's threads are not in the fork.
    """
    global _pid
    if _pid is None:
        _pid = os.getpid()
        atexit.register(_wait)
    check_process()


def check_process() -> None:
    """Make sure that the client's threads are those of this process.

    Raises:
        InvalidSetting: They are not: this is a fork.
    """
    if _pid is not None and _pid != os.getpid():
        raise InvalidSetting(
            "TiKV was used before this process was forked, and its client does not survive that: open the store only "
            "after forking (for multiprocessing: the start method 'spawn'; for a pre-fork server: no preloading)"
        )


def touch() -> None:
    """Note that a call was under way until now."""
    global _last_call
    _last_call = time.monotonic()


def _wait() -> None:
    if _last_call is None or _pid != os.getpid():
        return
    time.sleep(max(0.0, _last_call + QUIET_S - time.monotonic()))
    end = time.monotonic() + _LONGEST_S
    while _threads_run() and time.monotonic() < end:
        time.sleep(_LOOK_EVERY_S)


def _threads_run() -> bool:
    """Whether a thread of the client's runs or waits for a processor."""
    for thread in Path("/proc/self/task").glob("*/stat"):
        try:
            # pid (name) state …, and the name may hold anything.
            name, _, rest = thread.read_text(errors="replace").partition("(")[2].rpartition(")")
        except OSError:
            continue  # it has ended
        if name.startswith("tokio") and rest.split()[0] == "R":
            return True
    return False
