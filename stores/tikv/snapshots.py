"""Reading the rows of one moment, and finding a moment that no lock hides.

Percolator: a read at time T must wait for a lock that was set before T, since its transaction may yet commit before T;
a lock set after T does not concern it. So a read just older than the lock of a killed writer is answered at once, with
the values from before that write.

Source:
    Peng and Dabek, Large-scale Incremental Processing Using Distributed Transactions and Notifications, section 2.2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from oomstream.schemas.online_value import OnlineRow
from oomstream.stores.base import OnlineRead
from oomstream.stores.tikv.sizes import AnswerSize
from oomstream.stores.tikv.troubles import Remedy, answer_bytes, trouble_of

BatchGet = Callable[[list[bytes]], Awaitable[list[tuple[bytes, bytes]]]]
"""`batch_get` of a snapshot or of a transaction."""

_Read = asyncio.Task[dict[bytes, bytes]]

_REQUESTS_AT_ONCE = 8

_PHYSICAL_SHIFT = 18
"""A timestamp is milliseconds, then 18 bits of a counter within the millisecond."""

_HEDGE_S = 0.03
_LONGEST_HEDGE_S = 0.5
_READS_AT_EASE = 4
"""So long a read may take before older moments are tried beside it; a healthy one takes a few milliseconds. Of more
reads at once each may take longer: in a busy process all do, and more of them would only make it busier."""

_SEARCHES_AT_ONCE = 2
"""So many reads try older moments at once; for the others it is not their turn yet, and what they wait for goes on."""

_GRACE_S = 0.01
"""How long an answer of an older moment waits for those of younger ones; or as long as it took itself."""

_ANSWER_S = 0.08
"""When the search for a younger moment ends; or after five times as long as one answer takes."""

AGES_MS = (60, 250, 1_000, 4_000, 16_000)
"""The older moments that are tried first. A lock lives for 3 s, or 6 s where a row has 1 MiB, and a little longer."""

_PROBES = 4
_CLOSE_MS = 20
"""So close to the lock is near enough."""


class Patience:
    """How long a read may take before older moments are tried beside it.

    Attributes:
        reads: Reads under way.
        searches: Those of them that try older moments.
    """

    def __init__(self) -> None:
        self.reads = self.searches = 0

    @property
    def hedge_s(self) -> float:
        """Seconds."""
        return min(_LONGEST_HEDGE_S, _HEDGE_S * max(1.0, self.reads / _READS_AT_EASE))


class _Turn:
    """One read's turn to try older moments: taken when it is due and there is one to take, given back at the end.

    Args:
        patience: Of the driver.
        limit: Ends the read's wait for its first request.
    """

    __slots__ = ("_limit", "_loop", "_patience", "_taken", "_timer")

    def __init__(self, patience: Patience, limit: asyncio.Timeout) -> None:
        self._patience = patience
        self._limit = limit
        self._taken = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(patience.hedge_s, self._due)
        patience.reads += 1

    def _due(self) -> None:
        if self._patience.searches < _SEARCHES_AT_ONCE:
            self._patience.searches += 1
            self._taken = True
            self._limit.reschedule(self._loop.time())
        else:
            self._timer = self._loop.call_later(_HEDGE_S, self._due)

    def end(self) -> None:
        """The read is over."""
        self._timer.cancel()
        self._patience.reads -= 1
        self._patience.searches -= self._taken


def earlier(timestamp: int, milliseconds: int) -> int:
    """The timestamp so many milliseconds before another."""
    return max(0, timestamp - (milliseconds << _PHYSICAL_SHIFT))


async def read_at(client: Any, timestamp: int, keys: Sequence[bytes], size: AnswerSize) -> dict[bytes, bytes]:
    """Values of the keys that there were at a timestamp."""
    return await get_all(client.snapshot(timestamp, False).batch_get, keys, size)


async def get_all(batch_get: BatchGet, keys: Sequence[bytes], size: AnswerSize) -> dict[bytes, bytes]:
    """Values of any number of keys through a snapshot's or a transaction's `batch_get`, which does not split.

    Returns:
        Value by key; keys that do not exist are absent.
    """
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(keys):
        step = size.rows
        pieces = [keys[start : start + step] for start in range(at, len(keys), step)[:_REQUESTS_AT_ONCE]]
        for piece in await asyncio.gather(*[_get_piece(batch_get, piece, size) for piece in pieces]):
            found |= piece
        at += step * len(pieces)
    return found


async def _get_piece(batch_get: BatchGet, keys: Sequence[bytes], size: AnswerSize) -> dict[bytes, bytes]:
    try:
        pairs = await batch_get(list(keys))
    except Exception as exc:
        trouble = trouble_of(exc)
        if trouble is None or trouble.remedy is not Remedy.HALVE or len(keys) == 1:
            raise
        size.was_too_large(len(keys), answer_bytes(exc))
        return await get_all(batch_get, keys, size)
    size.learn(len(pairs), sum(len(value) for _, value in pairs))
    return dict(pairs)


async def scan_at(
    client: Any, timestamp: int, start: bytes, end: bytes, limit: int, size: AnswerSize
) -> list[OnlineRow]:
    """The first rows of a range at a timestamp, in key order."""
    snapshot = client.snapshot(timestamp, False)
    rows: list[OnlineRow] = []
    while len(rows) < limit:
        step = min(size.rows, limit - len(rows))
        try:
            pairs = await snapshot.scan(start, end, step)
        except Exception as exc:
            trouble = trouble_of(exc)
            if trouble is None or trouble.remedy is not Remedy.HALVE or step == 1:
                raise
            size.was_too_large(step, answer_bytes(exc))
            continue
        size.learn(len(pairs), sum(len(key) + len(value) for key, value in pairs))
        rows += [OnlineRow(key, value) for key, value in pairs]
        if len(pairs) < step:
            break
        start = pairs[-1][0] + b"\0"
    return rows


async def read_youngest(
    client: Any, timestamp: int, keys: Sequence[bytes], size: AnswerSize, patience: Patience
) -> OnlineRead:
    """Values at a timestamp, or, if they are not to be had at once, at the youngest earlier moment that answers."""
    began = asyncio.get_running_loop().time()
    batch_get: BatchGet = client.snapshot(timestamp, False).batch_get
    limit = asyncio.timeout(None)
    turn = _Turn(patience, limit)
    try:
        # Nearly every read is one request, which is awaited as it is: a task around it, or another turn of the event
        # loop, would cost as much as all the rest.
        async with limit:
            found = await (_get_piece if len(keys) <= size.rows else get_all)(batch_get, keys, size)
        return OnlineRead(list(map(found.get, keys)))
    except TimeoutError:
        return await _search(client, timestamp, keys, size, began)
    finally:
        turn.end()


async def _search(client: Any, timestamp: int, keys: Sequence[bytes], size: AnswerSize, began: float) -> OnlineRead:
    """Values at a timestamp, or at the youngest earlier moment that answers, for a read that began at `began`.

    The client does not tell when a lock was set, so the moment is searched for: several are tried at once, then
    several between the youngest that answered and the next that did not.
    """
    clock = asyncio.get_running_loop().time
    tried = clock()
    reads: dict[_Read, int] = {}

    def read(age_ms: int) -> _Read:
        task = asyncio.create_task(read_at(client, earlier(timestamp, age_ms), keys, size))
        reads[task] = age_ms
        return task

    try:
        now, *_ = [read(age_ms) for age_ms in (0, *AGES_MS)]
        await _any_answer(reads)
        grace_s = max(_GRACE_S, clock() - tried)
        await asyncio.wait(reads, timeout=grace_s)
        chosen = next(iter(_answered(reads)), now)
        while age_ms := reads[chosen]:
            hidden = max(age for age in reads.values() if age < age_ms)
            if age_ms - hidden <= _CLOSE_MS or clock() - began >= max(_ANSWER_S, 5 * grace_s):
                break
            step = (age_ms - hidden) // (_PROBES + 1)
            await asyncio.wait([read(hidden + number * step) for number in range(1, _PROBES + 1)], timeout=grace_s)
            chosen = _answered(reads)[0]
        found = chosen.result()
        return OnlineRead([found.get(key) for key in keys], age_ms * 1000)
    finally:
        for task in reads:
            task.cancel()
        await asyncio.gather(*reads, return_exceptions=True)


def _answered(reads: Mapping[_Read, int]) -> list[_Read]:
    """Those that have their answer, youngest first."""
    done = [read for read in reads if read.done() and not read.cancelled() and read.exception() is None]
    return sorted(done, key=reads.__getitem__)


async def _any_answer(reads: Mapping[_Read, int]) -> None:
    """Wait until one has its answer, or all have failed."""
    while not _answered(reads) and (pending := {read for read in reads if not read.done()}):
        await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
