"""Transactions that always end, whatever happens to the caller, and whose commits are not taken on trust."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from oomstream.stores.tikv import process_exit, snapshots
from oomstream.stores.tikv.sizes import AnswerSize
from oomstream.stores.tikv.troubles import LostCommit

_CLOSE_GRACE_S = 3.0
_ROLLBACK_TIMEOUT_S = 3.0

Written = Mapping[bytes, bytes | None]
"""What a transaction writes: value by key, None where it deletes."""


class Transactions:
    """Runs optimistic transactions, each in a task of its own.

    A transaction that is dropped unfinished panics in Rust, and one whose commit is cancelled leaves locks that hold
    up everybody for seconds. So a caller that is cancelled or runs out of time leaves its transaction to end by itself:
    it commits, or it fails and is rolled back. One that has only now got its timestamp is rolled back too, as it could
    delete what its caller has written since; one from before meets a conflict there.

    What was written is read back at the commit's own timestamp. For tikv-client 0.0.4 silently leaves out, and commits
    without, the part of a transaction whose region or server it cannot find at that moment (a region without a leader,
    a server that refuses the first connection); reads report the same error.

    Args:
        size: How much to ask for at once.
    """

    def __init__(self, size: AnswerSize) -> None:
        self._size = size
        self._running: set[asyncio.Task[Written]] = set()

    async def run(self, client: Any, work: Callable[[Any], Awaitable[Written]]) -> Written:
        """Begin a transaction, do `work` in it, commit, and see that what it wrote is there.

        Raises:
            LostCommit: It is not, or not all of it.
            Exception: tikv-client's own error; whether the commit took effect may be unknown.
        """
        left = asyncio.Event()
        task = asyncio.create_task(self._to_its_end(client, work, left))
        self._running.add(task)
        task.add_done_callback(self._ended)
        # Not `await task`, which would pass the caller's cancellation on to it.
        try:
            await asyncio.wait({task})
        finally:
            left.set()
        return task.result()

    def _ended(self, task: asyncio.Task[Written]) -> None:
        self._running.discard(task)
        process_exit.touch()
        if not task.cancelled():
            task.exception()

    async def _to_its_end(self, client: Any, work: Callable[[Any], Awaitable[Written]], left: asyncio.Event) -> Written:
        transaction = await client.begin(False)
        try:
            if left.is_set():
                raise TimeoutError
            written = await work(transaction)
            commit_timestamp = await transaction.commit()
        except BaseException:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_ROLLBACK_TIMEOUT_S):
                    await transaction.rollback()
            raise
        finally:
            # The client goes on renewing the locks of a transaction whose rollback failed for as long as the object
            # lives, and the traceback of an error would keep it alive.
            del transaction
        if written:
            stored = await snapshots.read_at(client, commit_timestamp, list(written), self._size)
            if any(stored.get(key) != value for key, value in written.items()):
                raise LostCommit
        return written

    async def close(self) -> None:
        """Wait a little for what is under way, and cancel the rest."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=_CLOSE_GRACE_S)
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(set(self._running))
