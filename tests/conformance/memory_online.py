"""Somebody else's online store: a dict per place. Not fit for use, but it keeps every promise of the interface."""

from __future__ import annotations

from collections.abc import Sequence

from oomstream.schemas.online_value import OnlineRow, packed_version
from oomstream.stores.base import OnlineChange, OnlineStore
from oomstream.stores.settings import Settings

PLACES: dict[str, dict[bytes, bytes]] = {}
PAIRED: dict[str, str] = {}


class MemoryOnlineStore(OnlineStore):
    """Rows of this process, by the URL's text."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.url = url
        self._rows = PLACES.setdefault(url, {})

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def init(self) -> None:
        """Nothing to make."""

    async def pairing_id(self) -> str | None:
        """The UUID."""
        return PAIRED.get(self.url)

    async def pair(self, pairing_id: str) -> None:
        """Remember it."""
        PAIRED[self.url] = pairing_id

    async def upsert_newer(self, rows: Sequence[OnlineRow], *, or_equal: bool = False) -> int:
        """Compare, then write."""
        written = 0
        for key, value in rows:
            stored = self._rows.get(key)
            new, old = packed_version(value), packed_version(stored or b"")
            if stored is None or new > old or (or_equal and new == old):
                self._rows[key] = value
                written += 1
        return written

    async def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """In the order asked."""
        return [self._rows.get(key) for key in keys]

    async def scan(self, prefix: bytes, *, after: bytes | None = None, limit: int = 1000) -> list[OnlineRow]:
        """In key order."""
        keys = sorted(key for key in self._rows if key.startswith(prefix) and (after is None or key > after))
        return [OnlineRow(key, self._rows[key]) for key in keys[:limit]]

    async def replace(self, changes: Sequence[OnlineChange]) -> int:
        """Compare, then write or forget."""
        same = [each for each in changes if self._rows.get(each.key) == each.found]
        for each in same:
            if each.value is None:
                del self._rows[each.key]
            else:
                self._rows[each.key] = each.value
        return len(same)

    async def delete(self, keys: Sequence[bytes]) -> None:
        """Forget them."""
        for key in keys:
            self._rows.pop(key, None)
