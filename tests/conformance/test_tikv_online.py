"""The TiKV online store passes the shipped suite, on a real server."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from oomstream.schemas.online_value import OnlineRow
from oomstream.stores.base import OnlineStore
from oomstream.stores.opening import online_store
from oomstream.stores.settings import load_settings
from oomstream.stores.testing import OnlineStoreConformance
from tests.services.tikv import TikvServer


@pytest.mark.usefixtures("tikv_driver")
class TestTikvOnline(OnlineStoreConformance):
    """The suite, with each client; what goes around the store is the plain tikv-client."""

    machine_examples = 15
    server: TikvServer

    @pytest.fixture(autouse=True)
    def _on_server(self, tikv_server: TikvServer) -> None:
        self.server = tikv_server

    def new_place(self) -> str:
        """A namespace of its own."""
        return f"{self.server.url}/{uuid.uuid4().hex}"

    def store(self, place: str) -> OnlineStore:
        """The store that the URL names."""
        return online_store(place, load_settings())

    async def raw_read(self, place: str, key: bytes) -> bytes | None:
        """The value at namespace/key."""
        client = await self._client()
        stored = f"{place.rpartition('/')[2]}/".encode() + key
        value: bytes | None = await client.snapshot(await client.current_timestamp(), pessimistic=False).get(stored)
        return value

    async def raw_write(self, place: str, row: OnlineRow) -> None:
        """Put the value at namespace/key."""
        transaction = await (await self._client()).begin(pessimistic=False)
        await transaction.put(f"{place.rpartition('/')[2]}/".encode() + row.key, row.value)
        await transaction.commit()

    async def _client(self) -> Any:
        from tikv_client.asynchronous import TransactionClient  # only where its wheel exists

        async with asyncio.timeout(10):
            return await TransactionClient.connect([self.server.pd])
