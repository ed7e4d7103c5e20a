"""A store of somebody else's runs the shipped suite, chosen by URL through an entry point as an installed one is."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from oomstream.schemas.online_value import OnlineRow
from oomstream.stores.base import OnlineStore
from oomstream.stores.opening import online_store
from oomstream.stores.settings import load_settings
from oomstream.stores.testing import OnlineStoreConformance
from tests.conformance.memory_online import PLACES, MemoryOnlineStore


class TestMemoryOnline(OnlineStoreConformance):
    """The suite on a store that oomstream does not know."""

    @pytest.fixture(autouse=True)
    def _installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        metadata = tmp_path / "memory_store-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: memory-store\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(
            "[oomstream.online_stores]\nmemory = tests.conformance.memory_online:MemoryOnlineStore\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))

    def new_place(self) -> str:
        """A name."""
        return f"memory://{uuid.uuid4().hex}"

    def store(self, place: str) -> OnlineStore:
        """Found by scheme."""
        store = online_store(place, load_settings())
        assert isinstance(store, MemoryOnlineStore)
        return store

    async def raw_read(self, place: str, key: bytes) -> bytes | None:
        """The dict."""
        return PLACES[place].get(key)

    async def raw_write(self, place: str, row: OnlineRow) -> None:
        """The dict."""
        PLACES[place][row.key] = row.value
