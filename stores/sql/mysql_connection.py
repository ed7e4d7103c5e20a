"""Connections to servers of MySQL's family: what a URL says of them, TLS, and the settings of a session."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import aiomysql
import pymysql
from pymysql.constants import CLIENT

from oomstream.schemas.errors import InvalidSetting
from oomstream.stores.urls import StoreUrl

_PORTS = {"tidb": 4000, "mysql": 3306, "mariadb": 3306}
_OPTIONS = frozenset({"tls", "ca", "pool_size"})
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_POOL_SIZE = 8
_MAX_POOL_SIZE = 1_000
_PASSWORD_IN_CLEAR = frozenset({"mysql_clear_password", "mysql_old_password"})
_SSL_CONNECTION_ERROR = 2026
_CANNOT_CONNECT = 2003
_SQL_MODE = "STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"


class Flavour(StrEnum):
    """Which of the family a server is, by the version that it gives itself."""

    TIDB = "TiDB"
    MARIADB = "MariaDB"
    MYSQL = "MySQL"

    @classmethod
    def of(cls, version: str) -> Flavour:
        """The flavour behind a version such as ``8.0.11-TiDB-v8.5.4``."""
        return next((each for each in (cls.TIDB, cls.MARIADB) if each.lower() in version.lower()), cls.MYSQL)


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server's URL in parts, checked.

    Attributes:
        host: Name or address.
        port: TCP port.
        user: User name.
        password: Password; never shown.
        database: Database.
        tls: Whether to speak TLS; certificate and host name are always verified.
        ca: File of the certificate authorities to trust; None = those of the system.
        pool_size: Most connections at once.
    """

    host: str
    port: int
    user: str
    database: str
    password: str = field(default="", repr=False)
    tls: bool = False
    ca: str | None = None
    pool_size: int = _POOL_SIZE

    @classmethod
    def of(cls, url: StoreUrl) -> Self:
        """Check a URL.

        Raises:
            InvalidSetting: It names no host or database, several hosts, or an option that there is not.
        """
        if len(url.hosts) != 1:
            raise InvalidSetting(f"store URL {url} must name one host (of several servers, their load balancer)")
        if not url.path or "/" in url.path or len(url.path) > 64:
            raise InvalidSetting(f"store URL {url} must name a database: {url.scheme}://user@host/DATABASE")
        if unknown := sorted(url.options.keys() - _OPTIONS):
            raise InvalidSetting(f"store URL {url}: no option {unknown[0]!r} (there are {', '.join(sorted(_OPTIONS))})")
        [(host, port)] = url.hosts
        tls, ca = _flag(url, "tls"), url.options.get("ca")
        if ca is not None and not tls:
            raise InvalidSetting(f"store URL {url}: ca is given, but tls=true is not")
        return cls(
            host=host.strip("[]"),
            port=port or _PORTS[url.scheme],
            user=url.user or "root",
            password=url.password or "",
            database=url.path,
            tls=tls,
            ca=ca,
            pool_size=_pool_size(url),
        )

    def tls_context(self) -> ssl.SSLContext | None:
        """What verifies the server; None without TLS.

        Raises:
            InvalidSetting: The file of authorities cannot be read.
        """
        if not self.tls:
            return None
        try:
            return ssl.create_default_context(cafile=self.ca and str(Path(self.ca)))
        except (OSError, ssl.SSLError) as exc:
            raise InvalidSetting(f"the certificate authorities in {self.ca} cannot be read ({exc})") from exc


def _flag(url: StoreUrl, name: str) -> bool:
    text = url.options.get(name, "false").lower()
    if text not in _FLAGS:
        raise InvalidSetting(f"store URL {url}: {name} must be true or false")
    return _FLAGS[text]


def _pool_size(url: StoreUrl) -> int:
    text = url.options.get("pool_size", str(_POOL_SIZE))
    if not text.isdecimal() or not 1 <= int(text) <= _MAX_POOL_SIZE:
        raise InvalidSetting(f"store URL {url}: pool_size must be a number from 1 to {_MAX_POOL_SIZE}")
    return int(text)


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Time limits of a session, in seconds.

    Attributes:
        connect_s: To connect, log in and set up the session.
        idle_s: After which the server ends an idle transaction, and with it its locks; None = never.
        lock_wait_s: How long to wait for a row that somebody else has locked.
        ddl_wait_s: How long DDL waits for transactions that use the table.
    """

    connect_s: float
    idle_s: int | None
    lock_wait_s: int
    ddl_wait_s: int

    def statement(self, flavour: Flavour) -> str:
        """The statement that sets up a session.

        MySQL itself has no limit for idle transactions: there, every idle connection is closed after `idle_s`.
        """
        idle = {
            Flavour.TIDB: {"tidb_idle_transaction_timeout": self.idle_s or 0},
            Flavour.MARIADB: {"idle_transaction_timeout": self.idle_s or 0},
            Flavour.MYSQL: {} if self.idle_s is None else {"wait_timeout": self.idle_s},
        }[flavour]
        values: dict[str, str | int] = {
            "time_zone": "'+00:00'",
            "sql_mode": f"'{_SQL_MODE}'",
            "innodb_lock_wait_timeout": self.lock_wait_s,
            **idle,
        }
        if flavour is Flavour.TIDB:
            values |= {"tidb_txn_mode": "'pessimistic'", "tidb_enable_clustered_index": "'ON'"}
            if self.idle_s is not None:
                # It looks for a binding by a normalised text, which of an INSERT of 2,000 rows costs it a tenth and
                # more of all it does. Long reads, for which somebody may want to bind a plan, are other sessions.
                values["tidb_use_plan_baselines"] = 0
        else:
            values["lock_wait_timeout"] = self.ddl_wait_s
            if self.idle_s is not None:
                values["net_read_timeout"] = self.idle_s  # a client that freezes in the middle of a statement
        return "SET " + ", ".join(f"@@SESSION.{name} = {value}" for name, value in values.items())


class Connection(aiomysql.Connection):  # type: ignore[misc]
    """aiomysql's connection, closed for certain, and with TLS that cannot be talked away.

    aiomysql 0.3.2 goes on in clear where the server does not offer TLS, and sends the password in clear when asked.
    """

    _reader: Any
    _writer: Any
    _server_auth_plugin: str

    @property
    def flavour(self) -> Flavour:
        """Which of the family the server is."""
        return Flavour.of(self.server_version)

    @property
    def at_end(self) -> bool:
        """Whether the connection is known to be closed by one of its ends."""
        # Not at_eof(): MariaDB says why it closes, and that is still to be read.
        return self._reader is None or self._reader.eof_received or self._writer.transport.is_closing()

    async def rows(self, sql: str) -> Sequence[tuple[Any, ...]]:
        """All rows of a statement's result; empty if it has none."""
        await self.query(sql)
        found: Sequence[tuple[Any, ...]] = self._result.rows or ()
        return found

    def close(self) -> None:
        """Close at once: what was not sent to a silent server would keep the socket open."""
        if self._writer is not None:
            with suppress(RuntimeError):  # its loop has ended before it was collected: the socket goes with it
                self._writer.transport.abort()
        self._writer = self._reader = None

    async def ensure_closed(self) -> None:
        """Say goodbye, if there is still somebody to say it to, and close."""
        with suppress(OSError):
            await super().ensure_closed()
        self.close()

    async def _get_server_information(self) -> None:
        await super()._get_server_information()
        if self._ssl_context is not None:
            if not self.server_capabilities & CLIENT.SSL:
                raise pymysql.OperationalError(_SSL_CONNECTION_ERROR, "the server does not offer TLS")
        elif self._server_auth_plugin in _PASSWORD_IN_CLEAR:
            self._server_auth_plugin = ""

    async def _process_auth(self, plugin_name: bytes, auth_packet: Any) -> Any:
        if not self._secure and plugin_name.decode() in _PASSWORD_IN_CLEAR:
            raise pymysql.OperationalError(_SSL_CONNECTION_ERROR, "the server asks for the password in clear: use TLS")
        return await super()._process_auth(plugin_name, auth_packet)


async def connect(
    address: ServerAddress, limits: SessionLimits, *, isolation: str = "READ COMMITTED", database: bool = True
) -> Connection:
    """A connection whose session is set up; a transaction is always open in it, or begun by the next statement.

    Args:
        address: Whereto.
        limits: Its time limits.
        isolation: Isolation level of its transactions.
        database: Whether to use the database; False to make it.

    Raises:
        pymysql.Error: There is none to be had.
    """
    connection = Connection(
        host=address.host,
        port=address.port,
        user=address.user,
        # aiomysql encodes as Latin-1, servers take UTF-8.
        password=address.password.encode().decode("latin-1"),
        db=address.database if database else None,
        charset="utf8mb4",
        autocommit=False,
        client_flag=CLIENT.FOUND_ROWS,
        ssl=address.tls_context(),
        program_name="oomstream",
    )
    try:
        async with asyncio.timeout(limits.connect_s):
            await connection._connect()
            await connection.query(limits.statement(connection.flavour))
            await connection.query(f"SET SESSION TRANSACTION ISOLATION LEVEL {isolation}")
    except BaseException as exc:
        connection.close()
        if isinstance(exc, TimeoutError):
            raise pymysql.OperationalError(_CANNOT_CONNECT, f"no answer within {limits.connect_s:g} s") from exc
        raise
    return connection
