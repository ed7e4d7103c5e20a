"""The groups of the torture: three kinds of entity keys, and a feature of nearly every type."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from fastavro import parse_schema
from fastavro.schema import fingerprint, to_parsing_canonical_form

Avsc = dict[str, Any]

PLANE: Avsc = {
    "type": "record",
    "name": "plane",
    "entity": "plane",
    "keys": ["tail"],
    "event_time": "at",
    "fields": [
        {"name": "tail", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "delay", "type": "long"},
        {"name": "carrier", "type": ["null", "string"]},
    ],
}
SENSOR: Avsc = {
    "type": "record",
    "name": "sensor",
    "entity": "place",
    "keys": ["site", "slot"],
    "event_time": "at",
    "fields": [
        {"name": "site", "type": "long"},
        {"name": "slot", "type": "bytes"},
        {"name": "at", "type": "long", "unit": "s"},
        {"name": "level", "type": "double"},
        {"name": "trace", "type": {"type": "array", "items": "int"}},
        {"name": "ok", "type": ["null", "boolean"]},
    ],
}
FARE: Avsc = {
    "type": "record",
    "name": "fare",
    "entity": "zone",
    "keys": ["day", "zone"],
    "event_time": "at",
    "fields": [
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "zone", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "seats", "type": "int"},
        {"name": "state", "type": {"type": "enum", "name": "fare_state", "symbols": ["OPEN", "HELD", "SOLD"]}},
        {"name": "seen", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {
            "name": "price",
            "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}],
        },
    ],
}
NAMES: tuple[str, ...] = ("plane", "sensor", "fare")
"""Names of the groups, in order."""

_UNIT_US = {"s": 1_000_000, "timestamp-millis": 1_000, "timestamp-micros": 1}


@dataclass(frozen=True)
class TortureGroup:
    """One group, and what plain Avro makes of it.

    The last field of every group is nullable, and nothing has a default.

    Attributes:
        topic: Its topic.
        avsc: Its definition.
        bare: Its schema without logical types, for fastavro: times, dates and decimals come as they are encoded.
        header: What a single-object encoded event begins with.
    """

    topic: str
    avsc: Avsc
    bare: Any = field(repr=False)
    header: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.avsc["name"])

    @property
    def keys(self) -> list[str]:
        """Its key fields, in order."""
        return list(self.avsc["keys"])

    @property
    def fields(self) -> dict[str, Any]:
        """Type by field."""
        return {each["name"]: each["type"] for each in self.avsc["fields"]}

    @property
    def features(self) -> list[str]:
        """Every field that is neither key nor event time, in order."""
        return [name for name in self.fields if name not in self.keys and name != "at"]

    @property
    def time_unit_us(self) -> int:
        """Microseconds of one tick of the event time."""
        [time] = [each for each in self.avsc["fields"] if each["name"] == "at"]
        return _UNIT_US[time["unit"] if "unit" in time else time["type"]["logicalType"]]


def torture_groups(partitions: int, suffix: str = "") -> dict[str, TortureGroup]:
    """The groups by name.

    Args:
        partitions: Of each topic, at the beginning.
        suffix: Makes the topics' names unlike those of other runs.
    """
    groups = {}
    for definition in (PLANE, SENSOR, FARE):
        avsc = {**definition, "topic": f"{definition['name']}{suffix}", "partitions": partitions}
        canonical = to_parsing_canonical_form(avsc)
        header = b"\xc3\x01" + bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))
        groups[avsc["name"]] = TortureGroup(avsc["topic"], avsc, parse_schema(_bare(avsc)), header)
    return groups


def _bare(schema: Any) -> Any:
    """A schema without logical types."""
    if isinstance(schema, list):
        return [_bare(each) for each in schema]
    if isinstance(schema, dict):
        left = {name: _bare(value) for name, value in copy.deepcopy(schema).items() if name != "logicalType"}
        return left["type"] if left.keys() <= {"type", "precision", "scale"} and "name" not in left else left
    return schema


def avro_kind(declared: Any) -> tuple[str, bool]:
    """Short name of a field's type, logical types by theirs, and whether it may be null."""
    nullable = isinstance(declared, list)
    inner = declared[1] if nullable else declared
    kind = inner if isinstance(inner, str) else inner.get("logicalType", inner["type"])
    return str(kind), nullable
