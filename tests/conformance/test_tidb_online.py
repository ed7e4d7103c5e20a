"""The online store on TiDB passes the shipped suite."""

from __future__ import annotations

import pytest

from tests.conformance.mysql_suites import MysqlOnlineSuite
from tests.services.mysql_protocol import SqlServer


class TestTidbOnline(MysqlOnlineSuite):
    """On TiDB."""

    @pytest.fixture(autouse=True)
    def _on_server(self, tidb_server: SqlServer) -> None:
        self.server = tidb_server
