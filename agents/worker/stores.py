"""The stores of a worker, opened for as long as it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from oomstream.schemas.errors import StoreUnavailable
from oomstream.stores.base import HistoryStore, OnlineStore
from oomstream.stores.opening import check_pairing, history_store, init_stores, online_store
from oomstream.stores.settings import Settings
from oomstream.stores.urls import StoreUrl
from oomstream.streams.backoff import Backoff


class Stores(NamedTuple):
    """Both stores, open, and sure to belong together."""

    history: HistoryStore
    online: OnlineStore


@asynccontextmanager
async def open_stores(settings: Settings) -> AsyncIterator[Stores]:
    """Open both stores, waiting for them as long as the outage budget allows; embedded ones are made ready.

    Raises:
        InvalidSetting: A URL is wrong, or a store on a server was never initialised.
        PairingMismatch: The stores belong to different partners.
        Fatal: They stayed down past the outage budget.
    """
    backoff = Backoff(settings.outage_budget_us / 1e6, where="worker")
    async with AsyncExitStack() as stack:
        while True:
            try:
                async with AsyncExitStack() as attempt:
                    stores = await _open(attempt, settings)
                    stack.push_async_callback(attempt.pop_all().aclose)
                    break
            except StoreUnavailable as exc:
                await backoff.wait(exc)
        yield stores


async def _open(stack: AsyncExitStack, settings: Settings) -> Stores:
    history = await stack.enter_async_context(history_store(settings.history, settings))
    online = await stack.enter_async_context(online_store(settings.online, settings))
    if all(StoreUrl.parse(url).scheme == "sqlite" for url in (settings.history, settings.online)):
        await init_stores(history, online)
    else:
        await check_pairing(history, online)
    return Stores(history, online)
