"""Case 22 on SQL servers: a writer that is frozen inside its transaction, holding its source's row."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from oomstream.stores.testing.history_suite import append, register, topic
from tests.faults.sql_servers import rows_from, store_on, stored_sequences, text_group
from tests.services.mysql_protocol import SqlServer

_SESSION_TIMEOUT_S = 4
_WRITER = """
import asyncio, itertools, os, signal, sys
from oomstream.schemas.errors import OomstreamError
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.testing.history_suite import append, topic
from tests.faults.sql_servers import rows_from

looks = itertools.count()

def freeze_before_commit():
    # Looked at when a transaction begins, and once more when all that is left to do is to commit.
    if next(looks) == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    return 0.0

async def main():
    settings = load_settings(session_timeout_us=sys.argv[2])
    async with SqlHistoryStore(sys.argv[1], settings, monotonic=freeze_before_commit) as store:
        source = await store.claim(topic())
        mine = (await store.load_catalog()).group("plane")
        try:
            await append(store, source, mine, *rows_from(0, 50))
        except OomstreamError as error:
            print(type(error).__name__, flush=True)
        else:
            print("committed", flush=True)

asyncio.run(main())
"""


@pytest.fixture(params=["tidb_server", "mariadb_server"])
def server(request: pytest.FixtureRequest) -> Iterator[SqlServer]:
    """Each server in turn."""
    found: SqlServer = request.getfixturevalue(request.param)
    yield found
    found.heal()


def test_case_22_frozen_owner_blocks_nobody(server: SqlServer) -> None:
    """The next owner gets the source before the session timeout, and what the frozen one wrote is never there."""

    async def check() -> None:
        url = server.fresh_database()
        async with store_on(url, call_timeout="20s", session_timeout=f"{_SESSION_TIMEOUT_S}s") as store:
            await store.init()
            [mine] = await register(store, text_group())
            with _writer(url) as child:
                await asyncio.to_thread(_until_stopped, child.pid)
                began = time.monotonic()
                source = await store.claim(topic())
                assert time.monotonic() - began < _SESSION_TIMEOUT_S
                assert (source.owner, source.next_sequence) == (2, 0)
                await append(store, source, mine, *rows_from(0, 10))
                os.kill(child.pid, signal.SIGCONT)
                assert child.stdout is not None
                assert await asyncio.to_thread(child.stdout.readline) == "StoreUnavailable\n"
            assert await stored_sequences(store, mine, source) == list(range(10))

    asyncio.run(check())


def _writer(url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _WRITER, url, f"{_SESSION_TIMEOUT_S}s"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _until_stopped(pid: int) -> None:
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), "the writer ended before it froze"
