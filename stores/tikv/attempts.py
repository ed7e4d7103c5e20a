"""Doing a call until it works, it cannot work, or its time is up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

from oomstream.schemas.errors import Fatal, StoreUnavailable
from oomstream.stores.tikv.connection import Connection
from oomstream.stores.tikv.deadline import Deadline
from oomstream.stores.tikv.troubles import NO_ANSWER, Remedy, Trouble, trouble_of

_T = TypeVar("_T")

_ATTEMPTS = 2
"""One attempt may take this part of a call's deadline: one that hangs leaves time for another, through a new client."""

_FIRST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 1.0


class Attempts:
    """Calls to one cluster.

    Args:
        connect: Makes a client, in any time; may be cancelled.
        store: The store's URL, for messages.
        call_timeout_s: Deadline of every call.
        ended: Called whenever an attempt has ended.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Any]],
        store: str,
        call_timeout_s: float,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._call_timeout_s = call_timeout_s
        self.timeout_s = call_timeout_s / _ATTEMPTS
        self._connection = Connection(connect, self.timeout_s)
        self._ended = ended

    async def close(self) -> None:
        """Let go of the client."""
        await self._connection.close()

    async def call(
        self,
        what: str,
        attempt: Callable[[Any], Awaitable[_T]],
        *,
        attempts: int | None = None,
        timeout_s: float | None = None,
    ) -> _T:
        """Try until it works or the deadline is reached.

        Args:
            what: A verb for messages, which goes before the store's name.
            attempt: Does it once, through the client it is given; may be cancelled.
            attempts: How often, at most; None = until the deadline.
            timeout_s: The deadline, if it is not that of other calls; an attempt may then take all of it.

        Raises:
            StoreUnavailable: It did not work.
            Fatal: It cannot work.
            InvalidSetting: The client is not installed, or cannot run here.
        """
        deadline = Deadline.after(timeout_s or self._call_timeout_s)
        pauses = _pauses()
        told = NO_ANSWER
        while True:
            client = None
            try:
                async with asyncio.timeout_at(deadline.no_later_than(timeout_s or self.timeout_s).at):
                    client = await self._connection.client(deadline)
                    result = await attempt(client)
            except BaseException as exc:
                trouble = trouble_of(exc)
                if trouble is None:
                    raise
                self._connection.failed(client, trouble)
                # That the time is up says less than what went wrong before.
                told = told if trouble is NO_ANSWER else trouble
                attempts = None if attempts is None else attempts - 1
                pause_s = next(pauses)
                if trouble.remedy is Remedy.STOP:
                    raise Fatal(self._sentence(what, trouble)) from exc
                if attempts == 0 or deadline.left_s() <= pause_s:
                    raise StoreUnavailable(self._sentence(what, told)) from exc
                await asyncio.sleep(pause_s)
            else:
                self._connection.worked(client)
                return result
            finally:
                self._ended()

    def _sentence(self, what: str, trouble: Trouble) -> str:
        return f"cannot {what} online store {self._store}: {trouble.said}; {trouble.advice}"


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE_S
    while True:
        # Jitter, so that two writers that met do not meet again.
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
        pause = min(2 * pause, _LONGEST_PAUSE_S)
