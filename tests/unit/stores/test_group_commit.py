"""Writers of one SQLite file share transactions, and each gets what it would have got alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from oomstream.schemas.errors import Fenced, StoreUnavailable
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.group_commit import MOST, MOST_VALUES, GroupCommit
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.testing.history_suite import append, register, topic
from oomstream.stores.testing.samples import event, group


class Place:
    """A file with a table of numbers, and the group commit of its writers."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.writing = asyncio.Lock()
        self.begun = 0
        self.refused = False
        self.group = GroupCommit(self._begin, self.writing, "a file")

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[AsyncConnection]:
        self.begun += 1
        async with self.engine.connect() as connection:
            if self.refused:
                raise OSError("no")
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    def add(
        self, number: int, *, before_commit: Callable[[], None] = lambda: None, values: int = 1
    ) -> asyncio.Task[int]:
        """Write a number; gives ten times of it. -1 raises."""

        async def work(connection: AsyncConnection) -> int:
            await connection.exec_driver_sql("INSERT INTO number VALUES (?)", (number,))
            if number < 0:
                raise ValueError(number)
            return number * 10

        return asyncio.ensure_future(self.group.run(work, before_commit, values))

    async def together(self, *waiting: asyncio.Task[int]) -> list[int | BaseException]:
        """Have them all wait for the lock before the first gets it."""
        async with self.writing:
            await asyncio.sleep(0)
        return await asyncio.gather(*waiting, return_exceptions=True)

    async def stored(self) -> list[int]:
        """The numbers, in the order in which they were written."""
        async with self.engine.connect() as connection:
            return list(await connection.scalars(sa.text("SELECT value FROM number ORDER BY rowid")))


def at(path: Path, check: Callable[[Place], Coroutine[Any, Any, None]]) -> None:
    """Run a check on an empty table."""

    async def run() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}/numbers.db", connect_args={"isolation_level": None})
        async with engine.connect() as connection:
            await connection.exec_driver_sql("CREATE TABLE number (value INTEGER)")
        await check(Place(engine))
        await engine.dispose()

    asyncio.run(run())


def test_writers_who_wait_share_a_transaction(tmp_path: Path) -> None:
    """One BEGIN for all, in the order in which they came, and each gets its own result."""

    async def check(place: Place) -> None:
        assert await place.together(*map(place.add, range(5))) == [0, 10, 20, 30, 40]
        assert await place.stored() == [0, 1, 2, 3, 4]
        assert place.begun == 1

    at(tmp_path, check)


def test_a_transaction_has_a_bounded_number_of_writers(tmp_path: Path) -> None:
    """More than `MOST` take several."""

    async def check(place: Place) -> None:
        numbers = list(range(2 * MOST + 1))
        assert await place.together(*map(place.add, numbers)) == [each * 10 for each in numbers]
        assert await place.stored() == numbers
        assert place.begun == 3

    at(tmp_path, check)


def test_a_large_batch_shares_with_nobody(tmp_path: Path) -> None:
    """Together they write no more than one large batch does, so that a deadline is passed no sooner."""

    async def check(place: Place) -> None:
        half, more = MOST_VALUES // 2, MOST_VALUES * 4
        writers = [(1, half), (2, half), (3, 1), (4, more), (5, 1)]
        found = await place.together(*(place.add(number, values=values) for number, values in writers))
        assert found == [10, 20, 30, 40, 50]
        assert await place.stored() == [1, 2, 3, 4, 5]
        assert place.begun == 4

    at(tmp_path, check)


def test_an_error_is_only_its_own(tmp_path: Path) -> None:
    """Who raises gets the error and leaves nothing; the others are stored, each by itself."""

    async def check(place: Place) -> None:
        first, bad, last = await place.together(*map(place.add, (1, -1, 2)))
        assert (first, last) == (10, 20)
        assert isinstance(bad, ValueError)
        assert await place.stored() == [1, 2]
        assert place.begun == 4

    at(tmp_path, check)


def test_what_objects_before_the_commit_is_undone(tmp_path: Path) -> None:
    """`before_commit` is asked when all work is done, and undoes its own writer's only."""

    async def check(place: Place) -> None:
        def object_to_it() -> None:
            raise StoreUnavailable("too late")

        first, late = await place.together(place.add(1), place.add(2, before_commit=object_to_it))
        assert first == 10
        assert isinstance(late, StoreUnavailable)
        assert await place.stored() == [1]

    at(tmp_path, check)


def test_where_nothing_can_begin_all_hear_of_it_once(tmp_path: Path) -> None:
    """A file that cannot be written is not tried once for each writer."""

    async def check(place: Place) -> None:
        place.refused = True
        assert all(isinstance(each, OSError) for each in await place.together(*map(place.add, range(3))))
        assert place.begun == 1

    at(tmp_path, check)


def test_a_leader_who_is_cancelled_leaves_the_others_in_doubt(tmp_path: Path) -> None:
    """They raise `StoreUnavailable`; who was not taken along goes on, and the lock is free."""

    async def check(place: Place) -> None:
        reached = asyncio.Event()

        async def wait(_: AsyncConnection) -> None:
            reached.set()
            await asyncio.Event().wait()

        leader = asyncio.ensure_future(place.group.run(wait, lambda: None))
        async with place.writing:
            await asyncio.sleep(0)
            follower = place.add(1)
            await asyncio.sleep(0)
        await reached.wait()
        later = place.add(2)
        await asyncio.sleep(0)
        leader.cancel()
        found = await asyncio.gather(leader, follower, later, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        assert isinstance(found[1], StoreUnavailable)
        assert found[2] == 20
        assert await place.stored() == [2]

    at(tmp_path, check)


def test_who_is_cancelled_while_it_waits_writes_nothing(tmp_path: Path) -> None:
    """Its work is not taken along."""

    async def check(place: Place) -> None:
        async with place.writing:
            first, second = place.add(1), place.add(2)
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.sleep(0)
        assert await second == 20
        assert await place.stored() == [2]

    at(tmp_path, check)


def test_a_fenced_partition_fences_no_other(tmp_path: Path) -> None:
    """Batches of three partitions at once, one of which has another owner by now: two are stored, one is `Fenced`."""

    async def check() -> None:
        store = SqlHistoryStore(f"sqlite:///{tmp_path}/history.db", load_settings())
        async with store:
            await store.init()
            [registered] = await register(store, group())
            sources = await asyncio.gather(*(store.claim(topic(partition=at)) for at in range(3)))
            await store.claim(topic(partition=1))
            batches = [append(store, source, registered, event(0)) for source in sources]
            found = await asyncio.gather(*batches, return_exceptions=True)
            assert [isinstance(each, Fenced) for each in found] == [False, True, False]
            assert [each.next_sequence for each in await store.sources()] == [1, 0, 1]

    asyncio.run(check())
