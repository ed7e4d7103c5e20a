"""Several writers, regions that move, and writers that are killed, frozen or cancelled in the middle of a commit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from oomstream.schemas.errors import StoreUnavailable
from oomstream.stores.base import OnlineRead
from oomstream.stores.settings import load_settings
from oomstream.stores.tikv.store import TikvOnlineStore
from tests.faults.tikv_rows import rows, store_of
from tests.services.native import halt
from tests.services.tikv import TikvServer

ROOT = Path(__file__).parents[2]
# Transactions of a writer at once, and rows of each: at most so many are locked. The native one's are of 16 KiB.
AT_ONCE = {"tikv-client": 4, "native": 8}
ROWS_OF_ONE = {"tikv-client": 64, "native": 93}
# A read that meets a lock is to be answered within this time…
ANSWER_S = 0.1
# …with values from so shortly before the lock.
NEAR_S = 0.3

pytestmark = pytest.mark.usefixtures("tikv_driver")


@pytest.fixture
def namespace(tikv_url: str) -> str:
    """A namespace that is empty."""
    return tikv_url.rpartition("/")[2]


@contextmanager
def writer(
    server: TikvServer, namespace: str, count: int, event_time_us: int, driver: str = "tikv-client"
) -> Iterator[subprocess.Popen[str]]:
    """A process that is ready to write rows when it is sent a line."""
    arguments = [f"{server.url}/{namespace}", str(count), str(event_time_us)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.tikv_writer", *arguments],
        cwd=ROOT,
        env=os.environ | {"OOMSTREAM_TIKV_DRIVER": driver},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def go(process: subprocess.Popen[str]) -> None:
    """Let it write."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def split(server: TikvServer, namespace: str, every: int, count: int) -> None:
    """Cut the rows into regions, so that transactions reach across their borders and must commit in two phases."""
    for row in rows(count)[every // 2 :: every]:
        server.control.split(f"{namespace}/".encode() + row.key)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize(
    ("tikv_driver", "writers"),
    [("tikv-client", "tikv-client"), ("native", "tikv-client"), ("native", "native")],
    indirect=["tikv_driver"],
)
def test_writer_ends_in_the_middle_of_a_commit(
    native_tikv: TikvServer, namespace: str, writers: str, end: signal.Signals
) -> None:
    """Reads of rows that a killed or frozen writer has locked answer within 100 ms, with the values before its write.

    They say how old the values are; reads that must be of now wait until the locks have expired; few rows are locked;
    and the next writer completes the write.
    """
    count = 1_500

    async def check() -> None:
        async with store_of(native_tikv.url, namespace) as store:
            old, new = rows(count, 1), rows(count, 2)
            await store.upsert_newer(old)
            if writers == "native":
                await asyncio.to_thread(split, native_tikv, namespace, 90, count)
            with writer(native_tikv, namespace, count, 2, writers) as process:
                # Every transaction of its gets as far as its locks, and none is committed.
                fault = native_tikv.control.fault("KvCommit", "drop")
                began_writing = time.monotonic()
                go(process)
                await asyncio.to_thread(fault.wait, AT_ONCE[writers])
                halt(process.pid, end)
                native_tikv.control.clear_faults()

                took, ages = [], []
                for row in old[::50]:
                    began = time.monotonic()
                    found = await store.read_aged([row.key])
                    took.append(time.monotonic() - began)
                    assert found.values == [row.value]
                    ages.append(found.age_us)
                locked = sum(1 for age in ages if age)
                # One row in 50 was read.
                assert 0 < locked <= AT_ONCE[writers] * (ROWS_OF_ONE[writers] // 50 + 1)
                assert sorted(took)[len(took) // 2] < ANSWER_S
                assert sum(t > ANSWER_S for t in took) <= 1
                assert max(ages) / 1e6 < time.monotonic() - began_writing + NEAR_S

                # One locked row ages the whole read, which is of one moment.
                found = await store.read_aged([row.key for row in old])
                assert found.values == [row.value for row in old]
                assert 0 < found.age_us / 1e6 < time.monotonic() - began_writing + NEAR_S
                # Of now: the locks must have gone first.
                assert await store.read([row.key for row in old]) == [row.value for row in old]

            assert await store.upsert_newer(new) == count
            assert await store.read_aged([row.key for row in new]) == OnlineRead([row.value for row in new], age_us=0)

    asyncio.run(check())


def test_next_writer_takes_over_at_once(native_tikv: TikvServer, namespace: str) -> None:
    """A writer that meets the locks of a killed one waits for them and writes; it needs no help and gets no error."""

    async def check() -> None:
        async with store_of(native_tikv.url, namespace) as store:
            with writer(native_tikv, namespace, 200, 1) as process:
                fault = native_tikv.control.fault("KvCommit", "drop")
                go(process)
                await asyncio.to_thread(fault.wait, 4)
                process.kill()
                native_tikv.control.clear_faults()
                assert await store.upsert_newer(rows(200, 2)) == 200
            assert await store.read([row.key for row in rows(200)]) == [row.value for row in rows(200, 2)]

    asyncio.run(check())


@pytest.mark.parametrize("tikv_driver", ["native"], indirect=True)
def test_native_writer_locks_nothing(native_tikv: TikvServer, namespace: str) -> None:
    """A native writer whose rows lie within regions commits in one request: killed, it leaves no lock."""
    count = 1_500

    async def check() -> None:
        async with store_of(native_tikv.url, namespace) as store:
            await store.upsert_newer(rows(count, 1))
            with writer(native_tikv, namespace, count, 2, "native") as process:
                fault = native_tikv.control.fault("KvPrewrite", "drop-answer")
                go(process)
                await asyncio.to_thread(fault.wait, 4)
                process.kill()
                native_tikv.control.clear_faults()
            found = await store.read_aged([row.key for row in rows(count)])
            assert found.age_us == 0
            assert {row.value for row in rows(1, 2)} <= set(filter(None, found.values))

    asyncio.run(check())


def test_conflict(native_tikv: TikvServer, namespace: str) -> None:
    """Case 19: what another writer commits between our read and our commit is compared again, and the greater stays."""

    async def check() -> None:
        async with store_of(native_tikv.url, namespace) as ours, store_of(native_tikv.url, namespace) as other:
            for ours_us, others_us, written in ((1, 2, 0), (4, 3, 1)):
                fault = native_tikv.control.fault("KvPrewrite", "delay", times=1, delay_s=0.5)
                writing = asyncio.create_task(ours.upsert_newer(rows(1, ours_us)))
                await asyncio.to_thread(fault.wait)
                assert await other.upsert_newer(rows(1, others_us)) == 1
                assert await writing == written
                assert await other.read([rows(1)[0].key]) == [rows(1, max(ours_us, others_us))[0].value]

    asyncio.run(check())


def test_split_in_the_middle_of_a_batch(native_tikv: TikvServer, namespace: str) -> None:
    """Case 18: regions that split between a transaction's read and its commit cost a retry, and no row."""

    async def check() -> None:
        async with store_of(native_tikv.url, namespace) as store:
            for turn, place in enumerate((100, 37, 390, 250)):
                fault = native_tikv.control.fault("KvPrewrite", "delay", times=4, delay_s=0.2)
                writing = asyncio.create_task(store.upsert_newer(rows(400, turn + 1)))
                await asyncio.to_thread(fault.wait)
                native_tikv.control.split(f"{namespace}/".encode() + rows(400)[place].key)
                assert await writing == 400
                assert await store.read([row.key for row in rows(400)]) == [row.value for row in rows(400, turn + 1)]
            assert await store.scan(b"o", limit=1_000) == rows(400, 4)

    asyncio.run(check())


@pytest.mark.parametrize(
    ("call", "kind"), [("GetRegion", "no-leader"), ("GetRegion", "refuse"), ("GetStore", "refuse")]
)
def test_commits_that_write_nothing_are_noticed(native_tikv: TikvServer, namespace: str, call: str, kind: str) -> None:
    """Case 18: no row is lost although the client leaves out what lies in a region it cannot find, and says nothing."""

    async def check() -> None:
        async with store_of(native_tikv.url, namespace) as store:
            await store.upsert_newer(rows(64))
            for turn in range(2, 8):
                # The client learns of the new region only when it writes, and then cannot find it.
                native_tikv.control.split(f"{namespace}/".encode() + rows(64)[8 * turn].key)
                held = native_tikv.control.fault("KvBatchGet", "delay", times=1, delay_s=0.1)
                native_tikv.control.fault(call, kind, times=turn)  # type: ignore[arg-type]
                writing = asyncio.create_task(store.upsert_newer(rows(64, turn)))
                await asyncio.to_thread(held.wait)
                await writing
                native_tikv.control.clear_faults()
                assert await store.read([row.key for row in rows(64)]) == [row.value for row in rows(64, turn)]

    asyncio.run(check())


@pytest.mark.parametrize("call", ["KvPrewrite", "KvCommit"])
def test_answer_lost(native_tikv: TikvServer, namespace: str, call: str) -> None:
    """Case 13: a call that was carried out and never answered is done again, to the same end."""

    async def check() -> None:
        async with store_of(native_tikv.url, namespace) as store:
            native_tikv.control.fault(call, "drop-answer", times=2)
            await store.upsert_newer(rows(100))
            assert await store.read([row.key for row in rows(100)]) == [row.value for row in rows(100)]

    asyncio.run(check())


@pytest.mark.parametrize("call", ["KvBatchGet", "KvPrewrite", "KvCommit"])
def test_cancelled(native_tikv: TikvServer, namespace: str, call: str) -> None:
    """A write that is cancelled in any of its steps leaves no locks behind: the next read is of now, at once."""

    async def check() -> None:
        async with store_of(native_tikv.url, namespace) as store:
            await asyncio.to_thread(split, native_tikv, namespace, 60, 100)
            fault = native_tikv.control.fault(call, "delay", times=2, delay_s=0.3)
            writing = asyncio.create_task(store.upsert_newer(rows(100)))
            await asyncio.to_thread(fault.wait)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            await store.close()
            began = time.monotonic()
            keys = [row.key for row in rows(100)]
            # The second half of a commit may have a moment to go; locks that nobody takes away last 3 s.
            while (await store.read_aged(keys)).age_us:
                assert time.monotonic() - began < 1
            await store.upsert_newer(rows(100))
            assert await store.read(keys) == [row.value for row in rows(100)]

    asyncio.run(check())


@pytest.mark.parametrize("leave", ["cancelled", "out of time"])
def test_what_was_left_undoes_nothing(native_tikv: TikvServer, namespace: str, leave: str) -> None:
    """Rows that are written after a delete was given up stay, although the delete was held up and goes on later."""
    held_s = 1.2

    async def check() -> None:
        url = f"{native_tikv.url}/{namespace}"
        async with (
            TikvOnlineStore(url, load_settings(call_timeout_us=600_000)) as ours,
            store_of(native_tikv.url, namespace) as other,
        ):
            keys = [row.key for row in rows(1_000)]
            await other.upsert_newer(rows(1_000, 1, b""))
            # Its transactions get their timestamps late: both those of the first attempt and those of the second.
            held = native_tikv.control.fault("Tso", "delay", times=2, delay_s=held_s)
            began = time.monotonic()
            deleting = asyncio.create_task(ours.delete(keys))
            await asyncio.to_thread(held.wait)
            if leave == "cancelled":
                deleting.cancel()
            with contextlib.suppress(StoreUnavailable, asyncio.CancelledError):
                await deleting
            native_tikv.control.clear_faults()
            await other.upsert_newer(rows(1_000, 2, b""))
            while time.monotonic() < began + 2 * held_s:
                assert None not in await other.read(keys)

    asyncio.run(check())
