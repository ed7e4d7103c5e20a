"""What the TiKV store does beyond the shipped suite, on a real server."""

from __future__ import annotations

import asyncio
import time

import pytest

from oomstream.schemas.errors import Fatal, InvalidSetting
from oomstream.stores.base import OnlineRead
from oomstream.stores.settings import load_settings
from oomstream.stores.tikv.store import TikvOnlineStore
from tests.faults.tikv_rows import rows
from tests.services.tikv import TikvServer

pytestmark = pytest.mark.usefixtures("tikv_driver")


def test_namespaces_share_nothing(tikv_url: str) -> None:
    """Two namespaces in one cluster do not see, pair or purge each other's rows."""

    async def check() -> None:
        async with (
            TikvOnlineStore(tikv_url, load_settings()) as ours,
            TikvOnlineStore(tikv_url + "-b", load_settings()) as other,
        ):
            await ours.upsert_newer(rows(10))
            await ours.pair("one")
            assert await other.scan(b"") == []
            assert await other.pairing_id() is None
            await other.upsert_newer(rows(5, 2))
            await other.delete([row.key for row in rows(10)])
            assert await ours.scan(b"") == rows(10)

    asyncio.run(check())


def test_serving_reads_are_of_now(tikv_url: str) -> None:
    """With no lock in the way, a read for serving is of now: it sees what was written just before, in any order."""

    async def check() -> None:
        async with TikvOnlineStore(tikv_url, load_settings()) as store:
            written = rows(300)
            for turn in range(1, 6):
                await store.upsert_newer(rows(300, turn))
                keys = [row.key for row in reversed(written)]
                keys.insert(7, b"unknown")
                found = await store.read_aged([*keys, keys[0]])
                value = rows(1, turn)[0].value
                assert found == OnlineRead([*[value] * 7, None, *[value] * 294], age_us=0)
            assert await store.read_aged([]) == OnlineRead([], age_us=0)

    asyncio.run(check())


def test_garbage_collection(native_tikv: TikvServer, tikv_url: str) -> None:
    """Collecting garbage moves PD's safe point to the age asked for, never back, and never nearer than 10 minutes."""

    async def check() -> None:
        async with TikvOnlineStore(tikv_url, load_settings()) as store:
            await store.upsert_newer(rows(10))
            with pytest.raises(InvalidSetting, match="younger than 600 s"):
                await store.gc(599)
            now_ms = time.time() * 1000
            assert await store.gc(600)
            safe_point_ms = native_tikv.control.safe_point() >> 18
            assert abs(now_ms - 600_000 - safe_point_ms) < 5_000
            assert not await store.gc(700)
            assert native_tikv.control.safe_point() >> 18 == safe_point_ms
            assert await store.read([row.key for row in rows(10)]) == [row.value for row in rows(10)]

    asyncio.run(check())


def test_foreign_pairing_id(tikv_url: str) -> None:
    """Something else's value where the pairing id should be is an error that names the store, not a crash."""

    async def check() -> None:
        from tikv_client.asynchronous import TransactionClient  # only where its wheel exists

        async with TikvOnlineStore(tikv_url, load_settings()) as store:
            servers, _, namespace = tikv_url.removeprefix("tikv://").partition("/")
            transaction = await (await TransactionClient.connect([servers])).begin(pessimistic=False)
            await transaction.put(f"{namespace}:pairing".encode(), b"\xff")
            await transaction.commit()
            with pytest.raises(Fatal, match=f"online store {tikv_url}: its pairing id"):
                await store.pairing_id()

    asyncio.run(check())


def test_one_loop_is_not_held_up(tikv_url: str) -> None:
    """A large write leaves the event loop to others: nothing waits for it longer than a moment."""

    async def check() -> None:
        async with TikvOnlineStore(tikv_url, load_settings()) as store:
            writing = asyncio.create_task(store.upsert_newer(rows(5_000)))
            longest, last = 0.0, time.monotonic()
            while not writing.done():
                await asyncio.sleep(0)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
            assert await writing == 5_000
            assert longest < 1

    asyncio.run(check())
