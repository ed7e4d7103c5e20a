"""The rows of the type table (see `types`)."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """The types a field may have."""

    BOOLEAN = "boolean"
    INT = "int"
    LONG = "long"
    FLOAT = "float"
    DOUBLE = "double"
    STRING = "string"
    BYTES = "bytes"
    DATE = "date"
    TIMESTAMP_MILLIS = "timestamp-millis"
    TIMESTAMP_MICROS = "timestamp-micros"
    DECIMAL = "decimal"
    ENUM = "enum"
    ARRAY = "array"
