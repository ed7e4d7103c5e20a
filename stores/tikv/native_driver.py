"""The driver on our own package oomstream-tikv (the folder native/): one call per batch, outside the interpreter.

It compares, commits in one phase where that is possible, and retries what another transaction was in the way of; see
native/README.md. What it is told here is where a version stands in a value, when time is up, and that a client is no
longer any good.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from oomstream.schemas.errors import InvalidSetting
from oomstream.schemas.online_value import VERSION_END, VERSION_START, OnlineRow
from oomstream.stores.base import OnlineChange, OnlineRead
from oomstream.stores.crash_points import reach
from oomstream.stores.tikv import process_exit
from oomstream.stores.tikv.address import TikvAddress
from oomstream.stores.tikv.attempts import Attempts
from oomstream.stores.tikv.driver import TikvDriver
from oomstream.stores.tikv.sizes import commits
from oomstream.stores.tikv.tls import check_files
from oomstream.stores.tikv.troubles import NO_TLS, NativeFault

if TYPE_CHECKING:
    from oomstream_tikv import Driver, Session

_CALL_ROWS = 2_000
_CALL_BYTES = 4 << 20
"""What one call writes, which is a worker's usual batch; each has a deadline of its own."""

_CLOSE_GRACE_S = 3.0
_EXIT_GRACE_S = 2.0
_GC_TIMEOUT_S = 600.0


class NativeDriver(TikvDriver):
    """TiKV through oomstream-tikv.

    Args:
        address: The cluster; its namespace is the caller's business.
        call_timeout_s: Deadline of every call.
    """

    def __init__(self, address: TikvAddress, call_timeout_s: float) -> None:
        self._address = address
        self._gc_timeout_s = max(_GC_TIMEOUT_S, call_timeout_s)
        self._attempts = Attempts(self._connect, address.shown, call_timeout_s)
        self._driver: Driver | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # By the call's number; those whose caller has gone stay until they have ended.
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._idle = asyncio.Event()

    async def _connect(self) -> Session:
        try:
            import oomstream_tikv
        except ImportError as exc:
            raise InvalidSetting(
                f"online store {self._address.shown}: the package oomstream-tikv is installed but cannot be loaded "
                f"({exc}); build it here (`make install`), or set OOMSTREAM_TIKV_DRIVER to tikv-client"
            ) from exc
        process_exit.prepare()
        _finish_at_exit()
        if self._driver is None:
            self._driver = oomstream_tikv.Driver(self._address.pd, tls=self._address.tls)
        driver = self._driver
        tls = self._address.tls
        if tls is not None:
            check_files(*tls)
        try:
            session: Session = await self._ended(lambda: driver.connect(self._attempts.timeout_s))
        except NativeFault as exc:
            if tls is not None and "PD cluster failed to respond" in str(exc):
                raise NativeFault(NO_TLS) from exc  # the client does not tell which of the two it was
            raise
        return session

    async def connect(self) -> None:
        """Connect, and read a key; one attempt."""
        await self._read([self._address.pairing_key], "open", attempts=1)

    async def close(self) -> None:
        """Let writes end, and let go of the connection."""
        await self._attempts.close()
        if self._waiting and self._loop is asyncio.get_running_loop():
            self._idle.clear()
            try:
                async with asyncio.timeout(_CLOSE_GRACE_S):
                    await self._idle.wait()
            except TimeoutError:
                pass  # They end by themselves, or their locks do.
        self._listen(None)

    async def upsert_newer(self, rows: Sequence[OnlineRow], *, or_equal: bool = False) -> int:
        """One call per 2,000 rows, within which several small transactions run at once."""
        version = (VERSION_START, VERSION_END)

        def begin(session: Session, piece: Sequence[OnlineRow]) -> int:
            return session.upsert_newer(piece, version, or_equal, self._attempts.timeout_s)

        return await self._write("write", rows, begin)

    async def replace(self, changes: Sequence[OnlineChange]) -> int:
        """One call per 2,000 changes, within which several small transactions run at once."""
        wanted = {each.key: (each.key, each.found, each.value) for each in changes}

        def begin(session: Session, piece: Sequence[OnlineRow]) -> int:
            return session.replace([wanted[row.key] for row in piece], self._attempts.timeout_s)

        return await self._write("write", [OnlineRow(key, each[2] or b"") for key, each in wanted.items()], begin)

    async def delete(self, keys: Sequence[bytes]) -> None:
        """One call per 2,000 rows, within which several small transactions run at once."""

        def begin(session: Session, piece: Sequence[OnlineRow]) -> int:
            return session.delete([row.key for row in piece], self._attempts.timeout_s)

        await self._write("delete from", [OnlineRow(key, b"") for key in dict.fromkeys(keys)], begin)

    async def _write(
        self, what: str, rows: Sequence[OnlineRow], begin: Callable[[Session, Sequence[OnlineRow]], int]
    ) -> int:
        """Rows that a call has written without our hearing of it are not counted."""
        written = 0
        for piece in commits(rows, _CALL_ROWS, _CALL_BYTES):

            async def attempt(session: Session, piece: Sequence[OnlineRow] = piece) -> None:
                count, said = await self._ended(lambda: begin(session, piece))
                nonlocal written
                written += count
                if said is not None:
                    raise NativeFault(said)

            await self._attempts.call(what, attempt)
            reach("in_online_batch")
        return written

    async def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """One snapshot of now."""
        return await self._read(keys, "read") if keys else []

    async def _read(self, keys: Sequence[bytes], what: str, attempts: int | None = None) -> list[bytes | None]:
        async def attempt(session: Session) -> list[bytes | None]:
            values, _ = await self._ended(lambda: session.read(keys, self._attempts.timeout_s))
            return list(values)

        return await self._attempts.call(what, attempt, attempts=attempts)

    async def read_aged(self, keys: Sequence[bytes], *, max_age_s: float = 0.0) -> OnlineRead:
        """One snapshot, of now (or as old as it may be) or of just before the locks that are in its way."""
        if not keys:
            return OnlineRead([])

        async def attempt(session: Session) -> OnlineRead:
            values, age_us = await self._ended(lambda: session.read_aged(keys, max_age_s, self._attempts.timeout_s))
            return OnlineRead(values, age_us)

        return await self._attempts.call("read", attempt)

    async def scan(self, start: bytes, end: bytes, limit: int) -> list[OnlineRow]:
        """One snapshot of now, in pages."""

        async def attempt(session: Session) -> list[OnlineRow]:
            rows = await self._ended(lambda: session.scan(start, end, limit, self._attempts.timeout_s))
            return [OnlineRow(key, value) for key, value in rows]

        return await self._attempts.call("scan", attempt)

    async def gc(self, older_than_s: float) -> bool:
        """Resolve older locks in the whole cluster, then move PD's safe point."""

        async def attempt(session: Session) -> bool:
            moved: bool = await self._ended(lambda: session.gc(older_than_s, self._gc_timeout_s))
            return moved

        return await self._attempts.call("collect garbage in", attempt, timeout_s=self._gc_timeout_s)

    async def _ended(self, begin: Callable[[], int]) -> Any:
        """Begin a call and wait for its result; if nobody waits any more, a read is stopped and a write goes on.

        Raises:
            NativeFault: It failed.
        """
        self._listen(asyncio.get_running_loop())
        number = begin()
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            return await future
        except asyncio.CancelledError:
            if self._driver is not None:
                self._driver.leave(number)
            raise

    def _listen(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Hear of calls that end on this loop; None = no more."""
        if loop is self._loop or self._driver is None:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._driver.fileno())
        self._waiting.clear()
        self._loop = loop
        if loop is not None:
            loop.add_reader(self._driver.fileno(), self._hear)

    def _hear(self) -> None:
        assert self._driver is not None
        for number, said, result in self._driver.ended():
            future = self._waiting.pop(number, None)
            if future is None or future.done():
                continue
            if said is None:
                future.set_result(result)
            else:
                future.set_exception(NativeFault(said))
        if not self._waiting:
            self._idle.set()


@functools.cache
def _finish_at_exit() -> None:
    from oomstream_tikv import finish

    atexit.register(finish, _EXIT_GRACE_S)
