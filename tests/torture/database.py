"""Plain SQL on the history database, around every store: how far workers are, and the rows that they wrote."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pymysql
from pymysql.cursors import SSCursor

from oomstream.stores.urls import StoreUrl

_TOPIC = 3
"""Rank of the kind of sources that are partitions of a topic."""

_COLUMNS = ("id", "name", "incarnation", "partition", "owner", "next_sequence", "online_sequence")
_TIMEOUT_S = 60


class SourceRow(NamedTuple):
    """One row of the source table.

    Attributes:
        id: The source's id.
        topic: Its topic.
        incarnation: Its topic's.
        partition: Its partition.
        owner: How often it was claimed.
        next_sequence: How far it is in history.
        online_sequence: How far its online rows are known to be written.
    """

    id: int
    topic: str
    incarnation: str
    partition: int
    owner: int
    next_sequence: int
    online_sequence: int


class Database:
    """The history database: SQLite's file, or a server of MySQL's protocol. For one thread.

    Args:
        url: ``sqlite:///PATH`` or ``tidb://…``.
    """

    def __init__(self, url: str) -> None:
        self._url = StoreUrl.parse(url)
        self._connection: Any = None

    @property
    def embedded(self) -> bool:
        """Whether it is a file."""
        return self._url.is_file

    def quoted(self, name: str) -> str:
        """A name in SQL text."""
        return f'"{name}"' if self.embedded else f"`{name}`"

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a small result; parameters are marked with ``?``."""
        if self._connection is None:
            self._connection = self._connect()
        try:
            return self._run(self._connection.cursor(), sql, parameters)
        except pymysql.MySQLError:
            self._connection = self._connect()  # the server was restarted
            return self._run(self._connection.cursor(), sql, parameters)

    def _run(self, cursor: Any, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        with closing(cursor):
            cursor.execute(sql if self.embedded else sql.replace("?", "%s"), tuple(parameters))
            return [tuple(row) for row in cursor.fetchall()]

    def stream(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Rows of a large result, one after the other, on a connection of its own."""
        with closing(self._connect()) as connection, closing(self._cursor(connection)) as cursor:
            cursor.execute(sql if self.embedded else sql.replace("?", "%s"), tuple(parameters))
            while chunk := cursor.fetchmany(5_000):
                yield from chunk

    def _cursor(self, connection: Any) -> Any:
        return connection.cursor() if self.embedded else connection.cursor(SSCursor)

    def _connect(self) -> Any:
        if self.embedded:
            return sqlite3.connect(
                f"file:{Path(self._url.path)}?mode=ro", uri=True, timeout=_TIMEOUT_S, check_same_thread=False
            )
        [(host, port)] = self._url.hosts
        return pymysql.connect(
            host=host,
            port=port or 0,
            user=self._url.user,
            database=self._url.path,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=_TIMEOUT_S,
            read_timeout=_TIMEOUT_S * 5,
        )

    def sources(self) -> list[SourceRow]:
        """Every source that is a partition of a topic, by id."""
        columns = ", ".join(map(self.quoted, _COLUMNS))
        sql = f"SELECT {columns} FROM {self.quoted('source')} WHERE kind = {_TOPIC} ORDER BY id"
        return [
            SourceRow(number, _text(topic), _text(incarnation), *rest)
            for number, topic, incarnation, *rest in self.rows(sql)
        ]

    def close(self) -> None:
        """Let go of the database."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _text(value: str | bytes) -> str:
    """A name, which servers store as bytes."""
    return value.decode() if isinstance(value, bytes) else value
