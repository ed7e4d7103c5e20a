"""Some fields of stored bodies, found by a regular expression: one match in C instead of a call per field.

A canonical body is a word of a regular language where every field's length shows in its first bytes: an integer is
bytes with the high bit set and one without, a double is any eight, a text of up to 63 bytes is one of 64 lengths and as
many bytes. One pattern matches the whole body and has a group for each field. Where it does not match (a longer text),
and for schemas with arrays, there is no answer, and fastavro reads instead.

Measured with 50 nullable fields of which 5 are wanted: 1.4 µs a body, against 20 µs with fastavro.

Source:
    Apache Avro 1.12 specification, "Binary Encoding".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from operator import methodcaller
from typing import Any

from oomstream.schemas.layout import RecordField
from oomstream.schemas.types import Kind, ValueType

Raw = Sequence[Any]
"""What a field's group matched in each of some bodies: bytes, or None where the field is null."""

_Column = Callable[[Raw], list[Any]]

_LONGEST_TEXT = 63
"""So long may a text be whose length takes one byte."""

# Possessive: no other way to match an integer is ever tried.
_INTEGER = rb"[\x80-\xff]{0,9}+[\x00-\x7f]"
_TEXT = b"(?>" + b"|".join(rb"\x%02x.{%d}" % (2 * size, size) for size in range(_LONGEST_TEXT + 1)) + b")"
_PATTERNS: dict[Kind, bytes] = {
    Kind.BOOLEAN: rb"[\x00\x01]",
    Kind.FLOAT: rb".{4}",
    Kind.DOUBLE: rb".{8}",
    Kind.STRING: _TEXT,
    Kind.BYTES: _TEXT,
    Kind.DECIMAL: _TEXT,
    **dict.fromkeys(
        (Kind.INT, Kind.LONG, Kind.DATE, Kind.TIMESTAMP_MILLIS, Kind.TIMESTAMP_MICROS, Kind.ENUM), _INTEGER
    ),
}


class FieldPattern:
    """Reads the same fields of any number of bodies of one writer's schema.

    Args:
        fields: All fields of the writer, in order; none is an array (see `can_match`).
        names: The fields wanted, one or more.
    """

    def __init__(self, fields: Sequence[RecordField], names: Sequence[str]) -> None:
        # All fields have a group, whichever are wanted: one group of features, one pattern, which `re` keeps. Compiling
        # one takes half a millisecond a text field.
        self._match = re.compile(b"".join(map(_pattern, fields)), re.DOTALL).fullmatch
        places = {each.name: at for at, each in enumerate(fields)}
        wanted = [places[name] for name in names]
        self._columns = [_column(fields[at].type) for at in wanted]
        groups = [at + 1 for at in wanted]
        # Of one group alone, `group` gives no tuple.
        self._groups = methodcaller("group", *groups, *groups[:1])

    def columns(self, bodies: Sequence[bytes]) -> list[list[Any]] | None:
        """One column per field wanted, in python form; None if a body does not match.

        Args:
            bodies: Canonical bodies, one or more.

        Raises:
            UnicodeDecodeError: A text is none; the body was damaged.
        """
        matches = list(map(self._match, bodies))
        if None in matches:
            return None
        raw = zip(*map(self._groups, matches), strict=True)
        return [column(each) for column, each in zip(self._columns, raw, strict=False)]


def can_match(fields: Sequence[RecordField]) -> bool:
    """Whether a schema is of types whose length shows in their first bytes."""
    return all(each.type.kind in _PATTERNS for each in fields)


def _pattern(field: RecordField) -> bytes:
    kind = field.type
    found = b"(%b)" % (_PATTERNS[kind.kind] if kind.fixed_size is None else b".{%d}" % kind.fixed_size)
    if not field.nullable:
        return found
    null, value = (b"\\x02", b"\\x00") if field.null_index else (b"\\x00", b"\\x02")
    return b"(?>%b|%b%b)" % (null, value, found)


def integer(raw: bytes) -> int:
    """The value of a zig-zag integer of any number of bytes."""
    value = raw[-1]
    for byte in raw[-2::-1]:
        value = value << 7 | byte & 0x7F
    value = value >> 1 ^ -(value & 1)
    if len(raw) <= _BYTES_OF_SMALL:
        _SMALL[raw] = value
    return value


_BYTES_OF_SMALL = 2
_SMALL: dict[bytes | None, int | None] = {None: None}
"""Integers from -8192 to 8191 that were met: most counts are such, and a look-up takes a fifth of the time."""


def _column(kind: ValueType) -> _Column:
    match kind.kind:
        case Kind.INT | Kind.LONG:
            return _integers
        case Kind.DOUBLE:
            return _doubles
        case Kind.STRING:
            return _texts
        case Kind.BYTES:
            return _blobs
    return _converted(_avro(kind), kind)


def _integers(raw: Raw) -> list[Any]:
    known = _SMALL
    return [known[each] if each in known else integer(each) for each in raw]


def _doubles(raw: Raw) -> list[Any]:
    return [each and _DOUBLE(each)[0] for each in raw]  # what matched has a byte at least, so only None is false


def _texts(raw: Raw) -> list[Any]:
    return [each and each[1:].decode() for each in raw]


def _blobs(raw: Raw) -> list[Any]:
    return [each and each[1:] for each in raw]


_DOUBLE = struct.Struct("<d").unpack
_FLOAT = struct.Struct("<f").unpack


def _avro(kind: ValueType) -> Callable[[bytes], Any]:
    """From the bytes of a value that is not null to its avro form."""
    match kind.kind:
        case Kind.BOOLEAN:
            return lambda raw: raw == b"\x01"
        case Kind.FLOAT:
            return lambda raw: _FLOAT(raw)[0]
        case Kind.DECIMAL:
            return bytes if kind.fixed_size is not None else lambda raw: raw[1:]
        case Kind.ENUM:
            return lambda raw: kind.symbols[integer(raw)]
    return integer


def _converted(avro: Callable[[bytes], Any], kind: ValueType) -> _Column:
    def column(raw: Raw) -> list[Any]:
        return [each and kind.python_from_plain(kind.plain_from_avro(avro(each))) for each in raw]

    return column
