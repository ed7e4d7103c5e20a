"""A COMMIT that the server refuses."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from oomstream.schemas.errors import StoreUnavailable
from oomstream.stores.testing.history_suite import topic
from tests.faults.sql_servers import statements_on, store_on
from tests.services.mysql_protocol import SqlServer


def test_a_refused_commit_leaves_no_transaction_behind(tidb_server: SqlServer) -> None:
    """What a read-only server refuses to commit is given up: the connection's next user cannot commit it."""
    url = tidb_server.fresh_database()
    user, database = f"u{uuid.uuid4().hex[:12]}", url.rpartition("/")[2]
    with statements_on(tidb_server, url, autocommit=True) as cursor:
        run = cursor.execute
        run(f"CREATE USER {user}")
        run(f"GRANT ALL ON `{database}`.* TO {user}")  # root may write all the same

        async def check() -> None:
            async with store_on(f"{url.replace('root@', f'{user}@')}?pool_size=1") as store:
                await store.init()
                await store.claim(topic())

                async def refused(connection: AsyncConnection) -> None:
                    await connection.exec_driver_sql("UPDATE source SET owner = 77")
                    await asyncio.to_thread(run, "SET GLOBAL tidb_super_read_only = ON")

                with pytest.raises(StoreUnavailable, match="read-only"):
                    await store._database.transact(refused)
                await asyncio.to_thread(run, "SET GLOBAL tidb_super_read_only = OFF")
                assert [source.owner for source in await store.sources()] == [1]
                assert (await store.claim(topic())).owner == 2

        try:
            asyncio.run(check())
        finally:
            run("SET GLOBAL tidb_super_read_only = OFF")
