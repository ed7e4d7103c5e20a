"""The producers' own log: every record that the broker has acknowledged, in an SQLite file that a person can query."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from tests.torture.stream import Headers, Made

_CHUNK = 2_000
_TABLE = """
CREATE TABLE IF NOT EXISTS record (
    topic TEXT, partition INTEGER, "offset" INTEGER, timestamp_ms INTEGER, key BLOB, value BLOB, headers TEXT,
    meant TEXT, PRIMARY KEY (topic, partition, "offset")
) WITHOUT ROWID
"""


class Logged(NamedTuple):
    """A record in a log.

    Attributes:
        offset: Its place in its partition.
        timestamp_ms: Its Kafka timestamp.
        key: Message key.
        value: Message value.
        headers: Message headers.
        meant: What the producer meant it to be (see `Made`); empty where the log is Kafka's.
    """

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    meant: str = ""


class ProducedLog:
    """Writes the log, from one thread.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._file = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._file.execute("PRAGMA journal_mode=WAL")
        self._file.execute("PRAGMA synchronous=OFF")
        self._file.execute(_TABLE)
        self._waiting: list[tuple[str | int | bytes | None, ...]] = []

    def add(self, topic: str, partition: int, offset: int, made: Made) -> None:
        """Note one acknowledged record."""
        headers = json.dumps([[name, value.decode()] for name, value in made.headers])
        self._waiting.append((topic, partition, offset, made.timestamp_ms, made.key, made.value, headers, made.meant))
        if len(self._waiting) >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        self._file.execute("BEGIN")
        self._file.executemany("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?)", self._waiting)
        self._file.execute("COMMIT")
        self._waiting.clear()

    def close(self) -> None:
        """Write what waits, and close the file."""
        self.flush()
        self._file.close()


def produced_records(path: Path, topic: str, partition: int) -> Iterator[Logged]:
    """Acknowledged records of a partition, in order of offset."""
    query = (
        'SELECT "offset", timestamp_ms, key, value, headers, meant FROM record '
        'WHERE topic = ? AND partition = ? ORDER BY "offset"'
    )
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
        for offset, timestamp_ms, key, value, headers, meant in file.execute(query, (topic, partition)):
            pairs = tuple((name, text.encode()) for name, text in json.loads(headers))
            yield Logged(offset, timestamp_ms, key, value, pairs, meant)
