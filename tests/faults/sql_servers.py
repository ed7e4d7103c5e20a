"""What the fault tests of the stores on SQL servers share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pymysql

from oomstream.schemas.events import Event
from oomstream.schemas.groups import FeatureGroup
from oomstream.stores.base import HistoryStore, Source
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.testing.history_suite import register, topic
from oomstream.stores.testing.samples import event, group
from tests.services.mysql_protocol import SqlServer
from tests.services.native import HOST

CALL_TIMEOUT_S = 2.0
WIDTH = 200
"""Characters of a value: a batch must not fit into the network's buffers whole."""


def store_on(url: str, *, call_timeout: str = "2s", session_timeout: str = "2s") -> SqlHistoryStore:
    """A history store with short time limits: idle transactions end after half the session timeout."""
    return SqlHistoryStore(url, load_settings(call_timeout_us=call_timeout, session_timeout_us=session_timeout))


def rows_from(first: int, count: int) -> list[Event]:
    """Events whose statements have one length for all numbers of the same number of digits."""
    return [event(at, f"key {at}", at, "x" * WIDTH) for at in range(first, first + count)]


def text_group() -> FeatureGroup:
    """A group whose only feature is text."""
    return group(features={"s": "string"})


@asynccontextmanager
async def prepared(server: SqlServer) -> AsyncIterator[tuple[HistoryStore, FeatureGroup, Source]]:
    """A store through the server's proxy, ready, with a group and a claimed source; one warm connection."""
    async with store_on(server.fresh_database(proxied=True)) as store:
        await store.init()
        [mine] = await register(store, text_group())
        yield store, mine, await store.claim(topic())


@contextmanager
def statements_on(server: SqlServer, url: str, **options: Any) -> Iterator[Any]:
    """A cursor around the store and the proxy; nothing is committed unless the test does."""
    connection = pymysql.connect(
        host=HOST, port=server.port, user="root", database=url.rpartition("/")[2], charset="utf8mb4", **options
    )
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


async def stored_sequences(store: HistoryStore, mine: FeatureGroup, source: Source) -> list[int]:
    """Sequences of a source in history, in order."""
    return [row.sequence for row in await store.rows_of_source(mine, source.id, 0, 1 << 40)]


async def ticks_during(task: asyncio.Task[Any]) -> float:
    """The longest time, in seconds, for which the event loop did not turn while a task ran: heartbeats need it."""
    loop = asyncio.get_running_loop()
    longest, last = 0.0, loop.time()
    while not task.done():
        await asyncio.wait([task], timeout=0.02)
        now = loop.time()
        longest, last = max(longest, now - last), now
    return longest
