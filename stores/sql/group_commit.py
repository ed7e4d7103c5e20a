"""Writers that wait for the same file, in one transaction.

Where only one transaction writes at a time, those of many partitions queue. Whoever comes to the front takes along what
waits behind him: one BEGIN, one COMMIT, one wait for the disk, and a page that several of them change is written once.
Measured with a worker of 64 partitions on SQLite: half the processor time an event, and a third of the time.

Each still gets what it would have got alone. If one of them raises, all is undone and each is done again by itself, so
that an error is only its own. If the one at the front is cancelled, the outcome for the others is unknown, as it is of
a call that times out: they raise `StoreUnavailable`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from oomstream.schemas.errors import StoreUnavailable

MOST = 16
"""So many writers share a transaction at most."""

MOST_VALUES = 100_000
"""So many values, about, are in a shared transaction at most, and a larger batch shares with nobody: where a deadline
passes all of it is lost, so it must not take longer than large batches do."""

_T = TypeVar("_T")


class _Writer:
    """One who waits.

    Attributes:
        work: What to do; may be called again after a rollback.
        before_commit: Called when all work of the transaction is done; what it raises undoes it.
        values: How many values it writes, about.
        done: Whether it is known how it ended.
        result: What the work gave.
        error: What it raised.
    """

    __slots__ = ("before_commit", "done", "error", "result", "values", "work")

    def __init__(
        self, work: Callable[[AsyncConnection], Awaitable[Any]], before_commit: Callable[[], None], values: int
    ) -> None:
        self.work = work
        self.values = values
        self.before_commit = before_commit
        self.done = False
        self.result: Any = None
        self.error: Exception | None = None

    def end(self, result: Any = None, error: Exception | None = None) -> None:
        """Say how it ended, once."""
        if not self.done:
            self.done, self.result, self.error = True, result, error


class GroupCommit:
    """The queue of writers of one database, in one event loop.

    Args:
        begun: Gives a connection with a transaction that may write; undone at the end unless it was committed.
        writing: Held by whoever writes, also by those who share nothing.
        where: What messages begin with.
    """

    def __init__(
        self, begun: Callable[[], AbstractAsyncContextManager[AsyncConnection]], writing: asyncio.Lock, where: str
    ) -> None:
        self._begun = begun
        self._writing = writing
        self._where = where
        self._waiting: deque[_Writer] = deque()

    async def run(
        self, work: Callable[[AsyncConnection], Awaitable[_T]], before_commit: Callable[[], None], values: int = 0
    ) -> _T:
        """Do something in a transaction, perhaps together with others.

        Args:
            work: What to do; may be called again after a rollback.
            before_commit: Called when all work of the transaction is done; what it raises undoes it.
            values: How many values it writes, about.

        Returns:
            What `work` gave.

        Raises:
            StoreUnavailable: The one who led the transaction was cancelled; whether it was committed is not known.
        """
        mine = _Writer(work, before_commit, values)
        self._waiting.append(mine)
        try:
            async with self._writing:
                if not mine.done:
                    await self._lead()
        finally:
            with suppress(ValueError):
                self._waiting.remove(mine)
        if mine.error is not None:
            raise mine.error
        result: _T = mine.result
        return result

    async def _lead(self) -> None:
        """Take the first of those who wait; the lock comes to writers in order, so one of them is who calls."""
        taken = [self._waiting.popleft()]
        values = taken[0].values
        while self._waiting and len(taken) < MOST and (values := values + self._waiting[0].values) <= MOST_VALUES:
            taken.append(self._waiting.popleft())
        try:
            if not await self._commit(taken):
                for each in taken:
                    await self._commit([each])
        finally:
            for each in taken:
                each.end(error=StoreUnavailable(f"{self._where}: a transaction shared with others was given up"))

    async def _commit(self, taken: Sequence[_Writer]) -> bool:
        """Commit all in one transaction; False, with nothing done, if one of several raises."""
        try:
            async with self._begun() as connection:
                try:
                    results = [await each.work(connection) for each in taken]
                    for each in taken:
                        each.before_commit()
                except Exception:
                    if len(taken) == 1:
                        raise
                    return False
                await connection.commit()
        except Exception as exc:
            for each in taken:
                each.end(error=exc)
        else:
            for each, result in zip(taken, results, strict=True):
                each.end(result)
        return True
