"""What a record of the log means, in plain and obvious Python: an event, or garbage.

It shares nothing with the product's decoder. It does not have to be fast, and it does not tell one kind of garbage from
another: the producers know what they meant.

Source:
    design.md, section 3 (event bytes).
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Sequence
from datetime import date, datetime
from io import BytesIO
from typing import Any, NamedTuple

from fastavro import schemaless_reader, schemaless_writer

from tests.torture.groups import TortureGroup, avro_kind
from tests.torture.produced import Logged

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MIN_TIME_US = 946_684_800_000_000
MAX_FUTURE_US = 300_000_000
_EPOCH = date(1970, 1, 1)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


class Happened(NamedTuple):
    """An event.

    Attributes:
        key: Entity key, as history stores it.
        time_us: Event time.
        deleted: Whether it is a delete.
        values: Features in order, as history stores them; empty for a delete.
    """

    key: tuple[Any, ...]
    time_us: int
    deleted: bool
    values: tuple[Any, ...]


class Garbage(Exception):
    """Raised for a record that is no event."""


def read_record(group: TortureGroup, record: Logged) -> Happened:
    """The event in a record.

    Raises:
        Garbage: There is none.
    """
    value = record.value
    happened = _tombstone(group, record) if value is None else event_of(group, read_value(group, value))
    for part in happened.key:
        if isinstance(part, str | bytes) and not 1 <= len(part.encode() if isinstance(part, str) else part) <= 255:
            raise Garbage("length of the entity key")
    if not MIN_TIME_US <= happened.time_us <= record.timestamp_ms * 1000 + 999 + MAX_FUTURE_US:
        raise Garbage("event time")
    return happened


def event_of(group: TortureGroup, avro: dict[str, Any]) -> Happened:
    """The event in a record's fields, which are as Avro encodes them."""
    types = group.fields
    plain = {name: to_plain(avro_kind(types[name])[0], avro[name]) for name in types}
    time_us = avro["at"] * group.time_unit_us
    return Happened(
        tuple(plain[name] for name in group.keys), time_us, False, tuple(plain[name] for name in group.features)
    )


def to_plain(kind: str, value: Any) -> Any:
    """A field as history stores it: times in microseconds, decimals and arrays as text."""
    if value is None:
        return None
    match kind:
        case "timestamp-millis":
            return value * 1000
        case "decimal":
            unscaled = int.from_bytes(value, "big", signed=True)
            return f"{'-' if unscaled < 0 else ''}{abs(unscaled) // 100}.{abs(unscaled) % 100:02d}"
        case "array":
            return json.dumps(value, separators=(",", ":"))
        case "double":
            return value + 0.0
    return value


def read_value(group: TortureGroup, value: bytes) -> dict[str, Any]:
    """Fields of a message's value, as Avro encodes them.

    Raises:
        Garbage: It is not exactly one encoding of the group's schema.
    """
    if len(value) > MAX_BYTES:
        raise Garbage("too long")
    if value.startswith(b"\xc3\x01"):
        if value[:10] != group.header:
            raise Garbage("another schema")
        return read_body(group, value[10:])
    if value[:1] == b"{":
        return _from_json(group, value)
    raise Garbage("no framing")


def read_body(group: TortureGroup, body: bytes) -> dict[str, Any]:
    """Fields of an Avro body: what fastavro reads, if it writes the same bytes again.

    Raises:
        Garbage: It does not.
    """
    try:
        avro: Any = schemaless_reader(BytesIO(body), group.bare, None)
        again = BytesIO()
        schemaless_writer(again, group.bare, avro)
    except Exception as exc:  # fastavro raises whatever comes up
        raise Garbage(f"not Avro: {exc!r}") from exc
    if again.getvalue() != body:
        raise Garbage("not the canonical body")
    if any(isinstance(each, float) and not math.isfinite(each) for each in avro.values()):
        raise Garbage("not a finite number")
    fields: dict[str, Any] = avro
    return fields


def _from_json(group: TortureGroup, value: bytes) -> dict[str, Any]:
    try:
        found = json.loads(value.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise Garbage("not JSON") from exc
    if _depth(found) > MAX_DEPTH:
        raise Garbage("too deep")
    fields: dict[str, Any] = {}
    for name, declared in group.fields.items():
        kind, nullable = avro_kind(declared)
        given = found.get(name)
        if given is None:
            if not nullable:
                raise Garbage(f"no {name}")
            fields[name] = None
        else:
            fields[name] = _FROM_JSON[kind](declared, given, group)
    if any(isinstance(each, float) and not math.isfinite(each) for each in found.values()):
        raise Garbage("not a finite number")
    return fields


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _depth(value: Any) -> int:
    inner: Sequence[Any] = ()
    if isinstance(value, dict):
        inner = list(value.values())
    elif isinstance(value, list):
        inner = value
    else:
        return 0
    return 1 + max(map(_depth, inner), default=0)


def _need(right: bool, what: str) -> None:
    if not right:
        raise Garbage(what)


def _integer(value: Any, bits: int) -> int:
    _need(type(value) is int and -(1 << bits - 1) <= value < 1 << bits - 1, "integer")
    return int(value)


def _text(_: Any, value: Any, __: TortureGroup) -> str:
    _need(type(value) is str, "text")
    return str(value)


def _raw(_: Any, value: Any, __: TortureGroup) -> bytes:
    _need(type(value) is str, "base64")
    try:
        raw = base64.b64decode(value, validate=True)
    except ValueError as exc:
        raise Garbage("base64") from exc
    _need(base64.b64encode(raw).decode() == value, "base64")
    return raw


def _day(_: Any, value: Any, __: TortureGroup) -> int:
    _need(type(value) is str and _DAY.fullmatch(value) is not None, "date")
    try:
        return (date.fromisoformat(value) - _EPOCH).days
    except ValueError as exc:
        raise Garbage("date") from exc


def _ticks(declared: Any, value: Any, group: TortureGroup) -> int:
    """A time: ticks, or text with an offset."""
    if type(value) is str:
        unit_us = group.time_unit_us if declared == group.fields["at"] else 1000
        return int(datetime.fromisoformat(value).timestamp()) * 1_000_000 // unit_us  # ours are whole seconds
    return _integer(value, 64)


def _long(declared: Any, value: Any, group: TortureGroup) -> int:
    return _ticks(declared, value, group) if declared == group.fields["at"] else _integer(value, 64)


def _double(_: Any, value: Any, __: TortureGroup) -> float:
    _need(type(value) in (int, float), "number")
    return float(value)


def _boolean(_: Any, value: Any, __: TortureGroup) -> bool:
    _need(type(value) is bool, "boolean")
    return bool(value)


def _items(_: Any, value: Any, __: TortureGroup) -> list[int]:
    _need(type(value) is list, "array")
    return [_integer(each, 32) for each in value]


def _symbol(declared: Any, value: Any, _: TortureGroup) -> str:
    _need(value in declared["symbols"], "symbol")
    return str(value)


def _decimal(_: Any, value: Any, __: TortureGroup) -> bytes:
    _need(type(value) is str and re.fullmatch(r"-?\d{1,7}\.\d\d", value) is not None, "decimal")  # as ours are written
    unscaled = int(value.replace(".", ""))
    size = (unscaled if unscaled >= 0 else ~unscaled).bit_length() // 8 + 1
    return unscaled.to_bytes(size, "big", signed=True)


_FROM_JSON: dict[str, Callable[[Any, Any, TortureGroup], Any]] = {
    "string": _text,
    "bytes": _raw,
    "date": _day,
    "long": _long,
    "timestamp-millis": _ticks,
    "timestamp-micros": _ticks,
    "int": lambda _, value, __: _integer(value, 32),
    "double": _double,
    "boolean": _boolean,
    "array": _items,
    "enum": _symbol,
    "decimal": _decimal,
}


def _tombstone(group: TortureGroup, record: Logged) -> Happened:
    """A record without a value: the entity key is the message key, the time a header or the end of the millisecond."""
    if record.key is None:
        raise Garbage("a delete of nothing")
    keys = group.keys
    if len(keys) == 1:
        parts: list[Any] = [record.key.decode()]
    else:
        parts = json.loads(record.key)
    key = tuple(
        _FROM_JSON[avro_kind(group.fields[name])[0]](group.fields[name], part, group)
        for name, part in zip(keys, parts, strict=True)
    )
    time_us = record.timestamp_ms * 1000 + 999
    for name, value in record.headers:
        if name == "oomstream.event_time":
            _need(value.isdigit(), "event time of a delete")
            time_us = int(value)
    return Happened(key, time_us, True, ())
