"""What a batch costs on TiDB and MariaDB: statements, each a round trip, counted where they leave the driver."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from oomstream.schemas.events import Event
from oomstream.stores.base import Source
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.sql.mysql_connection import Connection
from oomstream.stores.testing.history_suite import append, register, topic
from oomstream.stores.testing.samples import event, group
from tests.conformance.mysql_raw import history_rows, rows_of_sql
from tests.services.mysql_protocol import SqlServer

_BATCH = ["UPDATE", "SELECT", "INSERT", "COMMIT"]
"""The fence with the position, what was decided before, the rows, the end."""


@pytest.fixture(params=["tidb_server", "mariadb_server"])
def server(request: pytest.FixtureRequest) -> Iterator[SqlServer]:
    """Each server in turn."""
    found: SqlServer = request.getfixturevalue(request.param)
    yield found
    found.heal()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Everything that connections send, by its first word."""
    words: list[str] = []
    execute = Connection._execute_command

    async def noted(self: Connection, command: int, sql: Any) -> Any:
        text = sql if isinstance(sql, str) else bytes(sql).decode("utf-8", "replace")
        words.append(text.split(None, 1)[0] if text else f"command {command}")
        return await execute(self, command, sql)

    monkeypatch.setattr(Connection, "_execute_command", noted)
    return words


def _events(source: Source, rows: int) -> list[Event]:
    start = source.next_sequence
    return [event(at, f"k{at % 300}", at % 977) for at in range(start, start + rows)]


def test_a_batch_is_four_round_trips(server: SqlServer, sent: list[str]) -> None:
    """A batch of up to 2,000 rows is four statements and nothing else; 2,000 rows more are one more."""

    async def check() -> None:
        async with SqlHistoryStore(server.fresh_database(), load_settings()) as store:
            await store.init()
            [mine] = await register(store, group())
            for rows, expected in ((2_000, _BATCH), (1, _BATCH), (0, ["UPDATE", "SELECT", "COMMIT"])):
                source = await store.claim(topic())
                sent.clear()
                await append(store, source, mine, *_events(source, rows), upto=source.next_sequence + max(rows, 1))
                assert sent == expected
            source = await store.claim(topic())
            sent.clear()
            await append(store, source, mine, *_events(source, 4_001))
            assert sent == [*_BATCH[:3], "INSERT", "INSERT", "COMMIT"]

    asyncio.run(check())


def test_rows_behind_the_position_stay_as_they_are(server: SqlServer, sent: list[str]) -> None:
    """Where a position lags behind the rows, which only a restored database can do, the stored rows win as ever."""

    async def check() -> None:
        url = server.fresh_database()
        async with SqlHistoryStore(url, load_settings()) as store:
            await store.init()
            [mine] = await register(store, group())
            source = await store.claim(topic())
            await append(store, source, mine, event(0, "a", 0, 1), event(1, "a", 1, 2))
            before = history_rows(url, mine.name)
            rows_of_sql(url, "UPDATE source SET next_sequence = 1, online_sequence = 1")
            source = await store.claim(topic())
            sent.clear()
            await append(store, source, mine, event(1, "a", 1, 77), event(2, "a", 2, 3))
            assert [each for each in sent if each != "ROLLBACK"] == [*_BATCH[:3], *_BATCH]
            after = history_rows(url, mine.name)
            assert after[:2] == before
            assert len(after) == 3

    asyncio.run(check())
