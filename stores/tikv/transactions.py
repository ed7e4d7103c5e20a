"""Transactions that always end, whatever happens to the caller."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from oomstream.stores.tikv import process_exit

_T = TypeVar("_T")

_CLOSE_GRACE_S = 3.0
_ROLLBACK_TIMEOUT_S = 3.0


class Transactions:
    """Runs optimistic transactions, each in a task of its own.

    A transaction that is dropped unfinished panics in Rust, and one whose commit is cancelled leaves locks that hold
    up everybody for seconds. So a caller that is cancelled or runs out of time leaves its transaction to end by itself:
    it commits, which versions make harmless, or it fails and is rolled back.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, client: Any, work: Callable[[Any], Awaitable[_T]]) -> _T:
        """Begin a transaction, do `work` in it, and commit.

        Raises:
            Exception: tikv-client's own error; whether the commit took effect may be unknown.
        """
        task = asyncio.create_task(_to_its_end(client, work))
        self._running.add(task)
        task.add_done_callback(self._ended)
        # Not `await task`, which would pass the caller's cancellation on to it.
        await asyncio.wait({task})
        return task.result()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        process_exit.touch()
        if not task.cancelled():
            task.exception()

    async def close(self) -> None:
        """Wait a little for what is under way, and cancel the rest."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=_CLOSE_GRACE_S)
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(set(self._running))


async def _to_its_end(client: Any, work: Callable[[Any], Awaitable[_T]]) -> _T:
    transaction = await client.begin(False)
    try:
        result = await work(transaction)
        await transaction.commit()
    except BaseException:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_ROLLBACK_TIMEOUT_S):
                await transaction.rollback()
        raise
    finally:
        # The client goes on renewing the locks of a transaction whose rollback failed for as long as the object lives,
        # and the traceback of an error would keep it alive.
        del transaction
    return result
