"""The SQLite online store passes the shipped suite."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

import pytest

from oomstream.schemas.online_value import OnlineRow, packed_version
from oomstream.stores.base import OnlineStore
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.online import SqlOnlineStore
from oomstream.stores.testing import OnlineStoreConformance
from oomstream.stores.urls import StoreUrl


class TestSqliteOnline(OnlineStoreConformance):
    """The suite; what goes around the store is plain sqlite3."""

    folder: Path

    @pytest.fixture(autouse=True)
    def _in_folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def new_place(self) -> str:
        """A file that is not there."""
        return f"sqlite:///{self.folder / uuid.uuid4().hex}.db"

    def store(self, place: str) -> OnlineStore:
        """The store."""
        return SqlOnlineStore(place, load_settings())

    async def raw_read(self, place: str, key: bytes) -> bytes | None:
        """The value column."""
        with closing(sqlite3.connect(StoreUrl.parse(place).path)) as connection:
            found: tuple[bytes] | None = connection.execute("SELECT value FROM online WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None

    async def raw_write(self, place: str, row: OnlineRow) -> None:
        """All three columns."""
        with closing(sqlite3.connect(StoreUrl.parse(place).path)) as connection, connection:
            connection.execute("REPLACE INTO online VALUES (?, ?, ?)", (row.key, packed_version(row.value), row.value))
