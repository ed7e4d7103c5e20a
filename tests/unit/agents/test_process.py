"""The worker as a process ends with the right exit code, whatever happens to it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

PREAMBLE = """
import asyncio, functools, sys
from pathlib import Path
from oomstream.agents.worker import process
from oomstream.stores.settings import load_settings
"""

STUCK = """
class Stuck(process.Worker):
    async def run(self):
        print("ready", flush=True)
        while True:  # ends for nobody, not even when it is cancelled
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass

process.Worker = Stuck
process.HardExit = functools.partial(process.HardExit, 0.3)
"""

BLOCKED = """
import time

class Blocked(process.Worker):
    async def run(self):
        print("ready", flush=True)
        await self._stop.wait()
        time.sleep(3600)  # the event loop itself stands still

process.Worker = Blocked
process.HardExit = functools.partial(process.HardExit, 0.3)
"""

RUN = """
sys.exit(process.worker_main(load_settings(data_dir=Path(sys.argv[1]))))
"""


def ended_by_sigterm(program: str, folder: Path) -> tuple[int, str]:
    """Exit code and stderr of a worker that gets SIGTERM once it runs."""
    command = [sys.executable, "-c", PREAMBLE + program + RUN, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def test_an_end_that_does_not_come_is_made_hard(tmp_path: Path) -> None:
    """Case 29: a worker that does not end in order after SIGTERM ends with exit code 70, and says so."""
    for program in (STUCK, BLOCKED):
        code, errors = ended_by_sigterm(program, tmp_path)
        assert code == 70, errors
        assert "did not end in time" in errors


def test_wrong_settings_are_wrong_use(tmp_path: Path) -> None:
    """A crash point that does not exist is exit code 2 and one sentence, before anything is read."""
    program = PREAMBLE + 'sys.exit(process.worker_main(load_settings(crash_at="nowhere", data_dir=Path(sys.argv[1]))))'
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "no crash point 'nowhere'" in done.stderr
    assert "Traceback" not in done.stderr
