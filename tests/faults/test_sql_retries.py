"""Errors that a server gives and that pass: the pipeline does the batch again, on history and on online rows.

MariaDB stands for all servers of its protocol here, for it can be made to raise any error by its number.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from oomstream.schemas.errors import Fatal, StoreUnavailable
from oomstream.streams.backoff import Backoff
from tests.faults.sql_servers import statements_on
from tests.services.mysql_protocol import SqlServer, run
from tests.unit.streams.house import T0, House, valid

RETRYABLE = (1205, 1213, 8002, 8005, 8022, 8027, 8028, *range(9001, 9008))
"""What MySQL, MariaDB and TiDB say of a transaction that may be done again."""

FOR_EVER = 1_000_000


class Refusing:
    """A house on MariaDB, which refuses rows of history or online rows.

    Args:
        folder: Data folder.
        server: The server.
        where: ``history`` or ``online``.
        **more: Settings.
    """

    def __init__(self, folder: Path, server: SqlServer, where: str, **more: int) -> None:
        urls = {name: server.fresh_database() for name in ("history_url", "online_url")}
        self.house = House(folder, **urls, **more)
        self._server, self._port, self._url = server, server.port, urls[f"{where}_url"]
        self._table = {"history": "history_reading", "online": "online"}[where]

    def refuse(self, code: int, times: int) -> None:
        """Have the next so many inserts fail with an error, whatever is rolled back between them."""
        database = f"`{self._url.rpartition('/')[2]}`"
        run(self._port, f"CREATE OR REPLACE SEQUENCE {database}.refusals NOCACHE")
        run(
            self._port,
            f"CREATE OR REPLACE TRIGGER {database}.refuse BEFORE INSERT ON {database}.{self._table} FOR EACH ROW "
            f"IF NEXTVAL({database}.refusals) <= {times} THEN "
            f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'planted'; END IF",
        )

    def inserts(self) -> int:
        """How many inserts of rows were tried since `refuse`."""
        with statements_on(self._server, self._url) as cursor:
            cursor.execute("SELECT next_not_cached_value - 1 FROM refusals")
            [(count,)] = cursor.fetchall()
        return int(count)


@pytest.mark.parametrize("times", [1, 10])
@pytest.mark.parametrize("where", ["history", "online"])
def test_each_retryable_error(
    tmp_path: Path, mariadb_server: SqlServer, monkeypatch: pytest.MonkeyPatch, where: str, times: int
) -> None:
    """Case 14: each retryable error, once and ten times in a row: nothing is lost or doubled, and no letter written."""

    async def no_wait(self: Backoff, error: StoreUnavailable) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(Backoff, "wait", no_wait)
    refusing = Refusing(tmp_path, mariadb_server, where)

    async def scenario() -> None:
        async with refusing.house as house:
            pipeline = house.pipeline()
            await pipeline.start(0, 100, begin=0)
            for number, code in enumerate(RETRYABLE):
                await asyncio.to_thread(refusing.refuse, code, times)
                await pipeline.ingest([valid(2 * number, "a", number), valid(2 * number + 1, "b", number)])
                assert await asyncio.to_thread(refusing.inserts) == times + 2
            assert [row.sequence for row in await house.rows()] == list(range(2 * len(RETRYABLE)))
            last = len(RETRYABLE) - 1
            assert await house.online_versions() == {
                "a": (T0 + last, 2 * last, False), "b": (T0 + last, 2 * last + 1, False)
            }  # fmt: skip
            assert house.sink.letters == []

    asyncio.run(scenario())


@pytest.mark.parametrize(("where", "rows"), [("history", 0), ("online", 1)])
def test_past_the_budget_it_is_fatal(tmp_path: Path, mariadb_server: SqlServer, where: str, rows: int) -> None:
    """Case 14: an error that goes on past the budget stops the pipeline; the next one does what was left."""
    refusing = Refusing(tmp_path, mariadb_server, where, outage_budget_us=300_000)

    async def scenario() -> None:
        async with refusing.house as house:
            pipeline = house.pipeline()
            await pipeline.start(0, 100, begin=0)
            await asyncio.to_thread(refusing.refuse, 9005, FOR_EVER)
            with pytest.raises(Fatal, match=r"reading\[0\]: gave up after 0\.3 s of trying: .*9005"):
                await pipeline.ingest([valid(0, "a", 1)])
            assert (len(await house.rows()), await house.online_versions()) == (rows, {})
            await pipeline.flush()
            [source] = await house.history.sources()
            assert (source.next_sequence, source.online_sequence) == (rows, 0)

            await asyncio.to_thread(refusing.refuse, 9005, 0)
            pipeline = house.pipeline()
            assert await pipeline.start(0, 100, begin=0) == rows
            await pipeline.ingest([valid(0, "a", 1)])
            assert len(await house.rows()) == 1
            assert await house.online_versions() == {"a": (T0 + 1, 0, False)}
            assert house.sink.letters == []

    asyncio.run(scenario())
