"""One client of TiKV, made when it is needed and made anew when it has stopped working."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from oomstream.stores.tikv import process_exit
from oomstream.stores.tikv.deadline import Deadline
from oomstream.stores.tikv.troubles import Remedy, Trouble

_FAILURES_TO_RENEW = 2


class Connection:
    """The client that calls go through; used from one event loop.

    Args:
        connect: Makes a client.
        connect_timeout_s: Deadline of one attempt to connect.
    """

    def __init__(self, connect: Callable[[], Awaitable[Any]], connect_timeout_s: float) -> None:
        self._new_client = connect
        self._connect_timeout_s = connect_timeout_s
        self._client: Any = None
        self._connecting: asyncio.Task[Any] | None = None
        self._failures = 0

    async def client(self, deadline: Deadline) -> Any:
        """The client, connected if there is none; callers at the same time share one attempt.

        Raises:
            InvalidSetting: The client is not installed, or this process is a fork.
            TimeoutError: PD did not answer in time.
            Exception: The client's own error.
        """
        process_exit.check_process()
        if self._client is not None:
            return self._client
        attempt = self._connecting
        if attempt is None or attempt.done():
            attempt = self._connecting = asyncio.create_task(self._connect())
            # Its callers may all have gone by the time it fails.
            attempt.add_done_callback(_retrieve)
        await asyncio.wait({attempt}, timeout=deadline.left_s())
        if not attempt.done():
            raise TimeoutError
        return attempt.result()

    async def _connect(self) -> Any:
        async with asyncio.timeout(self._connect_timeout_s):
            self._client = await self._new_client()
        self._failures = 0
        return self._client

    def worked(self, client: Any) -> None:
        """Note that a call through a client succeeded."""
        if client is self._client:
            self._failures = 0

    def failed(self, client: Any, trouble: Trouble) -> None:
        """Note that a call through a client failed; the next `client` may make a new one.

        After a restart of the cluster a client answers "Leader of region … is not found" for ever, and one that has
        lost PD's stream of timestamps never opens another (tikv-client 0.0.4).
        """
        if client is None or client is not self._client or trouble.remedy in {Remedy.AGAIN, Remedy.HALVE}:
            return
        self._failures += 1
        if trouble.remedy is Remedy.RENEW or self._failures >= _FAILURES_TO_RENEW:
            self._client = None

    async def close(self) -> None:
        """Let go of the client."""
        attempt, self._connecting = self._connecting, None
        self._client = None
        if attempt is not None and not attempt.done():
            attempt.cancel()
            await asyncio.wait({attempt})
        self._client = None


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
