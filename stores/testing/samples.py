"""Definitions and events for the conformance suites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.events import Event, Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.keys import encode_entity

TIME_US = 1_600_000_000_000_000
"""An event time to count from."""

_MICROS = {"type": "long", "logicalType": "timestamp-micros"}
_DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 10}

TYPES: dict[str, Any] = {
    "a_boolean": "boolean",
    "an_int": "int",
    "a_long": "long",
    "a_float": "float",
    "a_double": "double",
    "a_string": "string",
    "some_bytes": "bytes",
    "a_date": {"type": "int", "logicalType": "date"},
    "a_millis": {"type": "long", "logicalType": "timestamp-millis"},
    "a_micros": _MICROS,
    "a_decimal": _DECIMAL,
    "an_enum": {"type": "enum", "name": "colour", "symbols": ["RED", "GREEN"]},
    "an_array": {"type": "array", "items": "double"},
}
"""One nullable feature of each type, by name."""

EXTREMES: dict[str, Sequence[Plain]] = {
    "a_boolean": (True, False, None),
    "an_int": (-(1 << 31), (1 << 31) - 1, 0),
    "a_long": (-(1 << 63), (1 << 63) - 1, (1 << 53) + 1),
    # No negative zero: decoding makes it 0.0 (`ValueType.canonical`), because servers do not keep its sign.
    "a_float": (0.0, 3.4028234663852886e38, 1.401298464324817e-45),
    "a_double": (0.0, 5e-324, 1.7976931348623157e308, 0.1, 7.0),
    "a_string": ("", "a ", " a", "nul \0 inside", "ü𝕏🚀\u202e", "'; DROP TABLE source; --", '\\%_"`', "x" * 70_000),
    "some_bytes": (b"", bytes(range(256)), b"\0" * 1000),
    "a_date": (-719_162, 2_932_896, 0),
    "a_millis": (-62_135_596_800_000_000, 253_402_300_799_999_000, -1000),
    "a_micros": (-62_135_596_800_000_000, 253_402_300_799_999_999, -1),
    "a_decimal": ("-9999999999999999999999999999.9999999999", "0.0000000001", "0.0000000000"),
    "an_enum": ("RED", "GREEN", None),
    "an_array": ("[]", "[0.1,-0.0,1.5]", None),
}
"""Values in plain form at which stores go wrong, by feature."""


def group(
    name: str = "plane", features: dict[str, Any] | None = None, keys: dict[str, Any] | None = None, **attributes: Any
) -> FeatureGroup:
    """An unregistered group.

    Args:
        name: Its name.
        features: Avro type by name, or a whole field where it has a default; default one long, ``n``.
        keys: Avro type by name; default one string, ``k``.
        **attributes: More attributes of the record, such as ``ttl`` or ``topic``; with ``category="batch"`` the group
            has no event time.
    """
    keys = {"k": "string"} if keys is None else keys
    features = {"n": "long"} if features is None else features
    fields = [{"name": key, "type": kind} for key, kind in keys.items()]
    if attributes.get("category") != "batch":
        attributes = {"event_time": "at", **attributes}
        fields.append({"name": "at", "type": _MICROS})
    fields += [
        {"name": each, **kind} if isinstance(kind, dict) and "default" in kind else {"name": each, "type": kind}
        for each, kind in features.items()
    ]
    entity = attributes.pop("entity", name)
    return group_from_avsc(
        {"type": "record", "name": name, "entity": entity, "keys": list(keys), **attributes} | {"fields": fields}
    )


def all_types() -> FeatureGroup:
    """A group with one nullable feature of each type."""
    return group("all_types", {name: ["null", kind] for name, kind in TYPES.items()})


def extreme_rows() -> list[tuple[Plain, ...]]:
    """Values of the features of `all_types`: rows that hold all of `EXTREMES`, and nulls where there are no more."""
    width = max(map(len, EXTREMES.values()))
    return [tuple((*extremes, *[None] * width)[at] for extremes in EXTREMES.values()) for at in range(width)]


def event(
    sequence: int, key: Plain | tuple[Plain, ...] = "a", time: int = 0, *values: Plain, deleted: bool = False
) -> Event:
    """An event; its values default to its sequence, for groups whose only feature is a long.

    Args:
        sequence: Its place in its source.
        key: Entity key in plain form, or the only part of it.
        time: Event time in microseconds after `TIME_US`.
        *values: Plain values.
        deleted: Whether it is a delete.
    """
    parts = key if isinstance(key, tuple) else (key,)
    plain = () if deleted else (values or (sequence,))
    return Event(sequence, parts, encode_entity(parts), TIME_US + time, deleted, plain, b"")
