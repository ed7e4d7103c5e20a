"""Reads one Avro body byte by byte and accepts only what a correct encoder could have written.

It is slow and decides: the fast path in `strict` only accepts what is beyond doubt, and leaves the rest to this module,
which also says what is wrong. Accepted beyond the canonical form: arrays in several blocks, and blocks with sizes.

Source:
    Apache Avro 1.12 specification, "Binary Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from oomstream.schemas.errors import InvalidEvent, Reason
from oomstream.schemas.layout import RecordField
from oomstream.schemas.types import Kind, ValueType

_FLOAT = struct.Struct("<f")
_DOUBLE = struct.Struct("<d")
_MAX_VARINT_BYTES = 10


def walk(body: bytes, fields: Sequence[RecordField], *, where: str) -> dict[str, Any]:
    """The record in a body, in canonical avro form.

    Args:
        body: The whole body.
        fields: The writer's fields.
        where: What to name in an error: the group.

    Raises:
        InvalidEvent: The bytes are not exactly one valid encoding; names the field.
    """
    walker = _Walker(body)
    record: dict[str, Any] = {}
    for each in fields:
        try:
            record[each.name] = walker.field(each)
        except InvalidEvent as exc:
            raise InvalidEvent(exc.reason, f"{where}.{each.name} {exc}") from exc
    if walker.at != len(body):
        raise InvalidEvent(Reason.TRAILING_BYTES, f"{where}: {len(body) - walker.at} bytes follow the record")
    return record


class _Walker:
    """A place in the bytes of a body."""

    __slots__ = ("at", "body")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0

    def field(self, declared: RecordField) -> Any:
        if declared.nullable:
            branch = self.varint()
            if branch not in (0, 1):
                raise InvalidEvent(Reason.MALFORMED_AVRO, "has a union branch that does not exist")
            if branch == declared.null_index:
                return None
        return declared.type.canonical(self.value(declared.type))

    def value(self, kind: ValueType) -> Any:
        avro = _READ[kind.kind](self, kind)
        kind.check(avro)
        return avro

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.body):
            raise InvalidEvent(Reason.TRUNCATED, "lies beyond the end of the message")
        taken = self.body[self.at : end]
        self.at = end
        return taken

    def varint(self) -> int:
        """A zig-zag integer of 64 bits in the fewest bytes: any other form would be a second encoding of one value."""
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift == _MAX_VARINT_BYTES * 7:
                raise InvalidEvent(Reason.MALFORMED_AVRO, "holds an integer of too many bytes")
        if (byte == 0 and shift > 7) or value >> 64:
            raise InvalidEvent(Reason.MALFORMED_AVRO, "holds an integer that is not in its shortest form, or too large")
        return (value >> 1) ^ -(value & 1)

    def sized(self) -> bytes:
        size = self.varint()
        if size < 0:
            raise InvalidEvent(Reason.MALFORMED_AVRO, "has a negative length")
        return self.take(size)

    def text(self) -> str:
        try:
            return self.sized().decode()
        except UnicodeDecodeError as exc:
            raise InvalidEvent(Reason.INVALID_TEXT, "is not UTF-8 text") from exc

    def boolean(self) -> bool:
        byte = self.take(1)[0]
        if byte > 1:
            raise InvalidEvent(Reason.MALFORMED_AVRO, "is a boolean that is neither 0 nor 1")
        return byte == 1

    def enum(self, kind: ValueType) -> str:
        index = self.varint()
        if not 0 <= index < len(kind.symbols):
            raise InvalidEvent(Reason.UNKNOWN_SYMBOL, "has an enum index that does not exist")
        return kind.symbols[index]

    def decimal(self, kind: ValueType) -> bytes:
        return self.sized() if kind.fixed_size is None else self.take(kind.fixed_size)

    def array(self, kind: ValueType) -> list[Any]:
        item = kind.item
        assert item is not None
        items: list[Any] = []
        while count := self.varint():
            end = None
            if count < 0:
                count = -count
                size = self.varint()
                end = self.at + size
                if size < 0 or end > len(self.body):
                    raise InvalidEvent(Reason.MALFORMED_AVRO, "has an array block of an impossible size")
            # Every item takes at least a byte, so a count that cannot be true is refused before any work is done.
            if count > len(self.body) - self.at:
                raise InvalidEvent(Reason.TRUNCATED, "has more items than the message has bytes")
            if len(items) + count > kind.max_items:
                raise InvalidEvent(Reason.TOO_LARGE, f"has more than {kind.max_items} items")
            items.extend(self.value(item) for _ in range(count))
            if end is not None and self.at != end:
                raise InvalidEvent(Reason.MALFORMED_AVRO, "has an array block whose size is wrong")
        return items


_READ: dict[Kind, Callable[[_Walker, ValueType], Any]] = {
    Kind.BOOLEAN: lambda walker, _: walker.boolean(),
    Kind.INT: lambda walker, _: walker.varint(),
    Kind.LONG: lambda walker, _: walker.varint(),
    Kind.FLOAT: lambda walker, _: _FLOAT.unpack(walker.take(4))[0],
    Kind.DOUBLE: lambda walker, _: _DOUBLE.unpack(walker.take(8))[0],
    Kind.STRING: lambda walker, _: walker.text(),
    Kind.BYTES: lambda walker, _: walker.sized(),
    Kind.DATE: lambda walker, _: walker.varint(),
    Kind.TIMESTAMP_MILLIS: lambda walker, _: walker.varint(),
    Kind.TIMESTAMP_MICROS: lambda walker, _: walker.varint(),
    Kind.DECIMAL: lambda walker, kind: walker.decimal(kind),
    Kind.ENUM: lambda walker, kind: walker.enum(kind),
    Kind.ARRAY: lambda walker, kind: walker.array(kind),
}
