"""Both stores for writing, opened when the first write comes: a server that only reads needs no right to write."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from oomstream.stores.opening import Stores, open_stores
from oomstream.stores.settings import Settings


class WriteStores:
    """The stores that pushes and imports write to; for one event loop.

    Args:
        settings: Where they are.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._stack = AsyncExitStack()
        self._lock = asyncio.Lock()
        self._stores: Stores | None = None

    async def get(self) -> Stores:
        """The open stores.

        Raises:
            InvalidSetting: A store was never initialised, or the online store was lost.
            PairingMismatch: The stores belong to different partners.
            StoreUnavailable: A store cannot be reached; the next call tries again.
        """
        async with self._lock:
            if self._stores is None:
                self._stores = await self._stack.enter_async_context(open_stores(self.settings))
            return self._stores

    async def close(self) -> None:
        """Give back every connection; harmless when nothing was opened."""
        self._stores = None
        await self._stack.aclose()
