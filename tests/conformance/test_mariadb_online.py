"""The online store on MariaDB passes the shipped suite."""

from __future__ import annotations

import pytest

from tests.conformance.mysql_suites import MysqlOnlineSuite
from tests.services.mysql_protocol import SqlServer


class TestMariadbOnline(MysqlOnlineSuite):
    """On MariaDB."""

    @pytest.fixture(autouse=True)
    def _on_server(self, mariadb_server: SqlServer) -> None:
        self.server = mariadb_server
