"""Records that must be refused: one way or more for every reason that bytes alone can give."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from fastavro import schemaless_writer

from tests.torture.groups import TortureGroup

if TYPE_CHECKING:
    from tests.torture.stream import Headers

_FAR_S = 4_102_444_800  # the year 2100
_LARGE = 1 << 20
LARGE_SHARE = 0.005
"""Share of the garbage that is longer than 1 MiB."""


@dataclass(frozen=True, slots=True)
class Bad:
    """A record that must be refused.

    Attributes:
        reason: Its reason code.
        value: Message value.
        keyed: Whether the message key matters, and is `key`.
        key: Message key.
        headers: Message headers.
    """

    reason: str
    value: bytes | None
    keyed: bool = False
    key: bytes | None = None
    headers: Headers = ()


Event = dict[str, Any]
Make = Callable[[TortureGroup, random.Random, Event], Bad]


def garbage(group: TortureGroup, chance: random.Random, event: Event) -> Bad:
    """One record that must be refused, made from an event that would not be."""
    if chance.random() < LARGE_SHARE:
        return Bad("too_large", b'{"extra": "%s"}' % (b" " * _LARGE))
    return chance.choice(_KINDS)(group, chance, event)


def _body(group: TortureGroup, event: Event) -> bytes:
    body = BytesIO()
    schemaless_writer(body, group.bare, event)
    return body.getvalue()


def _avro(group: TortureGroup, event: Event, **changed: Any) -> bytes:
    return group.header + _body(group, {**event, **changed})


def _without_last(group: TortureGroup, event: Event) -> bytes:
    """A body that lacks its last field, which is null: one byte."""
    return _body(group, {**event, list(event)[-1]: None})[:-1]


def _json(group: TortureGroup, event: Event, **changed: Any) -> bytes:
    from tests.torture.stream import json_object

    return json.dumps({**json_object(group, event, random.Random(0)), **changed}).encode()


def _json_without(group: TortureGroup, event: Event, name: str) -> bytes:
    from tests.torture.stream import json_object

    found = json_object(group, event, random.Random(0))
    del found[name]
    return json.dumps(found).encode()


_REQUIRED = {"plane": "delay", "sensor": "level", "fare": "seats"}
_TEXT_KEY = {"plane": "tail", "sensor": "slot", "fare": "zone"}
_TOO_GREAT = {"plane": ("delay", 1 << 63), "sensor": ("site", 1 << 63), "fare": ("seats", 1 << 31)}


def _empty_key(group: TortureGroup, _: random.Random, event: Event) -> Bad:
    name = _TEXT_KEY[group.name]
    return Bad("key_empty", _avro(group, event, **{name: type(event[name])()}))


def _long_key(group: TortureGroup, _: random.Random, event: Event) -> Bad:
    name = _TEXT_KEY[group.name]
    return Bad("key_too_long", _avro(group, event, **{name: "é" * 128 if name != "slot" else b"k" * 256}))


def _invalid_text(group: TortureGroup, _: random.Random, event: Event) -> Bad:
    if group.name != "plane":
        return Bad("invalid_text", b'{"at": "\xff"}')
    return Bad("invalid_text", group.header + b"\x04\xc3\x28" + _body(group, {**event, "tail": ""})[1:])


def _not_finite(group: TortureGroup, _: random.Random, event: Event) -> Bad:
    if group.name != "sensor":
        return Bad("not_finite", b'{"extra": 1e999}')
    return Bad("not_finite", _avro(group, event, level=float("nan")))


def _unknown_symbol(group: TortureGroup, chance: random.Random, event: Event) -> Bad:
    if group.name != "fare":
        return _not_finite(group, chance, event)
    return Bad("unknown_symbol", _json(group, event, state="GONE"))


def _seconds(group: TortureGroup, seconds: int) -> int:
    return seconds * 1_000_000 // group.time_unit_us


_KINDS: tuple[Make, ...] = (
    lambda _group, _chance, _event: Bad("empty_value", b""),
    lambda _group, chance, _event: Bad("unknown_framing", b"garbage" + chance.randbytes(20)),
    lambda group, _chance, event: Bad("unknown_framing", b"\xc3\x02" + _avro(group, event)[2:]),
    lambda group, _chance, event: Bad("truncated", group.header + _without_last(group, event)),
    lambda group, _chance, event: Bad("truncated", _json(group, event)[:-1]),
    lambda _group, _chance, _event: Bad("truncated", b"\xc3\x01abc"),
    lambda group, _chance, event: Bad("trailing_bytes", _avro(group, event) + b"\0"),
    lambda group, _chance, event: Bad("malformed_avro", group.header + _without_last(group, event) + b"\x04"),
    lambda group, _chance, event: Bad("malformed_json", _json(group, event)[:-1] + b",}"),
    lambda group, _chance, event: Bad("duplicate_field", _json(group, event)[:-1] + b', "at": 1}'),
    _invalid_text,
    lambda group, chance, event: Bad("unknown_fingerprint", b"\xc3\x01" + chance.randbytes(8) + _body(group, event)),
    lambda group, _chance, event: Bad("unknown_schema_id", b"\0\0\0\0\x07" + _body(group, event)),
    lambda group, _chance, event: Bad("missing_field", _json_without(group, event, _REQUIRED[group.name])),
    lambda group, _chance, event: Bad("wrong_type", _json(group, event, **{_REQUIRED[group.name]: "1"})),
    lambda group, _chance, event: Bad("wrong_type", b"[]"),
    lambda group, _chance, event: Bad("out_of_range", _json(group, event, **dict([_TOO_GREAT[group.name]]))),
    _not_finite,
    _unknown_symbol,
    lambda group, _chance, event: Bad("null_required", _json(group, event, **{_REQUIRED[group.name]: None})),
    lambda group, _chance, event: Bad("too_deep", _json(group, event)[:-1] + b', "x": ' + b"[" * 70 + b"]" * 70 + b"}"),
    lambda group, _chance, event: Bad("key_missing", _json_without(group, event, _TEXT_KEY[group.name])),
    lambda group, _chance, event: Bad("key_missing", None, keyed=True),
    _empty_key,
    _long_key,
    lambda group, _chance, event: Bad("event_time_too_old", _avro(group, event, at=_seconds(group, 86_400))),
    lambda group, _chance, event: Bad("event_time_in_future", _json(group, event, at=_seconds(group, _FAR_S))),
    lambda group, _chance, event: Bad("wrong_type", None, headers=(("oomstream.event_time", b"soon"),)),
)
