"""The TiKV of the tests, through the product's client."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tikv_client.asynchronous import TransactionClient

from tests.services import tikv
from tests.services.server import Server
from tests.services.tikv import TikvServer
from tests.services.tikv_control import ControlError

_TIMEOUT_S = 30.0


@pytest.fixture
def prefix() -> bytes:
    """What the test's keys start with."""
    return f"test_{uuid.uuid4().hex[:12]}_".encode()


async def _connect(url: str) -> Any:
    return await TransactionClient.connect([url.removeprefix("tikv://")])


def _on(url: str, work: Callable[[Any], Awaitable[Any]]) -> Any:
    """Do something with a client."""

    async def main() -> Any:
        return await work(await _connect(url))

    return asyncio.run(asyncio.wait_for(main(), _TIMEOUT_S))


async def _write(client: Any, rows: dict[bytes, bytes | None]) -> None:
    transaction = await client.begin(pessimistic=False)
    for key, value in rows.items():
        await (transaction.delete(key) if value is None else transaction.put(key, value))
    try:
        await transaction.commit()
    except Exception:
        await transaction.rollback()
        raise


async def _snapshot(client: Any) -> Any:
    return client.snapshot(await client.current_timestamp(), pessimistic=False)


async def _read(client: Any, keys: list[bytes]) -> dict[bytes, bytes]:
    return dict(await (await _snapshot(client)).batch_get(keys))


async def _read_past_locks(client: Any, keys: list[bytes]) -> dict[bytes, bytes]:
    """Read again while locks are in the way: the client resolves them only when their time (3 s) is over."""
    while True:
        try:
            return await _read(client, keys)
        except Exception as exc:
            if "resolve lock" not in str(exc):
                raise


def test_transactions(tikv_server: TikvServer, prefix: bytes) -> None:
    """Committed values are read one by one, in batches and by scan; deleted and rolled back ones are not."""
    rows = {prefix + b"%02d" % i: b"v%d" % i for i in range(20)}

    async def work(client: Any) -> None:
        await _write(client, dict(rows))
        await _write(client, {prefix + b"07": None})
        rows.pop(prefix + b"07")
        undone = await client.begin(pessimistic=False)
        await undone.put(prefix + b"99", b"never")
        await undone.rollback()

        snapshot = await _snapshot(client)
        assert await snapshot.get(prefix + b"03") == b"v3"
        assert await snapshot.get(prefix + b"07") is None
        assert await _read(client, [*rows, prefix + b"99"]) == rows
        assert dict(await snapshot.scan(prefix, prefix + b"\xff", 100)) == rows
        assert len(await snapshot.scan(prefix, prefix + b"\xff", 5)) == 5

    _on(tikv_server.url, work)


def test_snapshots(tikv_server: TikvServer, prefix: bytes) -> None:
    """A snapshot goes on reading the values of its time."""

    async def work(client: Any) -> None:
        await _write(client, {prefix: b"old"})
        before = await _snapshot(client)
        await _write(client, {prefix: b"new"})
        assert await before.get(prefix) == b"old"
        assert await (await _snapshot(client)).get(prefix) == b"new"

    _on(tikv_server.url, work)


def test_write_conflict(tikv_server: TikvServer, prefix: bytes) -> None:
    """Of two transactions that read a key and write it, the second one to commit fails."""

    async def work(client: Any) -> None:
        first, second = await client.begin(pessimistic=False), await client.begin(pessimistic=False)
        for transaction, value in ((first, b"1"), (second, b"2")):
            assert await transaction.get(prefix) is None
            await transaction.put(prefix, value)
        await first.commit()
        with pytest.raises(Exception, match="WriteConflict"):
            await second.commit()
        await second.rollback()
        assert await _read(client, [prefix]) == {prefix: b"1"}

    _on(tikv_server.url, work)


def test_answers_over_4_mib(tikv_server: TikvServer, prefix: bytes) -> None:
    """The server sends an answer of any size, and the client refuses one over 4 MiB."""
    rows = {prefix + b"%03d" % i: b"x" * 9_000 for i in range(500)}

    async def work(client: Any) -> None:
        for first in range(0, 500, 100):
            await _write(client, dict(list(rows.items())[first : first + 100]))
        with pytest.raises(Exception, match="4194304"):
            await _read(client, list(rows))
        assert len(await _read(client, list(rows)[:400])) == 400

    _on(tikv_server.url, work)


@pytest.mark.parametrize("kill", [False, True])
def test_restart_keeps_values(tikv_server: TikvServer, prefix: bytes, kill: bool) -> None:
    """After a restart, or a kill right after a commit, all of the transaction is there, and more can be written."""
    rows = {prefix + b"%03d" % i: b"x" * 1_000 for i in range(300)}
    _on(tikv_server.url, lambda client: _write(client, dict(rows)))
    if kill:
        tikv_server.kill()
    tikv_server.restart()
    assert _on(tikv_server.url, lambda client: _read_past_locks(client, list(rows))) == rows
    _on(tikv_server.url, lambda client: _write(client, {prefix: b"more"}))


def test_split(native_tikv: TikvServer, prefix: bytes) -> None:
    """A client with old regions in mind goes on reading and writing, on both sides of a split."""
    rows = {prefix + b"%d" % i: b"v%d" % i for i in range(10)}

    async def work(client: Any) -> None:
        await _write(client, dict(rows))
        region = native_tikv.control.split(prefix + b"5")
        assert region.start == prefix + b"5"
        assert await _read(client, list(rows)) == rows
        assert dict(await (await _snapshot(client)).scan(prefix, prefix + b"\xff", 100)) == rows

        pending = await client.begin(pessimistic=False)
        for key in rows:
            await pending.put(key, b"new")
        native_tikv.control.split(prefix + b"8")
        await pending.commit()
        assert await _read(client, list(rows)) == dict.fromkeys(rows, b"new")

    _on(native_tikv.url, work)
    regions = native_tikv.control.regions()
    assert {prefix + b"5", prefix + b"8"} <= {region.start for region in regions}
    assert [region.end for region in regions[:-1]] == [region.start for region in regions[1:]]
    with pytest.raises(ControlError, match="empty key"):
        native_tikv.control.split(b"")


def test_refused_calls(native_tikv: TikvServer, prefix: bytes) -> None:
    """A call that is refused for good is an error for the client, and works again when the fault is cleared."""

    async def work(client: Any) -> None:
        fault = native_tikv.control.fault("KvPrewrite", "refuse")
        with pytest.raises(Exception, match="refused on request"):
            await _write(client, {prefix: b"1"})
        assert fault.hits > 0
        native_tikv.control.clear_faults()
        await _write(client, {prefix: b"2"})
        assert await _read(client, [prefix]) == {prefix: b"2"}

    _on(native_tikv.url, work)


def test_dropped_calls(native_tikv: TikvServer, prefix: bytes) -> None:
    """A call that is dropped is never answered; the next one is."""

    async def work(client: Any) -> None:
        await _write(client, {prefix: b"1"})
        fault = native_tikv.control.fault("KvGet", "drop", times=1)
        reading = asyncio.ensure_future((await _snapshot(client)).get(prefix))
        assert await asyncio.to_thread(fault.wait) == 1
        assert await (await _snapshot(client)).get(prefix) == b"1"
        assert not reading.done()
        reading.cancel()

    _on(native_tikv.url, work)


def test_lost_answer_of_a_commit(native_tikv: TikvServer, prefix: bytes) -> None:
    """A commit whose answer is dropped was carried out, and others see it while its client still waits."""

    async def work(client: Any) -> None:
        fault = native_tikv.control.fault("KvCommit", "drop-answer", times=1)
        transaction = await client.begin(pessimistic=False)
        await transaction.put(prefix, b"1")
        committing = asyncio.ensure_future(transaction.commit())
        await asyncio.to_thread(fault.wait)
        assert await _read_past_locks(client, [prefix]) == {prefix: b"1"}
        # The client gives up after 2 s, asks again, and is told that it was done.
        await committing

    _on(native_tikv.url, work)


def test_delayed_calls(native_tikv: TikvServer, prefix: bytes) -> None:
    """A call that is delayed is carried out when its time has come."""

    async def work(client: Any) -> None:
        fault = native_tikv.control.fault("KvPrewrite", "delay", times=1, delay_s=0.05)
        await _write(client, {prefix: b"1"})
        assert fault.hits == 1
        assert await _read(client, [prefix]) == {prefix: b"1"}

    _on(native_tikv.url, work)


def test_region_without_a_leader(native_tikv: TikvServer, prefix: bytes) -> None:
    """A region without a leader, as there is just after a restart, is an error to readers, but not to a commit.

    tikv-client 0.0.4 says that the commit is done and has sent nothing. A store must not take its word for it. It also
    remembers the region so for as long as it lives.
    """

    async def work(client: Any) -> None:
        native_tikv.control.fault("GetRegion", "no-leader")
        with pytest.raises(Exception, match=r"Leader of region \d+ is not found"):
            await _read(client, [prefix])
        await _write(client, {prefix: b"lost"})
        native_tikv.control.clear_faults()
        with pytest.raises(Exception, match=r"Leader of region \d+ is not found"):
            await _read(client, [prefix])
        other = await _connect(native_tikv.url)
        assert await _read(other, [prefix]) == {}
        await _write(other, {prefix: b"1"})
        assert await _read(other, [prefix]) == {prefix: b"1"}

    _on(native_tikv.url, work)


def test_calls_are_counted(native_tikv: TikvServer, prefix: bytes) -> None:
    """A test can tell how many calls something took."""

    async def work(client: Any) -> None:
        snapshot = await _snapshot(client)
        before = native_tikv.control.calls().get("KvBatchGet", 0)
        await snapshot.batch_get([prefix + b"%d" % i for i in range(10)])
        assert native_tikv.control.calls()["KvBatchGet"] == before + 1

    _on(native_tikv.url, work)
    with pytest.raises(ControlError, match="no call is named"):
        native_tikv.control.fault("Nope", "drop")


def test_gc_moves_the_safe_point(native_tikv: TikvServer) -> None:
    """GC moves PD's safe point forwards, and it stays there over a restart."""

    async def work(client: Any) -> int:
        earlier, timestamp = await client.current_timestamp(), await client.current_timestamp()
        assert await client.inner.gc(timestamp) is True
        assert await client.inner.gc(earlier) is False
        return int(timestamp)

    collected = _on(native_tikv.url, work)
    assert native_tikv.control.safe_point() == collected
    native_tikv.restart()
    assert native_tikv.control.safe_point() == collected


def test_frozen_store_goes_on(tikv_server: TikvServer, prefix: bytes) -> None:
    """A frozen store answers what it was asked in the meantime once it goes on."""

    async def work(client: Any) -> None:
        await _write(client, {prefix: b"1"})
        snapshot = await _snapshot(client)
        tikv_server.pause()
        reading = asyncio.ensure_future(snapshot.get(prefix))
        done, _ = await asyncio.wait([reading], timeout=0.2)
        assert not done
        tikv_server.resume()
        assert await reading == b"1"

    _on(tikv_server.url, work)


def test_proxied_clients_never_go_round_the_proxies(native_tikv: TikvServer, prefix: bytes) -> None:
    """A client that starts at PD's proxy finds the store behind a proxy, too, and is cut off with it alone."""
    store_before = native_tikv.proxy.traffic.to_server
    pd_before = native_tikv.pd_proxy.traffic.to_server

    async def work(client: Any) -> None:
        await _write(client, {prefix: b"x" * 1_000})
        assert native_tikv.proxy.traffic.to_server > store_before + 1_000
        assert native_tikv.pd_proxy.traffic.to_server > pd_before
        snapshot = await _snapshot(client)
        native_tikv.proxy.blackhole()
        reading = asyncio.ensure_future(snapshot.get(prefix))
        await asyncio.to_thread(native_tikv.proxy.wait_until, lambda traffic: traffic.held > 0)
        direct = await _connect(native_tikv.url)
        assert await _read(direct, [prefix]) == {prefix: b"x" * 1_000}
        assert not reading.done()
        native_tikv.proxy.normal()
        assert await reading == b"x" * 1_000

    _on(native_tikv.proxied_url, work)


def test_native_and_preferred_are_one_server(tikv_server: Server, native_tikv: Server) -> None:
    """Where the native server is the one that is used anyway, it is started once."""
    assert (tikv_server is native_tikv) == (tikv.available().way == "native")
