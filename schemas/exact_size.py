"""How many bytes a canonical Avro encoding of whole columns takes, without writing it.

Where no two encodings of a value are equally long, bytes that were read and are as long as the canonical ones are the
canonical ones. That is so for every type but arrays (two blocks can be as long as one), with what is done here:

* an integer (a length, an index) has one shortest form; those of 10 bytes are left in doubt, since bits beyond the
  64th are lost in reading;
* a boolean is read as an integer: its bytes 0 and 1 are those of 0 and -1;
* an enum is read as its index, which must be in range;
* a union is read with branches that cannot be read, so many that a negative index that would reach a branch of the
  schema from behind takes more than one byte.

Source:
    Apache Avro 1.12 specification, "Binary Encoding".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

from oomstream.schemas.columns import Column
from oomstream.schemas.layout import RecordField, bare_type
from oomstream.schemas.types import Kind, ValueType

_SMALL = 64  # integers from -64 to 63 take one byte
_HUGE = 1 << 62  # from here on, 10 bytes
_BYTES_OF_BITS = [(bits + 7) // 7 for bits in range(64)]
_SIZES = {Kind.FLOAT: 4, Kind.DOUBLE: 8, Kind.BOOLEAN: 1}
_INTEGERS_OF_BOOLEANS = frozenset({0, -1})
_UNREADABLE = {"type": "fixed", "name": "unreadable", "size": 1 << 40}

Numbers = Sequence[int]
Measure = Callable[[Sequence[Any]], int | None]


def can_measure(fields: Sequence[RecordField]) -> bool:
    """Whether a schema is of types that can be judged by their size."""
    return all(each.type.kind is not Kind.ARRAY for each in fields)


def readable_record(fields: Sequence[RecordField], end: dict[str, Any]) -> dict[str, Any]:
    """The record schema to read with: booleans and enums as integers, unions with unreadable branches.

    Args:
        fields: The writer's fields.
        end: One more field, after them.
    """
    names: dict[ValueType, str] = {}
    unreadable: Any = _UNREADABLE
    found = []
    for each in fields:
        kind = "int" if each.type.kind in {Kind.BOOLEAN, Kind.ENUM} else bare_type(each.type, names)
        if each.nullable:
            branches = [kind, "null"] if each.null_index else ["null", kind]
            kind = [*branches, unreadable, *repeat(_UNREADABLE["name"], _SMALL - 1)]
            unreadable = _UNREADABLE["name"]
        found.append({"name": each.name, "type": kind})
    return {"type": "record", "name": "r", "fields": [*found, end]}


class FieldSize:
    """Measures the columns of one field and gives them their avro form."""

    def __init__(self, field: RecordField) -> None:
        """Prepare for a field that is not an array."""
        kind = field.type
        self.name = field.name
        self._nullable = field.nullable
        self._symbols = kind.symbols
        self._is_boolean = kind.kind is Kind.BOOLEAN
        size = _SIZES.get(kind.kind) or kind.fixed_size
        self._measure: Measure = _MEASURES.get(kind.kind, _integers) if size is None else lambda col: size * len(col)

    def avro(self, column: Column) -> tuple[int, Column] | None:
        """Canonical size in bytes and avro form of a column as it was read; None if in doubt."""
        present = column
        indexes = 0
        if self._nullable:
            indexes = len(column)
            if None in column:
                present = [each for each in column if each is not None]
        if self._is_boolean:
            if not _INTEGERS_OF_BOOLEANS.issuperset(present):
                return None
            column = [None if each is None else each == -1 for each in column]
        elif self._symbols:
            symbols = self._symbols
            if present and not (min(present) >= 0 and max(present) < len(symbols)):
                return None
            column = [None if each is None else symbols[each] for each in column]
        more = self._measure(present) if present else 0
        return None if more is None else (indexes + more, column)


def _integers(column: Numbers) -> int | None:
    low, high = min(column), max(column)
    if low < 0:
        if low < -_HUGE:
            return None
        column = [each if each >= 0 else ~each for each in column]
        low, high = 0, max(high, ~low)
    if high >= _HUGE:
        return None
    if _BYTES_OF_BITS[low.bit_length()] == _BYTES_OF_BITS[high.bit_length()]:
        return _BYTES_OF_BITS[high.bit_length()] * len(column)
    return sum([_BYTES_OF_BITS[bits] for bits in map(int.bit_length, column)])


def _texts(column: Column) -> int | None:
    joined = "".join(column)
    if not joined.isascii():
        return _blobs([each.encode() for each in column])
    return _with_lengths(column, len(joined))


def _blobs(column: Column) -> int | None:
    return _with_lengths(column, sum(map(len, column)))


def _with_lengths(column: Column, total: int) -> int | None:
    lengths = list(map(len, column))
    size = len(column) if max(lengths) < _SMALL else _integers(lengths)
    return None if size is None else size + total


_MEASURES: dict[Kind, Measure] = {Kind.STRING: _texts, Kind.BYTES: _blobs, Kind.DECIMAL: _blobs}
