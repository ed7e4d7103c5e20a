"""Pushes with no broker: what comes at the same time is written together, by one writer of this process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from oomstream.agents.serve.write_stores import WriteStores
from oomstream.schemas.errors import InvalidEvent, InvalidRequest, OomstreamError, StoreUnavailable
from oomstream.stores.rebuild import finish_pushes
from oomstream.streams.push import LEASE_S, LocalWriter

Row = Mapping[str, Any]
"""One event in python form: key fields, features, and the event time unless it is now."""

MAX_WAITING_ROWS = 50_000
"""So many rows wait for the stores at most; a push that comes then is refused at once."""


class _Waiting(NamedTuple):
    rows: Sequence[Row]
    num_bytes: int
    done: asyncio.Future[None]


class LocalPushes:
    """Writes events through the ingest pipeline in this process; for any number of tasks at once.

    A transaction costs about the same for one event and for a thousand, so all pushes that wait while one is under way
    go into the next one together.

    Args:
        stores: Where to write.
    """

    def __init__(self, stores: WriteStores) -> None:
        self._stores = stores
        settings = stores.settings
        # Whoever pushes waits for the answer: an outage is theirs to wait out, not ours.
        self._settings = settings.model_copy(
            update={"outage_budget_us": min(settings.outage_budget_us, settings.call_timeout_us)}
        )
        self._waiting: dict[str, deque[_Waiting]] = {}
        self._waiting_rows = 0
        self._writer: LocalWriter | None = None
        self._draining: asyncio.Task[None] | None = None
        self._tending: asyncio.Task[None] | None = None

    async def push(self, group: str, rows: Sequence[Row], num_bytes: int) -> None:
        """Write events of one group; when it returns they can be read.

        Args:
            group: Its name.
            rows: At most `Settings.batch_rows`; all of them are written, or none.
            num_bytes: How large they are, about.

        Raises:
            InvalidEvent: A value is wrong; names the field.
            InvalidRequest: An event as a whole is not acceptable.
            StoreUnavailable: A store is down; the events may be there all the same.
            Fatal: A store stayed down; as for `StoreUnavailable`.
        """
        if self._waiting_rows + len(rows) > MAX_WAITING_ROWS:
            raise StoreUnavailable("more events are being pushed than the stores take: push again later")
        waiting = _Waiting(rows, num_bytes, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(group, deque()).append(waiting)
        self._waiting_rows += len(rows)
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain())
        await waiting.done

    async def close(self) -> None:
        """Write what waits, and give the source back."""
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.wait([self._tending])
        if self._draining is not None:
            await asyncio.wait([self._draining])
        if self._writer is not None:
            await self._writer.close()

    async def _drain(self) -> None:
        while self._waiting:
            group, taken = self._take()
            try:
                await self._write(await self._open(), group, taken)
            except Exception as exc:
                _fail(taken, exc)

    def _take(self) -> tuple[str, list[_Waiting]]:
        """A group whose pushes wait, and as many of them, in order, as go into one batch."""
        group, queue = next(iter(self._waiting.items()))
        del self._waiting[group]
        taken: list[_Waiting] = []
        rows = num_bytes = 0
        while queue:
            rows += len(queue[0].rows)
            num_bytes += queue[0].num_bytes
            if taken and (rows > self._settings.batch_rows or num_bytes > self._settings.batch_bytes):
                self._waiting[group] = queue  # behind the other groups
                break
            each = queue.popleft()
            self._waiting_rows -= len(each.rows)
            if not each.done.cancelled():
                taken.append(each)
        return group, taken

    async def _open(self) -> LocalWriter:
        if self._writer is None:
            history, online = await self._stores.get()
            writer = LocalWriter(history, online, self._settings)
            await writer.__aenter__()
            self._writer = writer
            self._tending = asyncio.create_task(self._tend())
        return self._writer

    async def _write(self, writer: LocalWriter, group: str, taken: Sequence[_Waiting]) -> None:
        if not taken:
            return
        try:
            await writer.push_rows(group, [row for each in taken for row in each.rows])
        except (InvalidEvent, InvalidRequest):
            if len(taken) == 1:
                raise
            # One of them is wrong, and only its own caller shall hear of it.
            for each in taken:
                try:
                    await self._write(writer, group, [each])
                except Exception as exc:
                    _fail([each], exc)
        else:
            for each in taken:
                if not each.done.done():
                    each.done.set_result(None)

    async def _tend(self) -> None:
        """Finish, now and then, what killed writers left between history and online."""
        while True:
            await asyncio.sleep(LEASE_S)
            with suppress(OomstreamError):  # it is tried again
                await finish_pushes(*await self._stores.get())


def _fail(waiting: Sequence[_Waiting], error: Exception) -> None:
    for each in waiting:
        if not each.done.done():
            each.done.set_exception(error)
