"""What verbs need from the stores, opened for as long as one verb runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from oomstream.agents.cli.config_file import configured_urls
from oomstream.schemas.catalog import Catalog
from oomstream.schemas.errors import InvalidSetting
from oomstream.stores.base import HistoryStore, Source
from oomstream.stores.opening import history_store
from oomstream.stores.settings import Settings, load_settings
from oomstream.stores.urls import StoreUrl


def settings() -> Settings:
    """The settings of this process: OOMSTREAM_ variables, and for stores that they do not name oomcli's file.

    Raises:
        InvalidSetting: One of them is wrong; names it.
    """
    return load_settings(**configured_urls())


@asynccontextmanager
async def open_history(chosen: Settings) -> AsyncIterator[HistoryStore]:
    """The history store for reading.

    Raises:
        InvalidSetting: It was never initialised; names the verb that does it.
        StoreUnavailable: It cannot be reached; names the URL.
    """
    async with history_store(chosen.history, chosen) as history:
        if await history.pairing_id() is None:
            place = "OOMSTREAM_HISTORY_URL"
            if StoreUrl.parse(chosen.history).is_file:
                place = f"the folder (OOMSTREAM_DATA_DIR, --data-dir) and {place}"
            raise InvalidSetting(
                f"history store {history.url} is not initialised: run `oomstream init`, or check {place}"
            )
        yield history


async def registered_catalog(chosen: Settings) -> Catalog:
    """All registered definitions; none where the history store was never initialised.

    Raises:
        StoreUnavailable: It cannot be reached; names the URL.
    """
    async with history_store(chosen.history, chosen) as history:
        return Catalog() if await history.pairing_id() is None else await history.load_catalog()


async def load_catalog() -> Catalog:
    """All registered definitions.

    Raises:
        InvalidSetting: The history store was never initialised, or a setting is wrong.
        StoreUnavailable: It cannot be reached; names the URL.
    """
    async with open_history(settings()) as history:
        return await history.load_catalog()


async def load_sources() -> list[Source]:
    """All sources by id.

    Raises:
        InvalidSetting: The history store was never initialised, or a setting is wrong.
        StoreUnavailable: It cannot be reached; names the URL.
    """
    async with open_history(settings()) as history:
        return await history.sources()
