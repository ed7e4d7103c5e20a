"""Walking through a group's entities as history and online have them, side by side and in bounded memory.

Both stores give their rows in the order of the encoded entity key, so that one pass over each of them brings together
what belongs together. Nothing rests on that order but speed: whoever finds a difference looks again, by key.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import NamedTuple

from oomstream.schemas.events import Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.keys import decode_entity, encode_entity
from oomstream.schemas.online_value import OnlineRow, encode_key, key_prefix
from oomstream.stores.base import HistoryRow, HistoryStore, OnlineStore

_FIRST_ROWS = 50
_MOST_ROWS = 2_000
_PAGE_BYTES = 4 << 20
_MEASURED = 20


class Pair(NamedTuple):
    """One entity as both stores had it, online read after history.

    Attributes:
        stored_key: Its key online.
        online: The bytes stored online; None if there are none.
        row: Its row of greatest version in history; None if there is none.
    """

    stored_key: bytes
    online: bytes | None
    row: HistoryRow | None


class PageSize:
    """How many rows to ask for at once, so that they take about 4 MiB however wide they are."""

    def __init__(self) -> None:
        self.rows = _FIRST_ROWS

    def learn(self, rows: Sequence[OnlineRow] | Sequence[HistoryRow]) -> None:
        """Note a page; wider rows count at once, narrower ones let pages grow step by step."""
        if rows:
            some: list[OnlineRow | HistoryRow] = [*rows[:: max(1, len(rows) // _MEASURED)]]
            mean = sum(map(_row_bytes, some)) / len(some)
            self.rows = max(1, min(4 * self.rows, _MOST_ROWS, int(_PAGE_BYTES / mean)))

    def pages(self, keys: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
        """Keys in parts of this size, which may change between two of them."""
        at = 0
        while at < len(keys):
            page = keys[at : at + self.rows]
            yield page
            at += len(page)


def _row_bytes(row: OnlineRow | HistoryRow) -> int:
    if isinstance(row, OnlineRow):
        return len(row.key) + len(row.value)
    return sum(len(each) + 50 if isinstance(each, str | bytes) else 32 for each in (*row.key, *row.values)) + 200


class OnlineRows:
    """A group's online rows in the store's order, taken from the front.

    Args:
        online: Open online store.
        group: Whose rows.
        sync_id: In which copy, of a batch group.
    """

    def __init__(self, online: OnlineStore, group: FeatureGroup, sync_id: int = 0) -> None:
        self._online = online
        self._prefix = key_prefix(group.id, sync_id)
        self._size = PageSize()
        self._after: bytes | None = None
        self._held: list[OnlineRow] = []

    async def up_to(self, last: bytes | None) -> AsyncIterator[list[OnlineRow]]:
        """Take the rows that are not behind the key `last` (None: all that are left), page by page.

        Raises:
            StoreUnavailable: The store could not be read.
        """
        while True:
            if not self._held:
                self._held = await self._online.scan(self._prefix, after=self._after, limit=self._size.rows)
                self._size.learn(self._held)
            if not self._held:
                # The end: what is written from now on, as by a repair, is not to be met again.
                self._after = max(self._after or b"", last or b"") or None
                return
            cut = len(self._held) if last is None else bisect_right(self._held, last, key=lambda row: row.key)
            if not cut:
                return
            rows, self._held = self._held[:cut], self._held[cut:]
            self._after = rows[-1].key
            yield rows


async def pairs(history: HistoryStore, online: OnlineStore, group: FeatureGroup) -> AsyncIterator[list[Pair]]:
    """Every entity of a group, page by page, each about once.

    Raises:
        StoreUnavailable: A store could not be read.
    """
    online_rows, size = OnlineRows(online, group), PageSize()
    async for page in newest_pages(history, group, size):
        left = {stored_key(group, row.key): row for row in page}
        async for rows in online_rows.up_to(max(left)):
            yield [Pair(row.key, row.value, left.pop(row.key, None)) for row in rows]
        if left:
            yield [Pair(key, None, row) for key, row in left.items()]
    async for rows in online_rows.up_to(None):
        yield [Pair(row.key, row.value, None) for row in rows]


async def newest_pages(
    history: HistoryStore, group: FeatureGroup, size: PageSize | None = None
) -> AsyncIterator[list[HistoryRow]]:
    """The row of greatest version of every entity, page by page, in key order.

    Raises:
        StoreUnavailable: History could not be read.
    """
    size = size or PageSize()
    after: tuple[Plain, ...] | None = None
    while page := await history.scan_newest(group, after=after, limit=size.rows):
        yield page
        after = page[-1].key
        size.learn(page)


def stored_key(group: FeatureGroup, key: tuple[Plain, ...]) -> bytes:
    """An entity's key online."""
    return encode_key(group.id, encode_entity(key))


def key_of(group: FeatureGroup, stored: bytes) -> tuple[Plain, ...] | None:
    """The entity of a key among the group's online keys, in plain form, whichever copy it is in.

    None if the bytes are not what an entity is stored as: such a key was not written by this product, or is a seal, and
    no read asks for it as an entity's.
    """
    entity = stored[len(key_prefix(group.id)) :]
    try:
        key = decode_entity(entity, group.keys)
        return key if encode_entity(key) == entity else None
    except (ValueError, OverflowError):
        return None


async def newest_rows(history: HistoryStore, group: FeatureGroup, stored: Sequence[bytes]) -> list[HistoryRow | None]:
    """Each entity's row of greatest version, by online keys; None where there is none, or the key is no entity's.

    Raises:
        StoreUnavailable: History could not be read.
    """
    keys = [key_of(group, each) for each in stored]
    known = [key for key in keys if key is not None]
    rows = iter(await history.newest(group, known) if known else [])
    return [None if key is None else next(rows) for key in keys]
