"""oomstore's names for types of features, and Avro's for those that it does not have.

Source:
    oomcli.md (value types): string, int64, float64, bool, time, bytes.
"""

from __future__ import annotations

import re
from typing import Any

from oomstream.schemas.errors import InvalidDefinition
from oomstream.schemas.types import MAX_DECIMAL_PRECISION, Kind, ValueType

_NAMES = {
    Kind.BOOLEAN: "bool",
    Kind.LONG: "int64",
    Kind.DOUBLE: "float64",
    Kind.TIMESTAMP_MICROS: "time",
    Kind.TIMESTAMP_MILLIS: "time",
}
_MICROS = {"type": "long", "logicalType": "timestamp-micros"}
_AVRO: dict[str, Any] = {
    "string": "string",
    "int64": "long",
    "float64": "double",
    "bool": "boolean",
    "time": _MICROS,
    "bytes": "bytes",
    **{kind.value: kind.value for kind in (Kind.BOOLEAN, Kind.INT, Kind.LONG, Kind.FLOAT, Kind.DOUBLE)},
    "date": {"type": "int", "logicalType": "date"},
    "timestamp-millis": {"type": "long", "logicalType": "timestamp-millis"},
    "timestamp-micros": _MICROS,
}
_ARRAY = re.compile(r"array<(.*)>", re.DOTALL)
_DECIMAL = re.compile(r"decimal\((\d{1,3}), ?(\d{1,3})\)", re.ASCII)


def value_type_name(kind: ValueType) -> str:
    """A type by oomstore's name where it has one, else by Avro's (``date``, ``array<float>``, ``decimal(9,2)``)."""
    return _NAMES.get(kind.kind, str(kind))


def is_value_type_of(name: str, kind: ValueType) -> bool:
    """Whether a type's name, oomstore's or Avro's, is this type's."""
    return name.replace(" ", "") in {value_type_name(kind), str(kind)}


def avro_of_value_type(name: str, *, where: str) -> Any:
    """The Avro type, as JSON data, that a type's name means; what `value_type_name` gives is understood, but enums.

    Raises:
        InvalidDefinition: It is no type's name; names `where` and those there are.
    """
    found = _avro(name)
    if found is None:
        raise InvalidDefinition(
            f"{where}: value-type {name[:40]!r} is none of string, int64, float64, bool, time, bytes, int, float, date,"
            " decimal(precision,scale) and array<type>; enums need an Avro schema, NAME.avsc (docs/schemas.md)"
        )
    return found


def _avro(name: str) -> Any:
    if name in _AVRO:
        return _AVRO[name]
    array, decimal = _ARRAY.fullmatch(name), _DECIMAL.fullmatch(name)
    if array:
        items = None if _ARRAY.fullmatch(array[1]) else _avro(array[1])
        return None if items is None else {"type": "array", "items": items}
    if decimal:
        precision, scale = int(decimal[1]), int(decimal[2])
        if 1 <= precision <= MAX_DECIMAL_PRECISION and scale <= precision:
            return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}
    return None
