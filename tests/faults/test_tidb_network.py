"""History on TiDB behind a network that fails: cases 10 to 13. The same on MariaDB, whose protocol it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from oomstream.schemas.errors import StoreUnavailable
from oomstream.schemas.groups import FeatureGroup
from oomstream.stores.base import HistoryStore, Source
from oomstream.stores.testing.history_suite import append, topic
from tests.faults.sql_servers import CALL_TIMEOUT_S, prepared, rows_from, store_on, stored_sequences, ticks_during
from tests.services.mysql_protocol import SqlServer

_ROWS = 100
_COMMIT_BYTES = len("COMMIT") + 5
"""Of the packet: 4 of its head, 1 that says what command it is."""


@pytest.fixture(params=["tidb_server", "mariadb_server"])
def server(request: pytest.FixtureRequest) -> Iterator[SqlServer]:
    """Each server in turn, healed afterwards."""
    found: SqlServer = request.getfixturevalue(request.param)
    yield found
    found.heal()


def test_case_10_refused_at_start(server: SqlServer) -> None:
    """A server that refuses is an outage at once, in one sentence with the URL; it is used as soon as it is there."""

    async def check() -> None:
        url = server.fresh_database(proxied=True).replace("root@", "root:secret@")
        server.proxy.refuse()
        store = store_on(url)
        with pytest.raises(StoreUnavailable) as caught:
            await store.open()
        assert "connection refused" in str(caught.value)
        assert server.proxy.address in str(caught.value)
        assert "***" in str(caught.value)
        assert "secret" not in str(caught.value)
        server.proxy.normal()
        async with store_on(url.replace(":secret", "")) as other:
            await other.init()

    asyncio.run(check())


def test_case_11_accepts_and_never_answers(server: SqlServer) -> None:
    """Every call to a silent server ends at its deadline, and the event loop turns meanwhile."""

    async def check() -> None:
        async with prepared(server) as (store, mine, source):
            await append(store, source, mine, *rows_from(0, 10))
            server.proxy.blackhole()
            calls: list[Any] = [
                store_on(str(store.url)).open(),
                append(store, source, mine, *rows_from(10, 10)),
                store.claim(topic()),
                store.load_catalog(),
                store.newest(mine, [("key 1",)]),
                _read_all(store, mine),
            ]
            for call in calls:
                task = asyncio.ensure_future(call)
                began = asyncio.get_running_loop().time()
                assert await ticks_during(task) < 1.0
                assert isinstance(task.exception(), StoreUnavailable), task
                assert asyncio.get_running_loop().time() - began < CALL_TIMEOUT_S + 1.5
            server.proxy.normal()
            source = await store.claim(topic())
            await append(store, source, mine, *rows_from(source.next_sequence, 10))
            assert await stored_sequences(store, mine, source) == list(range(source.next_sequence + 10))

    asyncio.run(check())


async def _read_all(store: HistoryStore, mine: FeatureGroup) -> int:
    async with store.cut() as cut:
        return sum([table.num_rows async for table in cut.scan(mine, ["s"])])


def test_case_11_silence_while_reading(server: SqlServer) -> None:
    """A scan during which the server goes silent, or away, ends with an outage and not with half a result."""

    async def check(silence: str) -> None:
        async with prepared(server) as (store, mine, source):
            for at in range(3):
                await append(store, source, mine, *rows_from(at * 1_000, 1_000))
            async with store.cut() as cut:
                scan = cut.scan(mine, ["s"], batch_rows=500)
                assert (await anext(scan)).num_rows == 500
                getattr(server.proxy, silence)()
                with pytest.raises(StoreUnavailable):
                    await anext(scan)
            server.proxy.normal()
            assert await _read_all(store, mine) == 3_000

    for silence in ("blackhole", "refuse", "reset"):
        asyncio.run(check(silence))


def test_case_12_cut_during_insert(server: SqlServer) -> None:
    """A connection that ends in the middle of an INSERT leaves nothing; the batch written again is there once."""

    async def check() -> None:
        async with prepared(server) as (store, mine, source):
            await append(store, source, mine, *rows_from(0, _ROWS))
            cuts = server.proxy.traffic.cuts
            server.proxy.cut_after(5_000, "to_server", times=1)
            with pytest.raises(StoreUnavailable):
                await append(store, source, mine, *rows_from(_ROWS, _ROWS))
            await asyncio.to_thread(server.proxy.wait_until, lambda seen: seen.cuts == cuts + 1)
            source = await store.claim(topic())
            assert source.next_sequence == _ROWS
            await append(store, source, mine, *rows_from(_ROWS, _ROWS))
            assert await stored_sequences(store, mine, source) == list(range(2 * _ROWS))

    asyncio.run(check())


@pytest.mark.parametrize("committed", [False, True])
def test_case_13_cut_during_commit(server: SqlServer, committed: bool) -> None:
    """A COMMIT that did not arrive, or whose answer did not: claiming tells, and each row is there once."""

    async def check() -> None:
        async with prepared(server) as (store, mine, source):
            await append(store, source, mine, *rows_from(100, _ROWS))
            first = 200
            to_server, to_client = await _bytes_of_append(server, store, mine, source, first)
            assert await _bytes_of_append(server, store, mine, source, first + _ROWS) == (to_server, to_client)
            first += 2 * _ROWS
            if committed:
                server.proxy.cut_after(to_client - 1, "to_client", times=1)
            else:
                server.proxy.cut_after(to_server - _COMMIT_BYTES // 2, "to_server", times=1)
            cuts = server.proxy.traffic.cuts
            with pytest.raises(StoreUnavailable):
                await append(store, source, mine, *rows_from(first, _ROWS))
            await asyncio.to_thread(server.proxy.wait_until, lambda seen: seen.cuts == cuts + 1)
            source = await store.claim(topic())
            assert source.next_sequence == (first + _ROWS if committed else first)
            await append(store, source, mine, *rows_from(first, _ROWS))
            assert await stored_sequences(store, mine, source) == list(range(100, first + _ROWS))

    asyncio.run(check())


async def _bytes_of_append(
    server: SqlServer, store: HistoryStore, mine: FeatureGroup, source: Source, first: int
) -> tuple[int, int]:
    """Bytes that an append sends and receives; it ends with the COMMIT and its answer."""
    before = server.proxy.traffic
    await append(store, source, mine, *rows_from(first, _ROWS))
    # The append has returned, so all that it sent and received has passed; counting may lag a moment behind.
    after = await asyncio.to_thread(
        server.proxy.wait_until, lambda seen: seen.to_client > before.to_client and not seen.held
    )
    return after.to_server - before.to_server, after.to_client - before.to_client


def test_server_restarted_between_two_calls(server: SqlServer) -> None:
    """Pooled connections that a restart has closed are not used again: the next call just works."""

    async def check() -> None:
        async with prepared(server) as (store, mine, source):
            await append(store, source, mine, *rows_from(0, 10))
            await asyncio.to_thread(server.restart)
            await append(store, source, mine, *rows_from(10, 10))
            assert await stored_sequences(store, mine, source) == list(range(20))

    asyncio.run(check())
