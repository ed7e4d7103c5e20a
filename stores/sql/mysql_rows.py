"""Rows as the text of INSERT statements, for servers of MySQL's family.

The driver has no other way to hand rows over than as text, and makes it value by value: half of what a worker on
servers did was that. Here a column is turned into text at once, each text that comes again only once, and what a
statement must not be longer than is measured of the text itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pymysql.converters import escape_float, escape_string

from oomstream.stores.sql.dialects import InsertText
from oomstream.stores.sql.text import literal

_ROWS_PER_STATEMENT = 2_000
_BYTES_PER_STATEMENT = 8 << 20
"""MariaDB takes statements of 16 MiB by default; a single row may be longer than this."""

_MOST_BYTES_PER_CHARACTER = 4

_FORMS: dict[type, Callable[[Any], str]] = {
    bool: literal,
    bytes: literal,
    float: escape_float,
    int: literal,
    str: lambda value: f"'{escape_string(value)}'",
    type(None): lambda _: "NULL",
}


def insert_statements(statement: InsertText, rows: Sequence[tuple[Any, ...]]) -> Iterator[str]:
    """The statements that insert rows, in order; each of at most 2,000 rows and, if of several, 8 MiB.

    Text is quoted by the driver's rules for sessions in which a backslash escapes.

    Args:
        statement: Where to; its placeholders are not used.
        rows: Plain values; one or more rows, all of the same number of values.

    Raises:
        UnicodeEncodeError: A text has no UTF-8 form; the driver would send a lone surrogate as a byte, and a VARBINARY
            would take it.
    """
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        texts = _texts(rows[start : start + _ROWS_PER_STATEMENT])
        for part in _parts(texts):
            sql = f"{statement.head} ({'),('.join(part)}) {statement.tail}"
            if not sql.isascii():
                sql.encode()
            yield sql


def _texts(rows: Sequence[tuple[Any, ...]]) -> list[str]:
    return list(map(",".join, zip(*map(_column, zip(*rows, strict=True)), strict=True)))


def _column(values: Sequence[Any]) -> Sequence[str]:
    kinds = set(map(type, values))
    if kinds == {int}:
        return list(map(repr, values))
    if kinds == {str}:
        known = {each: f"'{escape_string(each)}'" for each in set(values)}
        return [known[each] for each in values]
    return [_FORMS[type(each)](each) for each in values]


def _parts(texts: list[str]) -> Iterator[Sequence[str]]:
    if sum(map(len, texts)) * _MOST_BYTES_PER_CHARACTER <= _BYTES_PER_STATEMENT:
        yield texts
        return
    start = size = 0
    for at, text in enumerate(texts):
        more = len(text) if text.isascii() else len(text.encode())
        if at > start and size + more > _BYTES_PER_STATEMENT:
            yield texts[start:at]
            start, size = at, 0
        size += more
    yield texts[start:]
