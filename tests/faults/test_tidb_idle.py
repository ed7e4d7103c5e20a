"""Idle transactions and idle connections on SQL servers, and what MySQL has in place of TiDB's and MariaDB's limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress

import pymysql
import pytest

from oomstream.schemas.errors import StoreUnavailable
from oomstream.stores.sql.mysql_connection import Flavour
from oomstream.stores.testing.history_suite import append, register, topic
from tests.faults.sql_servers import rows_from, statements_on, store_on, stored_sequences, text_group
from tests.services.mysql_protocol import SqlServer

_DEADLINE_S = 15.0


@pytest.fixture(params=["tidb", "mariadb", "mysql"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlServer]:
    """Each server in turn; MariaDB also with the session settings that MySQL gets, all of which it has."""
    name = "tidb_server" if request.param == "tidb" else "mariadb_server"
    found: SqlServer = request.getfixturevalue(name)
    if request.param == "mysql":
        monkeypatch.setattr(Flavour, "of", classmethod(lambda cls, version: Flavour.MYSQL))
    yield found
    found.heal()


def test_idle_transaction_is_ended_by_the_server(server: SqlServer) -> None:
    """A transaction that does nothing for half the session timeout is rolled back, and its writer is told."""

    async def check() -> None:
        async with store_on(server.fresh_database(), call_timeout="20s", session_timeout="2s") as store:
            await store.init()
            await store.claim(topic())

            async def hold_and_commit(held: asyncio.Event, free: asyncio.Event) -> None:
                async with store._database.write() as connection:
                    await connection.exec_driver_sql("UPDATE source SET owner = 77")
                    held.set()
                    await free.wait()

            held, free = asyncio.Event(), asyncio.Event()
            holder = asyncio.create_task(hold_and_commit(held, free))
            await held.wait()
            began = time.monotonic()
            assert (await store.claim(topic())).owner == 2
            assert time.monotonic() - began < 3.5
            free.set()
            with pytest.raises(StoreUnavailable):
                await holder
            assert [source.owner for source in await store.sources()] == [2]

    asyncio.run(check())


def test_connections_closed_while_pooled(server: SqlServer) -> None:
    """A connection that the server closed while nobody used it is replaced, and no call fails for it."""

    async def check() -> None:
        url = server.fresh_database()
        async with store_on(url, call_timeout="20s", session_timeout="2s") as store:
            await store.init()
            [mine] = await register(store, text_group())
            source = await store.claim(topic())
            await append(store, source, mine, *rows_from(0, 10))
            await asyncio.to_thread(_end_all_connections, server, url)
            await append(store, source, mine, *rows_from(10, 10))
            assert await stored_sequences(store, mine, source) == list(range(20))

    asyncio.run(check())


def _end_all_connections(server: SqlServer, url: str) -> None:
    """Kill the connections to a database, and return when the server has none of them any more."""
    database = url.rpartition("/")[2]
    with statements_on(server, url, autocommit=True) as cursor:
        own = cursor.connection.thread_id()
        deadline = time.monotonic() + _DEADLINE_S
        while time.monotonic() < deadline:
            cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", (database,))
            others = [number for (number,) in cursor.fetchall() if number != own]
            if not others:
                return
            for number in others:
                with suppress(pymysql.OperationalError):  # it has gone meanwhile
                    cursor.execute(f"KILL {int(number)}")
    raise AssertionError("the server keeps its connections")
