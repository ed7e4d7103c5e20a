"""The history store on TiDB passes the shipped suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from oomstream.stores.base import HistoryStore
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.testing import HistoryStoreConformance
from tests.conformance.mysql_raw import history_rows, insert_history_row
from tests.services.mysql_protocol import SqlServer


class TestTidbHistory(HistoryStoreConformance):
    """The suite; what goes around the store is plain PyMySQL."""

    machine_examples = 8
    server: SqlServer

    @pytest.fixture(autouse=True)
    def _on_server(self, tidb_server: SqlServer) -> None:
        self.server = tidb_server

    def new_place(self) -> str:
        """An empty database."""
        return self.server.fresh_database()

    def store(self, place: str) -> HistoryStore:
        """The store."""
        return SqlHistoryStore(place, load_settings())

    async def raw_rows(self, place: str, group: str) -> list[dict[str, Any]]:
        """All columns."""
        return history_rows(place, group)

    async def raw_insert(self, place: str, group: str, row: Mapping[str, Any]) -> None:
        """All columns given."""
        insert_history_row(place, group, row)
