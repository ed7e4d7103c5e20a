"""The online store on MariaDB passes the shipped suite."""

from __future__ import annotations

import pytest

from oomstream.schemas.online_value import OnlineRow
from oomstream.stores.base import OnlineStore
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.mysql_online import MysqlOnlineStore
from oomstream.stores.testing import OnlineStoreConformance
from tests.conformance.mysql_raw import online_value, write_online_row
from tests.services.mysql_protocol import SqlServer


class TestMariadbOnline(OnlineStoreConformance):
    """The suite; what goes around the store is plain PyMySQL."""

    machine_examples = 8
    server: SqlServer

    @pytest.fixture(autouse=True)
    def _on_server(self, mariadb_server: SqlServer) -> None:
        self.server = mariadb_server

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
