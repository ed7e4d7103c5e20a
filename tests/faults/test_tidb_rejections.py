"""Cases 14 to 16 on SQL servers: what they refuse, for now or for good; and what users without rights may do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from oomstream.schemas.errors import InvalidEvent, InvalidSetting, Reason, StoreUnavailable
from oomstream.schemas.plan import make_plan
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.testing.history_suite import append, register, topic
from oomstream.stores.testing.samples import event, group
from tests.faults.sql_servers import rows_from, statements_on, store_on, stored_sequences, text_group
from tests.services.mysql_protocol import SqlServer, run


@pytest.fixture(params=["tidb_server", "mariadb_server"])
def server(request: pytest.FixtureRequest) -> Iterator[SqlServer]:
    """Each server in turn."""
    found: SqlServer = request.getfixturevalue(request.param)
    yield found
    found.heal()


@contextmanager
def _user(server: SqlServer, database: str, *rights: str) -> Iterator[str]:
    """URL of the database for a new user who has these rights on it."""
    name = f"user_{database[-8:]}"
    run(server.port, f"CREATE USER '{name}'@'%' IDENTIFIED BY 'pass/word'")
    try:
        if rights:
            run(server.port, f"GRANT {', '.join(rights)} ON `{database}`.* TO '{name}'@'%'")
        yield server.url.replace("root@", f"{name}:pass%2Fword@") + f"/{database}"
    finally:
        run(server.port, f"DROP USER '{name}'@'%'")


def test_case_14_lock_wait_timeout(server: SqlServer) -> None:
    """A row that somebody else keeps locked is an outage when the wait is over; when it is free, writing works."""

    async def check() -> None:
        url = server.fresh_database()
        async with store_on(url, call_timeout="20s", session_timeout="2s") as store:
            await store.init()
            [mine] = await register(store, text_group())
            source = await store.claim(topic())
            with statements_on(server, url) as cursor:
                cursor.execute("UPDATE source SET owner = owner WHERE id = %s", (source.id,))
                cursor.execute("SELECT * FROM source WHERE id = %s FOR UPDATE", (source.id,))
                with pytest.raises(StoreUnavailable, match="1205"):
                    await append(store, source, mine, *rows_from(0, 10))
            await append(store, source, mine, *rows_from(0, 10))
            assert await stored_sequences(store, mine, source) == list(range(10))

    asyncio.run(check())


def test_case_14_deadlocks_are_done_again(server: SqlServer) -> None:
    """Of two transactions in a deadlock the server ends one, which is done again: both succeed, none is seen."""

    async def check() -> None:
        async with store_on(server.fresh_database(), call_timeout="20s") as store:
            await store.init()
            await asyncio.gather(*(store.claim(topic(partition=each)) for each in (0, 1)))
            one_each = asyncio.Barrier(2)
            attempts = 0

            def crossing(first: int, second: int) -> Any:
                async def work(connection: AsyncConnection) -> None:
                    nonlocal attempts
                    attempts += 1
                    raise_owner = "UPDATE source SET owner = owner + 1 WHERE id = %s"
                    await connection.exec_driver_sql(raise_owner, (first,))
                    if attempts <= 2:
                        await one_each.wait()
                    await connection.exec_driver_sql(raise_owner, (second,))

                return work

            database = store._database
            await asyncio.gather(database.transact(crossing(1, 2)), database.transact(crossing(2, 1)))
            assert attempts == 3
            assert [source.owner for source in await store.sources()] == [3, 3]

    asyncio.run(check())


def test_case_15_rejected_for_its_data(server: SqlServer) -> None:
    """One row that the server does not take refuses its batch, as invalid and without its values; the rest is taken."""

    async def check() -> None:
        async with store_on(server.fresh_database(), call_timeout="20s") as store:
            await store.init()
            [mine] = await register(store, group(features={"n": "long", "s": ["null", "string"]}))
            source = await store.claim(topic())
            events = [event(at, f"k{at}", at, at, "secret") for at in range(500)]
            for bad in (1 << 63, "no number"):
                batch = [*events[:250], event(250, "k", 250, bad, "secret"), *events[251:]]
                with pytest.raises(InvalidEvent) as caught:
                    await append(store, source, mine, *batch)
                assert caught.value.reason is Reason.REJECTED_BY_STORE
                assert "column" in str(caught.value)
                assert not {"secret", "no number"} & set(str(caught.value).split())
                assert caught.value.__cause__ is None
                assert await stored_sequences(store, mine, source) == []
            await append(store, source, mine, *events[:250], *events[251:])
            assert len(await stored_sequences(store, mine, source)) == 499

    asyncio.run(check())


def test_case_15_row_too_large(tidb_server: SqlServer) -> None:
    """A row larger than TiDB takes (6 MiB) is invalid, not an outage: it would never fit."""

    async def check() -> None:
        async with store_on(tidb_server.fresh_database(), call_timeout="30s") as store:
            await store.init()
            [mine] = await register(store, text_group())
            source = await store.claim(topic())
            with pytest.raises(InvalidEvent, match="8025"):
                await append(store, source, mine, event(0, "a", 0, "x" * (7 << 20)))
            await append(store, source, mine, event(0, "a", 0, "x" * (4 << 20)))
            assert await stored_sequences(store, mine, source) == [0]

    asyncio.run(check())


@pytest.mark.parametrize(
    ("name", "setting"), [("tidb_server", "tidb_super_read_only"), ("mariadb_server", "read_only")]
)
def test_case_16_read_only(request: pytest.FixtureRequest, name: str, setting: str) -> None:
    """A server that is read-only for a while is an outage; reading goes on, and writing when it is over."""
    server: SqlServer = request.getfixturevalue(name)

    async def check() -> None:
        database = server.fresh_database().rpartition("/")[2]
        with _user(server, database, "ALL") as url:
            async with store_on(url, call_timeout="20s") as store:
                await store.init()
                [mine] = await register(store, text_group())
                source = await store.claim(topic())
                run(server.port, f"SET GLOBAL {setting} = 1")
                try:
                    with pytest.raises(StoreUnavailable, match="read-only"):
                        await append(store, source, mine, *rows_from(0, 10))
                    assert await stored_sequences(store, mine, source) == []
                finally:
                    run(server.port, f"SET GLOBAL {setting} = 0")
                await append(store, source, mine, *rows_from(0, 10))

    asyncio.run(check())


def test_worker_without_ddl_rights(server: SqlServer) -> None:
    """A user who may only read and write rows can do all that workers and readers do, and no more."""

    async def check() -> None:
        admin_url = server.fresh_database()
        async with store_on(admin_url, call_timeout="20s") as admin:
            await admin.init()
            [mine] = await register(admin, text_group())
            with _user(server, admin_url.rpartition("/")[2], "SELECT", "INSERT", "UPDATE", "DELETE") as url:
                async with store_on(url, call_timeout="20s") as store:
                    assert await store.init() == await admin.pairing_id() == await store.pairing_id()
                    source = await store.claim(topic())
                    await append(store, source, mine, *rows_from(0, 10))
                    await store.mark_online(source, 10)
                    await store.renew_lease(await store.lease_push_source(60), 0)
                    assert len(await store.scan_newest(mine)) == 10
                    assert (await store.newest(mine, [("key 1",)]))[0] is not None
                    async with store.cut() as cut:
                        tables = [table async for table in cut.scan(mine, ["s"], keys=[("key 1",), ("key 2",)])]
                    assert sum(table.num_rows for table in tables) == 2
                    with pytest.raises(InvalidSetting, match="lacks a right"):
                        await store.apply(make_plan(await store.load_catalog(), [group("other")]))
                    await append(store, source, mine, *rows_from(10, 10))

    asyncio.run(check())


def test_wrong_user_and_missing_rights(server: SqlServer) -> None:
    """A wrong password, a user without rights and a database that is not there: one sentence each, no password."""

    async def check() -> None:
        missing = f"{server.url}/not_there_{server.port}"
        store = SqlHistoryStore(missing, load_settings())
        async with store:
            assert await store.pairing_id() is None
            with pytest.raises(InvalidSetting, match="oomstream init"):
                await store.claim(topic())
        database = server.fresh_database().rpartition("/")[2]
        with _user(server, database) as url:
            for wrong in (url, url.replace("pass%2Fword", "wrong%21")):
                with pytest.raises(InvalidSetting) as caught:
                    await SqlHistoryStore(wrong, load_settings()).open()
                assert "pass" not in str(caught.value).replace("using password", "")
                assert "wrong!" not in str(caught.value)
                assert ":***@" in str(caught.value)
        with _user(server, f"fresh_{server.port}", "SELECT") as url:
            store = SqlHistoryStore(url, load_settings())
            with pytest.raises(InvalidSetting, match=r"CREATE DATABASE|lacks a right"):
                async with store:
                    await store.init()

    asyncio.run(check())


def test_init_makes_the_database(server: SqlServer) -> None:
    """`init` makes a database with a name that needs quoting, and finds it made the next time."""

    async def check() -> None:
        url = f"{server.url}/odd%20name%25-{server.port}"
        async with store_on(url, call_timeout="20s") as store:
            made = await store.init()
            [mine] = await register(store, group("user-click", entity="user"))
            source = await store.claim(topic())
            await append(store, source, mine, event(0))
            async with store.cut() as cut:
                assert [table.num_rows async for table in cut.scan(mine, ["n"])] == [1]
        async with store_on(url, call_timeout="20s") as store:
            assert await store.init() == made

    try:
        asyncio.run(check())
    finally:
        run(server.port, f"DROP DATABASE IF EXISTS `odd name%-{server.port}`")


def test_inits_at_once(server: SqlServer) -> None:
    """Several processes that initialise a database at once agree on one UUID."""

    async def check() -> None:
        url = f"{server.url}/at_once_{server.port}"
        stores = [store_on(url, call_timeout="20s", session_timeout="30s") for _ in range(6)]
        async with contextlib.AsyncExitStack() as stack:
            for store in stores:
                await stack.enter_async_context(store)
            assert len(set(await asyncio.gather(*(store.init() for store in stores)))) == 1

    try:
        asyncio.run(check())
    finally:
        run(server.port, f"DROP DATABASE IF EXISTS `at_once_{server.port}`")


def test_init_beside_a_faster_one(server: SqlServer) -> None:
    """Somebody who makes every table just before it is made is no conflict: a dozen would use up all attempts."""

    async def check() -> None:
        url = server.fresh_database()
        made = []
        async with store_on(url, call_timeout="20s", session_timeout="30s") as store:
            assert store._database._engine is not None
            with statements_on(server, url, autocommit=True) as rival:

                @sa.event.listens_for(store._database._engine.sync_engine, "before_cursor_execute")
                def be_faster(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
                    if statement.lstrip().startswith("CREATE TABLE"):
                        with contextlib.suppress(pymysql.MySQLError):  # a second attempt at it
                            rival.execute(statement)
                        made.append(statement)

                assert await store.init() == await store.pairing_id()
        assert len(made) == len(store._tables.metadata.tables) > 6

    asyncio.run(check())


def test_init_completes_an_interrupted_one(server: SqlServer) -> None:
    """An index whose table was made by an `init` that was ended just then is made by the next one."""

    async def check() -> None:
        url = server.fresh_database()
        async with store_on(url, call_timeout="20s", session_timeout="30s") as store:
            made = await store.init()
            with statements_on(server, url, autocommit=True) as cursor:
                cursor.execute("DROP INDEX ix_forgotten_number ON forgotten")
                assert await store.init() == made
                assert cursor.execute("SHOW INDEX FROM forgotten WHERE Key_name = 'ix_forgotten_number'") == 1

    asyncio.run(check())


def test_messages_hide_the_password_of_the_driver(server: SqlServer) -> None:
    """Neither an error nor what it was caused by shows the password."""

    async def check() -> BaseException | None:
        try:
            await SqlHistoryStore(server.url.replace("root@", "root:hush%21@") + "/x", load_settings()).open()
        except InvalidSetting as exc:
            return exc
        return None

    exc: BaseException | None = asyncio.run(check())
    assert exc is not None
    while exc is not None:
        assert "hush" not in repr(exc)
        assert not isinstance(exc, pymysql.ProgrammingError)
        exc = exc.__cause__
