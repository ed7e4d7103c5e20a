"""Starting and killing the processes of the fault tests, and looking at what they left behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from oomstream.schemas.catalog import Catalog
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.events import Plain
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import decode_value, encode_key
from oomstream.schemas.versions import Version
from oomstream.stores.base import HistoryRow, Source
from oomstream.stores.opening import open_stores
from oomstream.stores.settings import Settings, load_settings
from tests.services.native import halt

ROOT = Path(__file__).parents[2]
DEADLINE_S = 90.0
"""Nothing that a test waits for takes longer on the slowest machine."""


class Ended(NamedTuple):
    """How a process ended.

    Attributes:
        code: Its exit code; negative for a signal.
        log: What it wrote to stderr.
    """

    code: int
    log: str

    @property
    def peak_kib(self) -> int:
        """Its peak memory, KiB."""
        found = re.search(r"^peak_kib=(\d+)$", self.log, re.MULTILINE)
        assert found is not None, self.log
        return int(found[1])


class WorkerProcess:
    """A worker in a process of its own.

    Args:
        folder: Data folder.
        **settings: Settings by name.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        given = {"session_timeout_us": 1_500_000, **settings}
        arguments = [f"{name}={json.dumps(value)}" for name, value in given.items()]
        self._path = folder / f"worker-{time.monotonic_ns()}.log"
        self._log = self._path.open("w+")
        command = [sys.executable, "-m", "tests.faults.process", "worker", str(folder), *arguments]
        self._process = subprocess.Popen(command, cwd=ROOT, stderr=self._log)

    def wait(self) -> Ended:
        """Wait for its own end."""
        code = self._process.wait(DEADLINE_S)
        self._log.seek(0)
        log = self._log.read()
        self._log.close()
        return Ended(code, log)

    def has_ended(self, within_s: float) -> bool:
        """Whether it ends by itself within some seconds."""
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    @property
    def log(self) -> str:
        """What it has written to stderr so far."""
        return self._path.read_text()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def freeze(self) -> None:
        """SIGSTOP; it stands still when this returns."""
        halt(self._process.pid)

    def kill(self) -> Ended:
        """SIGKILL."""
        self._process.kill()
        return self.wait()

    def drain(self) -> Ended:
        """SIGTERM."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait_frozen(self) -> None:
        """Wait until it has stopped itself, as ``crash_at="POINT:freeze"`` makes it."""
        found = os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert found is not None
        assert found.si_code == os.CLD_STOPPED, self.wait()

    def check(self) -> None:
        """Fail if it has ended."""
        if self._process.poll() is not None:
            raise AssertionError(f"the worker ended: {self.wait()}")

    def end(self) -> None:
        """SIGKILL, if it still runs."""
        self._process.kill()
        self._process.wait(DEADLINE_S)
        self._log.close()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds; fails if the worker ends first."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            self.check()
            assert time.monotonic() < deadline, "the condition never held"
            time.sleep(0.002)


@contextmanager
def broker_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """An embedded broker in a process of its own, published in the folder."""
    command = [sys.executable, "-m", "tests.faults.process", "broker", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.terminate()


def history_count(settings: Settings, group: str = "plane") -> int:
    """Rows of a group's history now, read past the store."""
    path = settings.data_dir / "history.db"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30) as connection:
        (count,) = connection.execute(f'SELECT count(*) FROM "history_{group}"').fetchone()
    connection.close()
    return int(count)


@contextmanager
def holding_write(settings: Settings) -> Iterator[None]:
    """Hold the write lock of both embedded stores: meanwhile nobody else is within a transaction that writes."""
    with ExitStack() as stack:
        for name in ("history.db", "online.db"):
            connection = sqlite3.connect(settings.data_dir / name, timeout=30.0, isolation_level=None)
            stack.callback(connection.close)
            connection.execute("BEGIN IMMEDIATE")
            stack.callback(connection.execute, "ROLLBACK")
        yield


class Left(NamedTuple):
    """What a stream left in the stores.

    Attributes:
        sources: Every source with its position.
        history: Every row of history, by source and sequence.
        online: Version and values of every entity.
    """

    sources: list[Source]
    history: list[HistoryRow]
    online: dict[tuple[Plain, ...], tuple[Version, tuple[Plain, ...]]]


def left(settings: Settings, group: str = "plane") -> Left:
    """Read back everything, through the stores."""
    return asyncio.run(_left(settings, group))


async def _left(settings: Settings, name: str) -> Left:
    async with open_stores(settings) as stores:
        catalog: Catalog = await stores.history.load_catalog()
        group = catalog.group(name)
        codec = BodyCodec(catalog.groups[name])
        sources = await stores.history.sources()
        history: list[HistoryRow] = []
        for source in sources:
            history += await stores.history.rows_of_source(group, source.id, 0, 1 << 40, limit=10_000_000)
        keys = sorted({row.key for row in history}, key=str)
        online: dict[tuple[Plain, ...], tuple[Version, tuple[Plain, ...]]] = {}
        stored = await stores.online.read([encode_key(group.id, encode_entity(key)) for key in keys])
        for key, raw in zip(keys, stored, strict=True):
            assert raw is not None, f"{key} is not online"
            value = decode_value(raw)
            online[key] = value.version, () if value.deleted else codec.read(value.fingerprint, value.body)
        return Left(sources, history, online)


def settings_of(folder: Path) -> Settings:
    """Settings on a folder, as the processes have them."""
    return load_settings(data_dir=folder)
