"""The SQL servers of the tests, TiDB and MariaDB, through the product's client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import aiomysql
import pymysql
import pytest

from tests.services.mysql_protocol import SqlServer

_TIMEOUT_S = 30.0


@pytest.fixture(params=["tidb", "mariadb"])
def server(request: pytest.FixtureRequest) -> SqlServer:
    """Each of the servers in turn."""
    running: SqlServer = request.getfixturevalue(f"{request.param}_server")
    return running


async def _connect(url: str) -> Any:
    parts = urlsplit(url)
    return await aiomysql.connect(
        host=parts.hostname, port=parts.port, user=parts.username, db=parts.path.strip("/"), connect_timeout=10
    )


def _on(url: str, work: Callable[[Any, Any], Awaitable[Any]]) -> Any:
    """Do something with a connection and its cursor."""

    async def main() -> Any:
        connection = await _connect(url)
        try:
            async with connection.cursor() as cursor:
                return await work(connection, cursor)
        finally:
            connection.close()

    return asyncio.run(asyncio.wait_for(main(), _TIMEOUT_S))


async def _make_table(connection: Any, cursor: Any) -> None:
    await cursor.execute("CREATE TABLE rows_ (k VARBINARY(255) PRIMARY KEY, v BIGINT)")


async def _insert(connection: Any, cursor: Any, *keys: bytes) -> None:
    await cursor.execute(f"INSERT INTO rows_ VALUES {', '.join(['(%s, 1)'] * len(keys))}", keys)
    await connection.commit()


async def _keys(connection: Any, cursor: Any) -> list[bytes]:
    await cursor.execute("SELECT k FROM rows_ ORDER BY k")
    return [row[0] for row in await cursor.fetchall()]


def test_tidb_is_the_version_it_says(tidb_server: SqlServer) -> None:
    """TiDB tells its version, from which clients take it for TiDB."""

    async def version(connection: Any, cursor: Any) -> str:
        await cursor.execute("SELECT VERSION()")
        return str((await cursor.fetchone())[0])

    assert _on(tidb_server.fresh_database(), version).endswith("TiDB-v8.5.4")


def test_databases_are_fresh(server: SqlServer) -> None:
    """Each database is empty and another one; keys are compared byte by byte."""
    first, second = server.fresh_database(), server.fresh_database()
    assert first != second
    for url in (first, second):
        _on(url, _make_table)
    _on(first, lambda *on: _insert(*on, b"a", b"a ", b"A", b"\x00"))
    assert _on(first, _keys) == [b"\x00", b"A", b"a", b"a "]
    assert _on(second, _keys) == []


@pytest.mark.parametrize("kill", [False, True])
def test_restart_keeps_rows(server: SqlServer, kill: bool) -> None:
    """After a restart, or a kill, the same address has the same rows, and takes more."""
    url = server.fresh_database()
    _on(url, _make_table)
    _on(url, lambda *on: _insert(*on, b"1"))
    if kill:
        server.kill()
    server.restart()
    _on(url, lambda *on: _insert(*on, b"2"))
    assert _on(url, _keys) == [b"1", b"2"]


def test_frozen_server_goes_on(server: SqlServer) -> None:
    """A frozen server answers what it was asked in the meantime once it goes on."""

    async def main(url: str) -> list[bytes]:
        connection = await _connect(url)
        async with connection.cursor() as cursor:
            server.pause()
            asking = asyncio.ensure_future(_keys(connection, cursor))
            done, _ = await asyncio.wait([asking], timeout=0.2)
            assert not done
            server.resume()
            keys = await asyncio.wait_for(asking, _TIMEOUT_S)
        connection.close()
        return keys

    url = server.fresh_database()
    _on(url, _make_table)
    _on(url, lambda *on: _insert(*on, b"1"))
    assert asyncio.run(main(url)) == [b"1"]


def test_lost_answer_of_a_commit(server: SqlServer) -> None:
    """A proxy can take away the answer of a COMMIT that the server has carried out."""

    async def insert(connection: Any, cursor: Any) -> None:
        await cursor.execute("INSERT INTO rows_ VALUES (%s, 1)", (b"1",))
        server.proxy.cut_after(0, "to_client", times=1)
        with pytest.raises(pymysql.err.OperationalError):
            await connection.commit()

    url = server.fresh_database(proxied=True)
    _on(url, _make_table)
    _on(url, insert)
    assert server.proxy.wait_until(lambda traffic: traffic.cuts > 0)
    assert _on(url, _keys) == [b"1"]


def test_server_is_down_for_proxied_clients_only(server: SqlServer) -> None:
    """A proxy that refuses keeps its clients out, and no others."""
    server.proxy.refuse()
    with pytest.raises(pymysql.err.OperationalError):
        _on(server.proxied_url + "/mysql", _keys)
    server.fresh_database()
