"""Entity keys: their limits, their encoding, and the texts people write for them.

The encoding is order-preserving (bytes under memcmp sort as the typed keys do) and self-delimiting (no two different
keys share an encoding, and none is a prefix of another). Each part begins with a tag: 1 = text or bytes, in which every
0x00 becomes 0x00 0xFF and which ends with 0x00 0x00; 2 = integer, 8 bytes big-endian with the sign bit flipped.

Source:
    design.md, section 2 (key fields) and section 6 (stored form).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oomstream.schemas.errors import InvalidEvent, InvalidKey, Reason
from oomstream.schemas.events import Plain
from oomstream.schemas.groups import KeyField
from oomstream.schemas.types import INTEGER_RANGES, Kind

MAX_PART_BYTES = 255
_SIGN = 1 << 63


def encode_entity(key: Sequence[Plain]) -> bytes:
    """Encoded entity key of plain parts (str, bytes or int), already checked."""
    if len(key) == 1:
        return _encode_part(key[0])
    return b"".join(map(_encode_part, key))


def encode_entities(columns: Sequence[Sequence[Any]]) -> list[bytes]:
    """Encoded entity keys of many entities.

    Args:
        columns: One column of plain parts per key field, all of one length.
    """
    parts = list(map(_encode_column, columns))
    return parts[0] if len(parts) == 1 else list(map(b"".join, zip(*parts, strict=True)))


def _encode_column(column: Sequence[Any]) -> list[bytes]:
    if column and type(column[0]) is str:  # a column is of one type
        raw = list(map(str.encode, column))
        if b"\0" not in b"".join(raw):
            return [b"\x01%b\0\0" % each for each in raw]
    return list(map(_encode_part, column))


def _encode_part(part: Plain) -> bytes:
    if type(part) is str:
        raw = part.encode()
    elif type(part) is bytes:
        raw = part
    else:
        assert isinstance(part, int)
        return b"\x02" + (part + _SIGN).to_bytes(8, "big")
    if b"\0" in raw:
        raw = raw.replace(b"\0", b"\0\xff")
    return b"\x01" + raw + b"\0\0"


def decode_entity(entity: bytes, fields: Sequence[KeyField]) -> tuple[Plain, ...]:
    """Plain parts of an encoded entity key.

    Raises:
        ValueError: The bytes are not an encoding of these key fields.
    """
    parts: list[Plain] = []
    at = 0
    for key in fields:
        tag = entity[at : at + 1]
        if tag == b"\x02":
            parts.append(int.from_bytes(entity[at + 1 : at + 9], "big") - _SIGN)
            at += 9
        elif tag == b"\x01":
            end = _end_of_text(entity, at + 1)
            raw = entity[at + 1 : end].replace(b"\0\xff", b"\0")
            parts.append(raw.decode() if key.type.kind is Kind.STRING else raw)
            at = end + 2
        else:
            raise ValueError("not an encoded entity key")
    if at != len(entity):
        raise ValueError("not an encoded entity key of these fields")
    return tuple(parts)


def _end_of_text(entity: bytes, start: int) -> int:
    at = entity.find(b"\0", start)
    while at >= 0 and entity[at + 1 : at + 2] == b"\xff":
        at = entity.find(b"\0", at + 2)
    if at < 0 or entity[at + 1 : at + 2] != b"\0":
        raise ValueError("not an encoded entity key: text without an end")
    return at


def check_part(part: Plain) -> None:
    """Check length and presence of one plain key part.

    Raises:
        InvalidEvent: It is null, empty or longer than 255 bytes.
    """
    if part is None:
        raise InvalidEvent(Reason.KEY_MISSING, "is null, but is part of the entity key")
    if isinstance(part, str | bytes):
        # A text's bytes are at least its characters, so most parts need no encoding to be judged.
        size = len(part)
        if not size:
            raise InvalidEvent(Reason.KEY_EMPTY, "is empty, but is part of the entity key")
        if size > MAX_PART_BYTES or (
            isinstance(part, str) and size * 4 > MAX_PART_BYTES and len(part.encode()) > MAX_PART_BYTES
        ):
            raise InvalidEvent(
                Reason.KEY_TOO_LONG, f"is longer than {MAX_PART_BYTES} bytes, but is part of the entity key"
            )


def key_from_python(values: Sequence[Any], fields: Sequence[KeyField], *, where: str) -> tuple[Plain, ...]:
    """Plain parts of key values that a caller passed in.

    Args:
        values: One value per key field, in order.
        fields: The key fields.
        where: What to name in an error, for example ``entity_rows[3]``.

    Raises:
        InvalidKey: A part is missing, of a wrong type, empty or too long; names the part.
    """
    parts: list[Plain] = []
    for value, key in zip(values, fields, strict=True):
        try:
            if value is None:
                check_part(None)
            plain = key.type.plain_from_avro(key.type.avro_from_python(value))
            check_part(plain)
        except InvalidEvent as exc:
            raise InvalidKey(f"{where}: {key.name} {exc}") from exc
        parts.append(plain)
    return tuple(parts)


def entities_from_python(
    columns: Sequence[Sequence[Any]], fields: Sequence[KeyField], *, where: str
) -> list[bytes | None]:
    """Encoded entity keys of values that a caller passed in; None for a row with a null in it.

    Args:
        columns: One per key field, in order, all of one length.
        fields: The key fields.
        where: What to name in an error, before the row's place: ``entity_rows`` for ``entity_rows[3]``.

    Raises:
        InvalidKey: A part is of a wrong type, empty or too long; names row and part.
    """
    parts = [_quick_parts(column, key) for column, key in zip(columns, fields, strict=True)]
    entities: list[bytes | None] = (
        parts[0] if len(parts) == 1 else [None if None in row else b"".join(row) for row in zip(*parts, strict=True)]
    )
    if None in entities:
        for at, row in enumerate(zip(*columns, strict=True)):
            if entities[at] is None and None not in row:
                entities[at] = encode_entity(key_from_python(row, fields, where=f"{where}[{at}]"))
    return entities


def _quick_parts(column: Sequence[Any], key: KeyField) -> list[bytes | None]:
    """Encoded parts by a short way; None where it does not tell what a value is."""
    match key.type.kind:
        case Kind.STRING:
            return [
                b"\x01%b\0\0" % value.encode()
                if type(value) is str and value.isascii() and 0 < len(value) <= MAX_PART_BYTES and "\0" not in value
                else None
                for value in column
            ]
        case Kind.INT | Kind.LONG:
            low, high = INTEGER_RANGES[key.type.kind]
            return [
                b"\x02%b" % (value + _SIGN).to_bytes(8, "big") if type(value) is int and low <= value <= high else None
                for value in column
            ]
    return [None] * len(column)
