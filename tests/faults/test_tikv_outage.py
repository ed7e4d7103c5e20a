"""PD or TiKV is away, silent, cut off or restarted: the store says so in time, and goes on when they are back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from oomstream.schemas.errors import StoreUnavailable
from oomstream.stores.base import OnlineRead
from oomstream.stores.settings import load_settings
from oomstream.stores.tikv.store import TikvOnlineStore
from tests.faults.tikv_rows import CALL_TIMEOUT_S, rows, store_of
from tests.services.proxy import Proxy
from tests.services.tikv import TikvServer

pytestmark = pytest.mark.usefixtures("tikv_driver")

# What a call may take beyond its deadline on a busy machine.
MARGIN_S = 1.5


@pytest.fixture
def namespace(tikv_url: str) -> str:
    """A namespace that is empty."""
    return tikv_url.rpartition("/")[2]


def pd_of(server: TikvServer) -> Proxy:
    """The proxy before PD."""
    return server.pd_proxy


def store_proxy_of(server: TikvServer) -> Proxy:
    """The proxy before TiKV."""
    return server.proxy


async def unavailable(work: Coroutine[Any, Any, object]) -> str:
    """The sentence of the error with which a call ends in time."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        await work
    assert time.monotonic() - began < CALL_TIMEOUT_S + MARGIN_S
    return str(caught.value)


def test_refused_at_start(tikv_server: TikvServer, namespace: str) -> None:
    """Case 10: a server that refuses connections is named at once, and the same store opens when it is back."""

    async def check() -> None:
        store = store_of(tikv_server.proxied_url, namespace)
        pd_of(tikv_server).refuse()
        began = time.monotonic()
        message = await unavailable(store.open())
        assert time.monotonic() - began < MARGIN_S
        assert message == (
            f"cannot open online store {tikv_server.proxied_url}/{namespace}: PD does not answer; "
            "see that PD runs and that the URL names it"
        )
        pd_of(tikv_server).normal()
        store_proxy_of(tikv_server).refuse()
        assert "TiKV" in await unavailable(store.open())
        store_proxy_of(tikv_server).normal()
        async with store:
            assert await store.upsert_newer(rows(3)) == 3

    asyncio.run(check())


@pytest.mark.parametrize("part", [pd_of, store_proxy_of])
def test_silent_at_start(tikv_server: TikvServer, namespace: str, part: Callable[[TikvServer], Proxy]) -> None:
    """Case 11: a server that accepts and never answers is given up in time, and the event loop goes on meanwhile."""

    async def check() -> None:
        store = store_of(tikv_server.proxied_url, namespace)
        part(tikv_server).blackhole()
        opening = asyncio.create_task(unavailable(store.open()))
        beats = 0
        while not opening.done():
            await asyncio.sleep(0.01)
            beats += 1
        assert beats > 20
        assert "there was no answer in time" in await opening
        part(tikv_server).normal()
        async with store:
            assert await store.upsert_newer(rows(3)) == 3

    asyncio.run(check())


@pytest.mark.parametrize("part", [pd_of, store_proxy_of])
@pytest.mark.parametrize("fault", ["refuse", "reset", "blackhole"])
def test_away_in_use(tikv_server: TikvServer, namespace: str, part: Callable[[TikvServer], Proxy], fault: str) -> None:
    """Case 11: calls end in time with an error while a server is away, and work as soon as it is back."""

    async def check() -> None:
        async with store_of(tikv_server.proxied_url, namespace) as store:
            await store.upsert_newer(rows(100))
            getattr(part(tikv_server), fault)()
            failed = await asyncio.gather(
                unavailable(store.read([rows(1)[0].key])),
                unavailable(store.read_aged([rows(1)[0].key])),
                unavailable(store.scan(b"o")),
                unavailable(store.upsert_newer(rows(100, 2))),
                unavailable(store.delete([b"o/other"])),
            )
            for message, verb in zip(failed, ("read", "read", "scan", "write", "delete from"), strict=True):
                assert message.startswith(f"cannot {verb} online store {tikv_server.proxied_url}/{namespace}: ")
            part(tikv_server).normal()
            await store.upsert_newer(rows(100, 3))
            assert await store.read([row.key for row in rows(100)]) == [row.value for row in rows(100, 3)]

    asyncio.run(check())


def test_comes_back_within_a_call(tikv_server: TikvServer, namespace: str) -> None:
    """An outage that is shorter than the deadline is not noticed by the caller, whose rows are all written."""

    async def check() -> None:
        async with store_of(tikv_server.proxied_url, namespace) as store:
            store_proxy_of(tikv_server).refuse()
            writing = asyncio.create_task(store.upsert_newer(rows(500)))
            await asyncio.to_thread(pd_of(tikv_server).wait_until, lambda traffic: traffic.to_server > 0)
            store_proxy_of(tikv_server).normal()
            assert await writing == 500
            assert await store.read([row.key for row in rows(500)]) == [row.value for row in rows(500)]

    asyncio.run(check())


def test_slow_network(tikv_server: TikvServer, namespace: str) -> None:
    """A network that delays everything makes calls slow, not wrong."""

    async def check() -> None:
        async with store_of(tikv_server.proxied_url, namespace) as store:
            store_proxy_of(tikv_server).delay(0.03)
            assert await store.upsert_newer(rows(100)) == 100
            assert await store.read([row.key for row in rows(100)]) == [row.value for row in rows(100)]
            assert (await store.read_aged([rows(1)[0].key])).values == [rows(1)[0].value]

    asyncio.run(check())


def test_cut_in_the_middle(tikv_server: TikvServer, namespace: str) -> None:
    """A connection that is cut within a write, at any of several places, loses and doubles nothing."""

    async def check() -> None:
        async with store_of(tikv_server.proxied_url, namespace) as store:
            for turn, place in enumerate((1, 500, 5_000, 20_000)):
                for direction in ("to_server", "to_client"):
                    store_proxy_of(tikv_server).cut_after(place, direction, times=1)
                    written = rows(300, turn + 1, direction.encode())
                    await store.upsert_newer(written, or_equal=True)
                    store_proxy_of(tikv_server).normal()
                    assert await store.read([row.key for row in written]) == [row.value for row in written]

    asyncio.run(check())


def test_restart(tikv_server: TikvServer, namespace: str) -> None:
    """Case 17: after a restart of the whole cluster an open store works again, without being opened anew."""

    async def check() -> None:
        async with store_of(tikv_server.url, namespace) as store:
            await store.upsert_newer(rows(100))
            for turn in (2, 3):
                await asyncio.to_thread(tikv_server.restart)
                assert await store.read([rows(1)[0].key]) == [rows(1, turn - 1)[0].value]
                await store.upsert_newer(rows(100, turn))
            assert await store.read([row.key for row in rows(100)]) == [row.value for row in rows(100, 3)]

    asyncio.run(check())


def test_killed_in_the_middle_of_a_write(tikv_server: TikvServer, namespace: str) -> None:
    """Case 17: a TiKV that is killed under a write and comes back has every row, once the write has returned."""

    async def check() -> None:
        async with TikvOnlineStore(f"{tikv_server.url}/{namespace}", load_settings()) as store:
            writing = asyncio.create_task(store.upsert_newer(rows(3_000)))
            await asyncio.sleep(0)
            await asyncio.to_thread(tikv_server.kill)
            await asyncio.to_thread(tikv_server.restart)
            await writing
            assert await store.read([row.key for row in rows(3_000)]) == [row.value for row in rows(3_000)]

    asyncio.run(check())


def test_region_without_a_leader(native_tikv: TikvServer, namespace: str) -> None:
    """Case 18: a region that has no leader for a moment costs a moment, though the client never recovers from it."""

    async def check() -> None:
        store = store_of(native_tikv.url, namespace)
        fault = native_tikv.control.fault("GetRegion", "no-leader")
        assert "has no leader" in await unavailable(store.open())
        native_tikv.control.clear_faults()
        fault = native_tikv.control.fault("GetRegion", "no-leader", times=2)
        await store.close()
        assert await store.read([b"o"]) == [None]
        assert fault.hits == 2
        await store.close()

    asyncio.run(check())


@pytest.mark.parametrize("kind", ["refuse", "drop"])
def test_timestamps_missing(native_tikv: TikvServer, namespace: str, kind: str) -> None:
    """PD's stream of timestamps breaks or falls silent once: the call is done through another client."""

    async def check() -> None:
        async with store_of(native_tikv.url, namespace) as store:
            native_tikv.control.fault("Tso", kind, times=1)  # type: ignore[arg-type]
            await store.upsert_newer(rows(10))
            native_tikv.control.fault("Tso", kind, times=1)  # type: ignore[arg-type]
            assert await store.read([rows(1)[0].key]) == [rows(1)[0].value]

    asyncio.run(check())


@pytest.mark.parametrize("call", ["KvBatchGet", "KvPrewrite", "KvCommit", "GetRegion"])
@pytest.mark.parametrize("times", [1, 10])
def test_refused_calls(native_tikv: TikvServer, namespace: str, call: str, times: int) -> None:
    """Case 14: any call may be refused, once or ten times, and the write is done all the same."""

    async def check() -> None:
        async with store_of(native_tikv.url, namespace) as store:
            native_tikv.control.split(f"{namespace}/".encode() + rows(51)[50].key)
            native_tikv.control.fault(call, "refuse", times=times)
            await store.upsert_newer(rows(100))
            assert await store.read([row.key for row in rows(100)]) == [row.value for row in rows(100)]

    asyncio.run(check())


def test_refused_for_good(native_tikv: TikvServer, namespace: str) -> None:
    """Case 14: when the time is up, the error says so; doing it again completes it, and nothing stays locked."""

    async def check() -> None:
        async with store_of(native_tikv.url, namespace) as store:
            # In the middle of what one transaction writes, so that it must commit in two phases.
            native_tikv.control.split(f"{namespace}/".encode() + rows(51)[50].key)
            native_tikv.control.fault("KvCommit", "refuse")
            message = await unavailable(store.upsert_newer(rows(100)))
            assert message.endswith("TiKV refuses a call; see TiKV's log")
            native_tikv.control.clear_faults()
            await store.upsert_newer(rows(100))
            found = await store.read_aged([row.key for row in rows(100)])
            assert found == OnlineRead([row.value for row in rows(100)], age_us=0)

    asyncio.run(check())
