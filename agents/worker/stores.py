"""The stores of a worker, which waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from oomstream.agents.worker.stopping import starting_backoff
from oomstream.schemas.errors import StoreUnavailable
from oomstream.stores.opening import Stores, open_stores
from oomstream.stores.settings import Settings


@asynccontextmanager
async def wait_for_stores(settings: Settings, stop: asyncio.Event) -> AsyncIterator[Stores]:
    """Open both stores, waiting for them as long as the outage budget allows.

    Raises:
        Stopped: `stop` was set meanwhile.
        InvalidSetting: A URL is wrong, or a store on a server was never initialised.
        PairingMismatch: The stores belong to different partners.
        Fatal: They stayed down past the outage budget.
    """
    backoff = starting_backoff(settings, stop)
    async with AsyncExitStack() as stack:
        while True:
            try:
                stores = await stack.enter_async_context(open_stores(settings))
                break
            except StoreUnavailable as exc:
                await backoff.wait(exc)
        yield stores
