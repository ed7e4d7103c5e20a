"""Reading and writing around the stores on TiDB and MariaDB: plain PyMySQL, values as the server gives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pymysql

from oomstream.schemas.online_value import OnlineRow, packed_version
from oomstream.stores.urls import StoreUrl

_TEXT_KEYS = ("k", "a", "b")
"""Names of the suites' key fields, some of which hold text: it is stored as bytes."""


@contextmanager
def cursor_on(place: str, **options: Any) -> Iterator[Any]:
    """A cursor on a database; what was done with it is committed."""
    url = StoreUrl.parse(place)
    [(host, port)] = url.hosts
    connection = pymysql.connect(
        host=host, port=port or 0, user=url.user, database=url.path, charset="utf8mb4", connect_timeout=10, **options
    )
    try:
        with connection.cursor() as cursor:
            yield cursor
        connection.commit()
    finally:
        connection.close()


def history_rows(place: str, group: str, text_keys: tuple[str, ...] = _TEXT_KEYS) -> list[dict[str, Any]]:
    """All rows of a group's history."""
    with cursor_on(place, cursorclass=pymysql.cursors.DictCursor) as cursor:
        cursor.execute(f"SELECT * FROM `history_{group}`")
        rows: list[dict[str, Any]] = list(cursor.fetchall())
    for row in rows:
        row.update({name: row[name].decode() for name in text_keys if isinstance(row.get(name), bytes)})
    return rows


def insert_history_row(place: str, group: str, row: Mapping[str, Any]) -> None:
    """Insert one row."""
    names, places = ", ".join(f"`{name}`" for name in row), ", ".join(["%s"] * len(row))
    with cursor_on(place) as cursor:
        cursor.execute(f"INSERT INTO `history_{group}` ({names}) VALUES ({places})", tuple(row.values()))


def rows_of_sql(place: str, *statements: str) -> list[dict[str, Any]]:
    """Run statements; the rows of the last."""
    with cursor_on(place, cursorclass=pymysql.cursors.DictCursor) as cursor:
        for each in statements:
            cursor.execute(each)
        return list(cursor.fetchall())


def online_value(place: str, key: bytes) -> bytes | None:
    """The stored value of a key."""
    with cursor_on(place) as cursor:
        cursor.execute("SELECT `value` FROM `online` WHERE `key` = %s", (key,))
        found: tuple[bytes] | None = cursor.fetchone()
    return found[0] if found else None


def write_online_row(place: str, row: OnlineRow) -> None:
    """Write one row, whatever is there."""
    with cursor_on(place) as cursor:
        cursor.execute(
            "REPLACE INTO `online` (`key`, `version`, `value`) VALUES (%s, %s, %s)",
            (row.key, packed_version(row.value), row.value),
        )
