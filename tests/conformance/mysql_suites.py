"""The shipped suites on servers that speak MySQL's protocol; a subclass names the server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oomstream.schemas.online_value import OnlineRow
from oomstream.stores.base import HistoryStore, OnlineStore
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.sql.mysql_online import MysqlOnlineStore
from oomstream.stores.testing import HistoryStoreConformance, OnlineStoreConformance
from tests.conformance.mysql_raw import history_rows, insert_history_row, online_value, rows_of_sql, write_online_row
from tests.services.mysql_protocol import SqlServer


class MysqlHistorySuite(HistoryStoreConformance):
    """The suite; what goes around the store is plain PyMySQL."""

    machine_examples = 8
    server: SqlServer

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

    async def raw_sql(self, place: str, *statements: str) -> list[dict[str, Any]]:
        """In one transaction."""
        return rows_of_sql(place, *statements)


class MysqlOnlineSuite(OnlineStoreConformance):
    """The suite; what goes around the store is plain PyMySQL."""

    machine_examples = 8
    server: SqlServer

    def new_place(self) -> str:
        """An empty database."""
        return self.server.fresh_database()

    def store(self, place: str) -> OnlineStore:
        """The store."""
        return MysqlOnlineStore(place, load_settings())

    async def raw_read(self, place: str, key: bytes) -> bytes | None:
        """The value column."""
        return online_value(place, key)

    async def raw_write(self, place: str, row: OnlineRow) -> None:
        """All columns."""
        write_online_row(place, row)
