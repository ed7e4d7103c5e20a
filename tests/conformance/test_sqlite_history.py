"""The SQLite history store passes the shipped suite."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from oomstream.stores.base import HistoryStore
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.testing import HistoryStoreConformance
from oomstream.stores.urls import StoreUrl


class TestSqliteHistory(HistoryStoreConformance):
    """The suite; what goes around the store is plain sqlite3."""

    folder: Path

    @pytest.fixture(autouse=True)
    def _in_folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def new_place(self) -> str:
        """A file that is not there."""
        return f"sqlite:///{self.folder / uuid.uuid4().hex}.db"

    def store(self, place: str) -> HistoryStore:
        """The store."""
        return SqlHistoryStore(place, load_settings())

    async def raw_rows(self, place: str, group: str) -> list[dict[str, Any]]:
        """All columns."""
        with closing(sqlite3.connect(StoreUrl.parse(place).path)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(f'SELECT * FROM "history_{group}"')]

    async def raw_insert(self, place: str, group: str, row: Mapping[str, Any]) -> None:
        """All columns given."""
        names = ", ".join(f'"{name}"' for name in row)
        places = ", ".join("?" * len(row))
        with closing(sqlite3.connect(StoreUrl.parse(place).path)) as connection, connection:
            connection.execute(f'INSERT INTO "history_{group}" ({names}) VALUES ({places})', tuple(row.values()))

    async def raw_sql(self, place: str, *statements: str) -> list[dict[str, Any]]:
        """In one transaction."""
        with closing(sqlite3.connect(StoreUrl.parse(place).path)) as connection, connection:
            connection.row_factory = sqlite3.Row
            rows: list[sqlite3.Row] = []
            for each in statements:
                rows = connection.execute(each).fetchall()
            return [dict(row) for row in rows]
