"""Writing around the product: plain SQL on the history database, plain keys and values on the online store."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import Any

import pymysql

from oomstream.stores.settings import Settings
from oomstream.stores.urls import StoreUrl

_TIMEOUT_S = 20


class Planting:
    """Around the stores that settings name: SQLite's files, TiDB by PyMySQL, TiKV by its plain client.

    Args:
        settings: Where the stores are.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def history(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run one statement on the history database.

        Args:
            statement: With ``?`` for each parameter, and identifiers in backticks, which SQLite takes too.
            *parameters: Values.
        """
        return _run(self._settings.history, statement, parameters)

    def key(self, text: str) -> str | bytes:
        """A text key as the history database has it: TiDB keeps bytes."""
        return text if self._settings.history.startswith("sqlite") else text.encode()

    async def put_online(self, key: bytes, value: bytes) -> None:
        """Store a value online, whatever is there."""
        if self._settings.online.startswith("tikv"):
            await self._tikv(key, value)
            return
        rows = _run(self._settings.online, "SELECT 1 FROM online WHERE `key` = ?", (key,))
        if rows:
            # The column beside it is what writers compare: a torn or foreign value may come with any.
            _run(
                self._settings.online,
                "UPDATE online SET `value` = ?, `version` = ? WHERE `key` = ?",
                (value, value[1:22], key),
            )
        else:
            _run(
                self._settings.online,
                "INSERT INTO online (`key`, `version`, `value`) VALUES (?, ?, ?)",
                (key, value[1:22], value),
            )

    async def remove_online(self, key: bytes) -> None:
        """Remove an online row."""
        if self._settings.online.startswith("tikv"):
            await self._tikv(key, None)
        else:
            _run(self._settings.online, "DELETE FROM online WHERE `key` = ?", (key,))

    async def _tikv(self, key: bytes, value: bytes | None) -> None:
        from tikv_client.asynchronous import TransactionClient  # only where its wheel exists

        servers, _, namespace = self._settings.online.removeprefix("tikv://").partition("/")
        async with asyncio.timeout(_TIMEOUT_S):
            client = await TransactionClient.connect(servers.split(","))
            transaction = await client.begin(pessimistic=False)
            stored = f"{namespace}/".encode() + key
            await (transaction.delete(stored) if value is None else transaction.put(stored, value))
            await transaction.commit()


def _run(url: str, statement: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    parsed = StoreUrl.parse(url)
    if parsed.is_file:
        with closing(sqlite3.connect(parsed.path, timeout=_TIMEOUT_S)) as connection, connection:
            return connection.execute(statement, parameters).fetchall()
    [(host, port)] = parsed.hosts
    connection = pymysql.connect(
        host=host, port=port or 4000, user=parsed.user or "root", database=parsed.path, autocommit=True
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement.replace("?", "%s"), parameters)
            return list(cursor.fetchall())
    finally:
        connection.close()
