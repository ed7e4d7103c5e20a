"""What tables of users' hold: expressions that give plain forms, and conditions that find what does not fit.

A user's table keeps values in columns of its own types: a DATETIME is read as microseconds, a text under whatever
collation by its bytes. On SQLite any column holds any value, so there the values are looked at instead of the types.
"""

from __future__ import annotations

from oomstream.schemas.keys import MAX_PART_BYTES
from oomstream.schemas.kinds import Kind
from oomstream.schemas.types import INTEGER_RANGES, ValueType
from oomstream.stores.sql.dialects import StoredColumn
from oomstream.stores.sql.text import literal

_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
_FLOATS = frozenset({"float", "double"})
_TEXTS = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum"})
_BYTES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
_TIMES = frozenset({"datetime", "timestamp"})

_SQLITE_TEXT = "'text'"
_SQLITE_TYPES = {
    Kind.BOOLEAN: "'integer'",
    Kind.INT: "'integer'",
    Kind.LONG: "'integer'",
    Kind.DATE: "'integer'",
    Kind.TIMESTAMP_MILLIS: "'integer'",
    Kind.TIMESTAMP_MICROS: "'integer'",
    Kind.FLOAT: "'integer', 'real'",
    Kind.DOUBLE: "'integer', 'real'",
    Kind.BYTES: "'blob'",
}

_GREATEST_FLOAT = {Kind.FLOAT: "3.4028234663852886E38", Kind.DOUBLE: "1.7976931348623157E308"}


def mysql_key(column: StoredColumn, quoted: str, kind: ValueType) -> str | None:
    """See `Dialect.linked_key`; a VARBINARY is compared as it is, so that the engine can seek."""
    if kind.kind in {Kind.STRING, Kind.BYTES}:
        if column.type == "varbinary":
            return quoted
        if kind.kind is Kind.STRING and column.type in _TEXTS:
            return f"CAST(CONVERT({quoted} USING utf8mb4) AS BINARY)"
        return f"CAST({quoted} AS BINARY)" if kind.kind is Kind.BYTES and column.type in _BYTES else None
    if kind.kind is Kind.DATE and column.type == "date":
        return _days(quoted)
    return quoted if column.type in _INTEGERS else None


def mysql_value(column: StoredColumn, quoted: str, kind: ValueType) -> str | None:
    """See `Dialect.linked_value`."""
    text = f"CONVERT({quoted} USING utf8mb4)" if column.type in _TEXTS else None
    match kind.kind:
        case Kind.STRING | Kind.ENUM:
            return text
        case Kind.ARRAY:
            return f"CAST({quoted} AS CHAR)" if column.type == "json" else text
        case Kind.DECIMAL:
            return text or _decimal(column, quoted, kind)
        case Kind.BYTES:
            return quoted if column.type in _BYTES else None
        case Kind.FLOAT | Kind.DOUBLE:
            if column.type == "double":
                return quoted
            # An addition and no CAST: servers know no CAST to DOUBLE everywhere, and write a FLOAT in too few digits.
            return f"({quoted} + 0.0E0)" if column.type in _FLOATS | _INTEGERS | {"decimal"} else None
        case Kind.DATE if column.type == "date":
            return _days(quoted)
        case Kind.TIMESTAMP_MILLIS | Kind.TIMESTAMP_MICROS if column.type in _TIMES:
            return f"TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', {quoted})"
    return quoted if column.type in _INTEGERS else None


def _days(quoted: str) -> str:
    return f"DATEDIFF({quoted}, '1970-01-01')"


def _decimal(column: StoredColumn, quoted: str, kind: ValueType) -> str | None:
    digits, scale = column.digits or 0, column.scale or 0
    if column.type != "decimal" or scale > kind.scale or digits - scale > kind.precision - kind.scale:
        return None
    return f"CAST(CAST({quoted} AS DECIMAL({int(kind.precision)}, {int(kind.scale)})) AS CHAR)"


def mysql_misfit(expression: str, kind: ValueType, *, key: bool) -> str:
    """See `Dialect.misfit`."""
    if key and kind.kind in {Kind.STRING, Kind.BYTES}:
        return f"LENGTH({expression}) NOT BETWEEN 1 AND {MAX_PART_BYTES}"
    if kind.kind is Kind.ENUM:
        return f"CAST({expression} AS BINARY) NOT IN ({_symbols(kind)})"
    return _out_of_range(expression, kind, f"MOD({expression}, 1000)")


def sqlite_key(column: StoredColumn, quoted: str, kind: ValueType) -> str | None:
    """See `Dialect.linked_key`."""
    return f"{quoted} COLLATE BINARY" if kind.kind is Kind.STRING else quoted


def sqlite_value(column: StoredColumn, quoted: str, kind: ValueType) -> str | None:
    """See `Dialect.linked_value`: what a column is declared as says nothing of its values."""
    return quoted


def sqlite_misfit(expression: str, kind: ValueType, *, key: bool) -> str:
    """See `Dialect.misfit`."""
    wrong = f"typeof({expression}) NOT IN ({_SQLITE_TYPES.get(kind.kind, _SQLITE_TEXT)})"
    if key and kind.kind in {Kind.STRING, Kind.BYTES}:
        return f"({wrong} OR length(CAST({expression} AS BLOB)) NOT BETWEEN 1 AND {MAX_PART_BYTES})"
    if kind.kind is Kind.ENUM:
        return f"({wrong} OR CAST({expression} AS BLOB) NOT IN ({_symbols(kind)}))"
    return f"({wrong} OR {_out_of_range(expression, kind, f'{expression} % 1000')})"


def _symbols(kind: ValueType) -> str:
    return ", ".join(literal(each.encode()) for each in kind.symbols)


def _out_of_range(expression: str, kind: ValueType, rest_of_thousand: str) -> str:
    match kind.kind:
        case Kind.BOOLEAN:
            return f"{expression} NOT IN (0, 1)"
        case Kind.TIMESTAMP_MILLIS:
            low, high = INTEGER_RANGES[Kind.TIMESTAMP_MICROS]
            return f"({expression} NOT BETWEEN {low} AND {high} OR {rest_of_thousand} <> 0)"
        case Kind.FLOAT | Kind.DOUBLE:
            return f"ABS({expression}) > {_GREATEST_FLOAT[kind.kind]}"
    if kind.kind not in INTEGER_RANGES:
        return "0 = 1"
    low, high = INTEGER_RANGES[kind.kind]
    return f"{expression} NOT BETWEEN {low} AND {high}"
