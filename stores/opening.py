"""Choosing a store by the scheme of its URL, making stores ready, and making sure that two belong together.

A store is registered as an entry point, ``oomstream.online_stores`` or ``oomstream.history_stores``, named after its
URL scheme. The entry point is called with the URL (text, as the user wrote it) and the `Settings`, does no I/O, and
returns the store; so a third party's store is a package.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple, TypeVar

from oomstream.schemas.errors import InvalidSetting, PairingMismatch
from oomstream.stores.base import HistoryStore, OnlineStore
from oomstream.stores.settings import Settings
from oomstream.stores.urls import StoreUrl

ONLINE_STORES = "oomstream.online_stores"
HISTORY_STORES = "oomstream.history_stores"

_Store = TypeVar("_Store", OnlineStore, HistoryStore)


def online_store(url: str, settings: Settings) -> OnlineStore:
    """The online store that a URL names, not opened yet.

    Raises:
        InvalidSetting: No such scheme, a bad URL, or a package that the store needs is missing; names what there is.
    """
    return _store(OnlineStore, ONLINE_STORES, "online store", url, settings)  # type: ignore[type-abstract]


def history_store(url: str, settings: Settings) -> HistoryStore:
    """The history store that a URL names, not opened yet.

    Raises:
        InvalidSetting: No such scheme, a bad URL, or a package that the store needs is missing; names what there is.
    """
    return _store(HistoryStore, HISTORY_STORES, "history store", url, settings)  # type: ignore[type-abstract]


def _store(kind: type[_Store], where: str, what: str, url: str, settings: Settings) -> _Store:
    try:
        parsed = StoreUrl.parse(url)
    except InvalidSetting as exc:
        raise InvalidSetting(f"{what}: {exc}") from exc
    found: dict[str, EntryPoint] = {each.name: each for each in entry_points(group=where)}
    chosen = found.get(parsed.scheme)
    if chosen is None:
        known = ", ".join(f"{name}://" for name in sorted(found)) or "none"
        raise InvalidSetting(f"{what} {parsed}: no store for {parsed.scheme}:// is installed (there are: {known})")
    try:
        factory = chosen.load()
    except ImportError as exc:
        missing = f"the package {exc.name!r}, which is not installed" if exc.name else str(exc)
        raise InvalidSetting(f"{what} {parsed}: the store for {parsed.scheme}:// needs {missing}") from exc
    store = factory(url, settings)
    if not isinstance(store, kind):
        raise InvalidSetting(f"{what} {parsed}: entry point {chosen.value} does not make a {kind.__name__}")
    return store


async def init_stores(history: HistoryStore, online: OnlineStore | None = None) -> str:
    """Make what both stores need and join them by one UUID; again does no harm. Needs DDL rights.

    With servers it is the work of `oomstream init` alone, because workers have no DDL rights.

    Args:
        history: An opened history store.
        online: An opened online store, or None to make history alone.

    Returns:
        The pairing UUID.

    Raises:
        PairingMismatch: The online store belongs to another history database.
    """
    pairing_id = await history.init()
    if online is not None:
        await online.init()
        if await online.pairing_id() is None:
            await online.pair(pairing_id)
        await check_pairing(history, online)
    return pairing_id


async def online_was_lost(history: HistoryStore, online: OnlineStore) -> bool:
    """Whether history holds data that was online, but the online store that belongs to it is gone or another.

    Args:
        history: An opened history store.
        online: An opened online store.
    """
    if await history.pairing_id() is None or await online.pairing_id() is not None:
        return False
    if any(source.next_sequence > 0 for source in await history.sources()):
        return True
    return bool(await history.live_syncs())  # batch groups alone: revisions have no source


async def init_embedded(history: HistoryStore, online: OnlineStore) -> None:
    """Make embedded stores ready that a command opens for writing, so that nobody needs `oomstream init` at first.

    Raises:
        InvalidSetting: The online store was lost: an empty one in its place would answer every read with null.
        PairingMismatch: The online store belongs to another history database.
    """
    if await online_was_lost(history, online):
        raise InvalidSetting(
            f"online store {online.url} is gone or empty, but history store {history.url} holds data: run "
            "`oomstream init`, then `oomstream repair`, which fills it from history"
        )
    await init_stores(history, online)


class Stores(NamedTuple):
    """Both stores, open, and sure to belong together."""

    history: HistoryStore
    online: OnlineStore


@asynccontextmanager
async def open_stores(settings: Settings) -> AsyncIterator[Stores]:
    """Open both stores for writing; files of this machine are made ready at first use.

    Args:
        settings: Where they are.

    Raises:
        InvalidSetting: A URL is wrong, a store on a server was never initialised, or the online store was lost; names
            the verb that helps.
        PairingMismatch: The stores belong to different partners.
        StoreUnavailable: A store cannot be reached; names the URL.
    """
    async with AsyncExitStack() as stack:
        history = await stack.enter_async_context(history_store(settings.history, settings))
        online = await stack.enter_async_context(online_store(settings.online, settings))
        if all(StoreUrl.parse(url).is_file for url in (settings.history, settings.online)):
            await init_embedded(history, online)
        else:
            await check_pairing(history, online)
        yield Stores(history, online)


async def check_pairing(history: HistoryStore, online: OnlineStore) -> None:
    """Make sure that two opened stores were initialised for each other.

    Raises:
        InvalidSetting: One of them was not initialised.
        PairingMismatch: They belong to different partners.
    """
    of_history, of_online = await history.pairing_id(), await online.pairing_id()
    if of_history is None:
        raise InvalidSetting(f"history store {history.url} is not initialised: run `oomstream init`")
    if of_online is None:
        raise InvalidSetting(f"online store {online.url} is not initialised: run `oomstream init`")
    if of_history != of_online:
        raise PairingMismatch(
            f"online store {online.url} belongs to another history database than {history.url}: correct the URL, or "
            "empty the online store, run `oomstream init` and fill it from history with `oomstream repair`"
        )
