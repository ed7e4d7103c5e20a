"""Processes that have used TiKV end cleanly, whatever they did last and however they end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from oomstream.stores.settings import load_settings
from oomstream.stores.tikv.store import TikvOnlineStore
from tests.faults.tikv_rows import rows

ROOT = Path(__file__).parents[2]
RUNS = 5

pytestmark = pytest.mark.usefixtures("tikv_driver")
BASE = """
import asyncio, sys, threading
from oomstream.stores.opening import online_store
from oomstream.stores.settings import load_settings
from tests.faults.tikv_rows import rows

store = online_store(sys.argv[1], load_settings())

async def use():
    await store.open()
    await asyncio.gather(*[store.read([row.key]) for row in rows(1_000)])
    await store.upsert_newer(rows(500, 2))
"""
PROGRAMS = {
    "closed": "async def main():\n    await use()\n    await store.close()\nasyncio.run(main())",
    "not closed": "asyncio.run(use())",
    "calls under way": (
        "async def main():\n"
        "    await use()\n"
        "    tasks = [asyncio.create_task(store.read([row.key])) for row in rows(300)]\n"
        "    tasks.append(asyncio.create_task(store.upsert_newer(rows(500, 3))))\n"
        "    await asyncio.sleep(0)\n"
        "asyncio.run(main())"
    ),
    "an error at the end": "asyncio.run(use())\nsys.exit(7)",
    # What a service that imports the query module looks like: a loop in a thread that dies with the process.
    "a loop in a daemon thread": (
        "loop = asyncio.new_event_loop()\n"
        "threading.Thread(target=loop.run_forever, daemon=True).start()\n"
        "asyncio.run_coroutine_threadsafe(use(), loop).result()"
    ),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_clean_exit(tikv_url: str, program: str) -> None:
    """The exit code is the program's own, and nothing is written to stderr, each of several times."""
    for _ in range(RUNS):
        ended = subprocess.run(
            [sys.executable, "-c", BASE + PROGRAMS[program], tikv_url],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        expected = 7 if "exit(7)" in PROGRAMS[program] else 0
        assert (ended.returncode, ended.stderr) == (expected, "")


def test_nothing_is_locked_after_an_exit(tikv_url: str) -> None:
    """Rows that a program wrote last can be read at once when it has ended: its commits were finished."""

    async def ages() -> set[int]:
        async with TikvOnlineStore(tikv_url, load_settings()) as store:
            return {(await store.read_aged([row.key])).age_us for row in rows(500)}

    subprocess.run([sys.executable, "-c", BASE + PROGRAMS["not closed"], tikv_url], cwd=ROOT, timeout=60, check=True)
    assert asyncio.run(ages()) == {0}


def test_fork(tikv_url: str) -> None:
    """A process that was forked from one that used TiKV is told so, in place of a call that never returns."""
    program = (
        BASE
        + """
asyncio.run(use())
import os
from oomstream.schemas.errors import InvalidSetting
child = os.fork()
if child == 0:
    try:
        asyncio.run(use())
    except InvalidSetting as exc:
        os._exit(42 if "forked" in str(exc) else 1)
    os._exit(2)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    )
    ended = subprocess.run([sys.executable, "-c", program, tikv_url], cwd=ROOT, timeout=60, check=False)
    assert ended.returncode == 42


def test_a_fork_ends_at_once(tikv_url: str) -> None:
    """A process that was forked from one that used TiKV waits for nothing at its end: what goes on is the parent's."""
    program = (
        BASE
        + """
asyncio.run(use())
import os, time
began = time.monotonic()
if os.fork() == 0:
    sys.exit(0)
os.wait()
print(time.monotonic() - began)
"""
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, tikv_url], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert float(ended.stdout) < 1.5


@pytest.mark.parametrize("tikv_driver", ["native"], indirect=True)
def test_package_that_cannot_be_loaded(tmp_path: Path) -> None:
    """A native client that was built for another machine is a setting to correct, not a bug of the worker."""
    (tmp_path / "oomstream_tikv.py").write_text("raise ImportError('GLIBC_2.99 not found')")
    program = """
import asyncio
from oomstream.schemas.errors import InvalidSetting
from oomstream.stores.opening import online_store
from oomstream.stores.settings import load_settings
try:
    asyncio.run(online_store("tikv://127.0.0.1:1/name", load_settings()).open())
except InvalidSetting as exc:
    print(exc)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (
        "tikv://127.0.0.1:1/name: the package oomstream-tikv is installed but cannot be loaded (GLIBC" in ended.stdout
    )


@pytest.mark.parametrize("tikv_driver", ["tikv-client"], indirect=True)
def test_without_the_package() -> None:
    """Where neither client is installed, opening says what the store needs; the module itself can be imported."""
    program = """
import asyncio, sys
sys.modules["tikv_client"] = sys.modules["oomstream_tikv"] = None
from oomstream.schemas.errors import InvalidSetting
from oomstream.stores.opening import online_store
from oomstream.stores.settings import load_settings
store = online_store("tikv://127.0.0.1:1/name", load_settings())
try:
    asyncio.run(store.open())
except InvalidSetting as exc:
    print(exc)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "needs the package oomstream-tikv" in ended.stdout


def test_signals_end_it_too(tikv_url: str) -> None:
    """SIGTERM, which runs no exit handlers by itself, ends a program by that signal and not by a crash."""
    program = BASE + "asyncio.run(use())\nprint('used', flush=True)\nsys.stdin.read()"
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", program, tikv_url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "used\n"
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(30) == -signal.SIGTERM
