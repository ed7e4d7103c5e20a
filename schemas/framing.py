"""How message bytes say what they are: the three framings, and the keys and headers of tombstones.

* single-object encoding: ``C3 01``, the fingerprint of the writer's schema (8 bytes, little-endian), an Avro body;
* Confluent framing: ``00``, a Schema Registry id (4 bytes, big-endian), an Avro body;
* JSON: one object.

A tombstone is a message with a null value: the entity key is then the message key, and the event time a header.

Source:
    design.md, section 3; Apache Avro 1.12 specification, "Single-object encoding".
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from oomstream.schemas.errors import InvalidEvent, Reason
from oomstream.schemas.events import Plain
from oomstream.schemas.groups import KeyField
from oomstream.schemas.keys import check_part
from oomstream.schemas.types import Kind

EVENT_TIME_HEADER = "oomstream.event_time"
"""Header of a tombstone that holds its event time: decimal text of UTC microseconds."""

SINGLE_OBJECT_MAGIC = b"\xc3\x01"
"""First two bytes of Avro's single-object encoding."""

CONFLUENT_MAGIC = b"\0"
"""First byte of Confluent framing."""

SINGLE_OBJECT_HEADER_BYTES = 10
CONFLUENT_HEADER_BYTES = 5

MAX_TOMBSTONE_KEY_BYTES = 64 << 10
"""Longest message key of a tombstone that is read; 8 parts of 255 bytes need far less, however escaped."""

_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,19}")
_JSON_BEGINS = frozenset(b'{[" \t\r\n-0123456789tfn')


class Framing(StrEnum):
    """How a message's value is framed."""

    SINGLE_OBJECT = "avro single-object"
    CONFLUENT = "confluent"
    JSON = "json"


class Framed(NamedTuple):
    """A message's value taken apart.

    Attributes:
        framing: Which of the three.
        body: Avro body, or the whole JSON text.
        fingerprint: Of the writer's schema, for single-object encoding.
        schema_id: In the Schema Registry, for Confluent framing.
    """

    framing: Framing
    body: bytes
    fingerprint: bytes = b""
    schema_id: int = 0


def frame(fingerprint: bytes, body: bytes) -> bytes:
    """Single-object encoding of a body."""
    return SINGLE_OBJECT_MAGIC + fingerprint + body


def frame_confluent(schema_id: int, body: bytes) -> bytes:
    """Confluent framing of a body."""
    return CONFLUENT_MAGIC + schema_id.to_bytes(4, "big") + body


def detect(value: bytes, *, where: str = "") -> Framed:
    """Take a message's value apart.

    Args:
        value: Not a tombstone.
        where: What to name in an error: the group.

    Raises:
        InvalidEvent: It is empty, or framed in none of the three ways.
    """
    if value.startswith(SINGLE_OBJECT_MAGIC):
        if len(value) < SINGLE_OBJECT_HEADER_BYTES:
            raise InvalidEvent(Reason.TRUNCATED, f"{where}: the message ends within the schema's fingerprint")
        return Framed(Framing.SINGLE_OBJECT, value[SINGLE_OBJECT_HEADER_BYTES:], fingerprint=value[2:10])
    if value.startswith(CONFLUENT_MAGIC):
        if len(value) < CONFLUENT_HEADER_BYTES:
            raise InvalidEvent(Reason.TRUNCATED, f"{where}: the message ends within the schema's id")
        body = value[CONFLUENT_HEADER_BYTES:]
        return Framed(Framing.CONFLUENT, body, schema_id=int.from_bytes(value[1:5], "big"))
    if not value:
        raise InvalidEvent(Reason.EMPTY_VALUE, f"{where}: the message's value is empty")
    if value[0] in _JSON_BEGINS:
        return Framed(Framing.JSON, value)
    raise InvalidEvent(
        Reason.UNKNOWN_FRAMING, f"{where}: the message is neither single-object Avro, nor Confluent framing, nor JSON"
    )


def tombstone_key(key: Sequence[Plain], fields: Sequence[KeyField]) -> bytes:
    """Message key of an entity: what its events are keyed by, and what a tombstone is read from.

    Args:
        key: Plain parts, in the order of the group's key fields.
        fields: The key fields.
    """
    parts = [_to_json(part, field) for part, field in zip(key, fields, strict=True)]
    if len(parts) > 1:
        return orjson.dumps(parts)
    return key[0] if isinstance(key[0], bytes) else str(parts[0]).encode()


def parse_tombstone_key(raw: bytes | None, fields: Sequence[KeyField], *, where: str = "") -> tuple[Plain, ...]:
    """Plain parts of the message key of a tombstone; the inverse of `tombstone_key`.

    Args:
        raw: The message key.
        fields: The key fields.
        where: What to name in an error: the group.

    Raises:
        InvalidEvent: The key is missing or is not exactly one entity key; names the key field.
    """
    if raw is None:
        raise InvalidEvent(Reason.KEY_MISSING, f"{where}: a tombstone has no message key, which is the entity key")
    if len(raw) > MAX_TOMBSTONE_KEY_BYTES:
        raise InvalidEvent(
            Reason.KEY_TOO_LONG, f"{where}: the message key is longer than {MAX_TOMBSTONE_KEY_BYTES} bytes"
        )
    parts = [raw] if len(fields) == 1 else _composite(raw, fields, where)
    read = _part_from_bytes if len(fields) == 1 else _part_from_json
    key: list[Plain] = []
    for part, field in zip(parts, fields, strict=True):
        try:
            plain = read(part, field)
            check_part(plain)
        except InvalidEvent as exc:
            raise InvalidEvent(exc.reason, f"{where}.{field.name} {exc}") from exc
        key.append(plain)
    return tuple(key)


def tombstone_time_us(headers: Sequence[tuple[str, bytes | None]], *, where: str = "") -> int | None:
    """Event time that a tombstone's headers give, UTC microseconds; None where they do not.

    Args:
        headers: The message's headers.
        where: What to name in an error: the group.

    Raises:
        InvalidEvent: The header is not one decimal number.
    """
    found = [raw for name, raw in headers if name == EVENT_TIME_HEADER]
    if not found:
        return None
    if len(found) > 1:
        raise InvalidEvent(Reason.DUPLICATE_FIELD, f"{where}: the header {EVENT_TIME_HEADER} is there twice")
    if found[0] is None or not _INTEGER.fullmatch(found[0]):
        raise InvalidEvent(Reason.WRONG_TYPE, f"{where}: the header {EVENT_TIME_HEADER} is not a decimal number")
    return int(found[0])


def _to_json(part: Any, field: KeyField) -> Any:
    match field.type.kind:
        case Kind.BYTES:
            return base64.b64encode(part).decode()
        case Kind.DATE:
            return field.type.python_from_plain(part).isoformat()
    return part


def _composite(raw: bytes, fields: Sequence[KeyField], where: str) -> list[Any]:
    try:
        parts = orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        raise InvalidEvent(Reason.MALFORMED_JSON, f"{where}: the message key is not valid JSON") from exc
    if type(parts) is not list or len(parts) != len(fields):
        raise InvalidEvent(
            Reason.WRONG_TYPE,
            f"{where}: the message key is not a JSON array of the {len(fields)} parts of the entity key",
        )
    return parts


def _part_from_json(part: Any, field: KeyField) -> Plain:
    plain: Plain = None if part is None else field.type.avro_from_json(part)
    return plain


def _part_from_bytes(raw: bytes, field: KeyField) -> Plain:
    if not raw or field.type.kind is Kind.BYTES:
        return raw
    if field.type.kind in {Kind.INT, Kind.LONG}:
        if not _INTEGER.fullmatch(raw):
            raise InvalidEvent(Reason.WRONG_TYPE, "is not a decimal number")
        return _part_from_json(int(raw), field)
    try:
        text = raw.decode()
    except UnicodeDecodeError as exc:
        raise InvalidEvent(Reason.INVALID_TEXT, "is not UTF-8 text") from exc
    return _part_from_json(text, field)
