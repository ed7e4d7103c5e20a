"""The driver on PyPI's tikv-client 0.0.4.

Everything that is odd about that client is dealt with in this folder: no deadlines and no names for its errors
(`troubles`), clients that never recover (`connection`), transactions that must end (`Transactions`), answers that are
refused for their size (`sizes`), locks of killed writers (`snapshots`) and crashes at exit (`process_exit`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from oomstream.schemas.errors import InvalidSetting
from oomstream.schemas.online_value import OnlineRow, packed_version
from oomstream.stores.base import OnlineChange, OnlineRead
from oomstream.stores.crash_points import reach
from oomstream.stores.tikv import process_exit, snapshots
from oomstream.stores.tikv.address import TikvAddress
from oomstream.stores.tikv.attempts import Attempts
from oomstream.stores.tikv.driver import TikvDriver
from oomstream.stores.tikv.moments import Moments
from oomstream.stores.tikv.sizes import AnswerSize, commits
from oomstream.stores.tikv.transactions import Transactions, Written

_T = TypeVar("_T")

_COMMIT_ROWS = 64
_COMMITS_AT_ONCE = 4
"""Rows of one transaction and transactions at once: a killed writer leaves no more than 256 rows locked, and more would
hardly be faster, since handing puts over to the client takes most of the time."""

_COMMIT_BYTES = 1 << 18
"""Bytes of one transaction: with more, the client asks for locks that live longer than 3 s."""

_GC_TIMEOUT_S = 600.0


class ClientDriver(TikvDriver):
    """TiKV through tikv-client's TransactionClient.

    Args:
        address: The cluster; its namespace is the caller's business.
        call_timeout_s: Deadline of every call.
    """

    def __init__(self, address: TikvAddress, call_timeout_s: float) -> None:
        self._address = address
        self._call_timeout_s = call_timeout_s
        self._attempts = Attempts(self._connect, address.shown, call_timeout_s, process_exit.touch)
        self._call = self._attempts.call
        self._size = AnswerSize()
        self._patience = snapshots.Patience()
        self._moments = Moments()
        self._transactions = Transactions(self._size)
        self._slots = asyncio.Semaphore(_COMMITS_AT_ONCE)

    async def _connect(self) -> Any:
        """A client's inner, Rust object, whose methods start their call at once and return a future.

        The package's Python layer adds a coroutine around each, which costs as much as the call.
        """
        transaction_client = _transaction_client()
        process_exit.prepare()
        return (await transaction_client.connect(list(self._address.pd))).inner

    async def connect(self) -> None:
        """Connect, and read a key; one attempt."""
        await self._call("open", self._probe, attempts=1)

    async def _probe(self, client: Any) -> None:
        await self._read(client, [self._address.pairing_key])

    async def close(self) -> None:
        """Let transactions end, and let go of the client."""
        await self._transactions.close()
        await self._attempts.close()

    async def upsert_newer(self, rows: Sequence[OnlineRow], *, or_equal: bool = False) -> int:
        """Several small transactions at once: read, compare, put what is newer, commit.

        Rows that a failed attempt has written after all are not counted.
        """

        async def write(piece: Sequence[OnlineRow]) -> int:
            async def work(transaction: Any) -> Written:
                return await self._put_newer(transaction, piece, or_equal)

            written = await self._call("write", lambda client: self._transactions.run(client, work))
            reach("in_online_batch")
            return len(written)

        return sum(await self._in_pieces(rows, write))

    async def _put_newer(self, transaction: Any, rows: Sequence[OnlineRow], or_equal: bool) -> Written:
        stored = await snapshots.get_all(transaction.batch_get, [row.key for row in rows], self._size)
        newer = {key: value for key, value in rows if _is_newer(value, stored.get(key), or_equal)}
        # Each put crosses to a Rust thread and back; all at once is twice as fast as one by one.
        await asyncio.gather(*[transaction.put(key, value) for key, value in newer.items()])
        return newer

    async def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """One snapshot of now."""
        if not keys:
            return []
        found = await self._call("read", lambda client: self._read(client, keys))
        return [found.get(key) for key in keys]

    async def _read(self, client: Any, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        timestamp = await client.current_timestamp()
        return await snapshots.read_at(client, timestamp, list(dict.fromkeys(keys)), self._size)

    async def read_aged(self, keys: Sequence[bytes], *, max_age_s: float = 0.0) -> OnlineRead:
        """One snapshot, of now (or as old as it may be) if it answers at once."""
        if not keys:
            return OnlineRead([])

        async def attempt(client: Any) -> OnlineRead:
            timestamp, age_s = await self._moments.now_or_before(client, max_age_s)
            read = await snapshots.read_youngest(client, timestamp, keys, self._size, self._patience)
            return read._replace(age_us=read.age_us + round(age_s * 1e6)) if age_s else read

        return await self._call("read", attempt)

    async def scan(self, start: bytes, end: bytes, limit: int) -> list[OnlineRow]:
        """One snapshot of now, in pages."""

        async def attempt(client: Any) -> list[OnlineRow]:
            return await snapshots.scan_at(client, await client.current_timestamp(), start, end, limit, self._size)

        return await self._call("scan", attempt)

    async def replace(self, changes: Sequence[OnlineChange]) -> int:
        """Several small transactions at once: read, compare, put or delete what is as it was found, commit.

        Rows that a failed attempt has changed after all are not counted.
        """
        wanted = {each.key: each for each in changes}

        async def write(piece: Sequence[OnlineRow]) -> int:
            async def work(transaction: Any) -> Written:
                return await _put_same(transaction, [wanted[row.key] for row in piece], self._size)

            return len(await self._call("write", lambda client: self._transactions.run(client, work)))

        return sum(await self._in_pieces([OnlineRow(key, each.value or b"") for key, each in wanted.items()], write))

    async def delete(self, keys: Sequence[bytes]) -> None:
        """Several small transactions at once."""

        async def remove(piece: Sequence[OnlineRow]) -> None:
            async def work(transaction: Any) -> Written:
                await asyncio.gather(*[transaction.delete(row.key) for row in piece])
                return dict.fromkeys(row.key for row in piece)

            await self._call("delete from", lambda client: self._transactions.run(client, work))

        await self._in_pieces([OnlineRow(key, b"") for key in dict.fromkeys(keys)], remove)

    async def _in_pieces(
        self, rows: Sequence[OnlineRow], do: Callable[[Sequence[OnlineRow]], Coroutine[Any, Any, _T]]
    ) -> list[_T]:
        """Do something with rows, one transaction's worth at a time, several at once; the first error ends it.

        A piece's deadline begins when its turn comes.
        """

        async def in_turn(piece: Sequence[OnlineRow]) -> _T:
            async with self._slots:
                return await do(piece)

        try:
            async with asyncio.TaskGroup() as group:
                pieces = commits(rows, _COMMIT_ROWS, _COMMIT_BYTES)
                tasks = [group.create_task(in_turn(piece)) for piece in pieces]
        except BaseExceptionGroup as exc:
            first = exc.exceptions[0]
            raise first from first.__cause__
        return [task.result() for task in tasks]

    async def gc(self, older_than_s: float) -> bool:
        """Resolve older locks in the whole cluster, then move PD's safe point."""

        async def attempt(client: Any) -> bool:
            now = await client.current_timestamp()
            moved: bool = await client.gc(snapshots.earlier(now, int(older_than_s * 1000)))
            return moved

        return await self._call("collect garbage in", attempt, timeout_s=max(_GC_TIMEOUT_S, self._call_timeout_s))


async def _put_same(transaction: Any, changes: Sequence[OnlineChange], size: AnswerSize) -> Written:
    stored = await snapshots.get_all(transaction.batch_get, [each.key for each in changes], size)
    same = {each.key: each.value for each in changes if stored.get(each.key) == each.found}
    await asyncio.gather(
        *[transaction.delete(key) if value is None else transaction.put(key, value) for key, value in same.items()]
    )
    return same


def _is_newer(value: bytes, stored: bytes | None, or_equal: bool) -> bool:
    if stored is None:
        return True
    ours, theirs = packed_version(value), packed_version(stored)
    return ours > theirs or (or_equal and ours == theirs)


def _transaction_client() -> Any:
    try:
        from tikv_client.asynchronous import TransactionClient
    except ImportError as exc:
        raise InvalidSetting(
            "the TiKV store needs the package oomstream-tikv (`make install` builds it where cargo is) or, on Linux on "
            "x86_64 with CPython 3.11, tikv-client (pip install tikv-client==0.0.4); everything else works without"
        ) from exc
    return TransactionClient
