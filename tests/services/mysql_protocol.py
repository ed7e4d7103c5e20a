"""What the servers have in common that speak MySQL's protocol: TiDB and MariaDB."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Sequence
from pathlib import Path

import pymysql

from tests.services.native import HOST
from tests.services.proxy import Proxy
from tests.services.server import NotReady, Process, Server

_TIMEOUT_S = 5


class SqlServer(Server):
    """A running SQL server with a root user that has no password."""

    def __init__(
        self, name: str, processes: Sequence[Process], folder: Path, *, scheme: str, port: int, proxy: Proxy
    ) -> None:
        self.port = port
        self._scheme = scheme
        super().__init__(
            name,
            processes,
            functools.partial(run, port, "SELECT 1"),
            folder,
            url=f"{scheme}://root@{HOST}:{port}",
            proxied_url=f"{scheme}://root@{proxy.address}",
            proxies=[proxy],
        )

    def fresh_database(self, *, proxied: bool = False) -> str:
        """Make an empty database and return its URL; through the proxy if asked for."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        run(self.port, f"CREATE DATABASE `{name}`")
        return f"{self.proxied_url if proxied else self.url}/{name}"


def run(port: int, statement: str) -> None:
    """Run one statement.

    Raises:
        NotReady: The server did not take it.
    """
    try:
        connection = pymysql.connect(
            host=HOST, port=port, user="root", connect_timeout=_TIMEOUT_S, read_timeout=_TIMEOUT_S, autocommit=True
        )
    except pymysql.MySQLError as exc:
        raise NotReady(str(exc)) from exc
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    except pymysql.MySQLError as exc:
        raise NotReady(str(exc)) from exc
    finally:
        connection.close()
