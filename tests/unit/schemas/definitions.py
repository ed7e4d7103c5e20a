"""Definitions and values for the tests of schemas: fixed ones, and Hypothesis strategies for any."""

from __future__ import annotations

import base64
import string
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from hypothesis import strategies as st

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.catalog import Catalog, Entity, RegisteredGroup, WriterSchema
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.decode import Decoder, EventLimits
from oomstream.schemas.events import Decoded, RawRecord
from oomstream.schemas.framing import frame
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.types import Kind, ValueType

NOW_MS = 1_700_000_000_000
"""Kafka timestamp of the tests' records."""

EVENT_TIME_US = NOW_MS * 1000 - 5_000_000
"""An event time that is accepted with it."""

MICROS = {"type": "long", "logicalType": "timestamp-micros"}
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
DATE = {"type": "int", "logicalType": "date"}


def field(name: str, kind: Any, **attributes: Any) -> dict[str, Any]:
    """One field of a record schema."""
    return {"name": name, "type": kind, **attributes}


def schema(*features: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    """A definition of group `ride`: key `id` (string), event time `at` (micros; not in a batch group), `features`."""
    is_batch = attributes.get("category") == "batch"
    time = [] if is_batch else [field("at", MICROS)]
    return {
        "type": "record",
        "name": "ride",
        "entity": "driver",
        "keys": ["id"],
        **({} if is_batch else {"event_time": "at"}),
        "fields": [field("id", "string"), *time, *features],
        **attributes,
    }


def registered(*versions: Mapping[str, Any]) -> RegisteredGroup:
    """A registered group whose definitions were `versions`, the last one the newest."""
    groups = [group_from_avsc(dict(each)) for each in versions]
    writers = {
        each.fingerprint: WriterSchema(number, each.fingerprint, each.schema) for number, each in enumerate(groups, 1)
    }
    return RegisteredGroup(replace(groups[-1], id=1, version=len(groups)), writers)


def catalog(*groups: FeatureGroup) -> Catalog:
    """A catalog that holds these groups, and their entities."""
    entities = {each.entity: Entity(each.entity, each.keys, id=1) for each in groups}
    by_name = {
        each.name: RegisteredGroup(each, {each.fingerprint: WriterSchema(1, each.fingerprint, each.schema)})
        for each in groups
    }
    return Catalog(entities, by_name)


def decode(
    group: RegisteredGroup, *values: bytes | None, registry: Mapping[int, Any] | None = None, key: bytes | None = None
) -> Decoded:
    """Decode messages of these values, at offsets from 0, in order."""
    decoder = Decoder(group, EventLimits(), registry)
    return decoder.decode([RawRecord(offset, key, value, NOW_MS) for offset, value in enumerate(values)])


def message(group: RegisteredGroup, **values: Any) -> bytes:
    """A framed event of these values, with a key and an event time of its own."""
    encoded = BodyCodec(group).encode_python({"id": "a", "at": EVENT_TIME_US, **values})
    return frame(group.group.fingerprint, encoded.body)


class AnyType(NamedTuple):
    """A type for a feature: its Avro schema and its values in python form."""

    avro: Any
    values: st.SearchStrategy[Any]


def _decimal(name: str) -> st.SearchStrategy[AnyType]:
    @st.composite
    def build(draw: st.DrawFn) -> AnyType:
        precision = draw(st.integers(1, 38))
        scale = draw(st.integers(0, precision))
        unscaled = st.integers(-(10**precision) + 1, 10**precision - 1)
        values = unscaled.map(lambda number: Decimal((number < 0, tuple(map(int, str(abs(number)))), -scale)))
        logical = {"logicalType": "decimal", "precision": precision, "scale": scale}
        if draw(st.booleans()):
            return AnyType({"type": "bytes", **logical}, values)
        return AnyType({"type": "fixed", "name": name, "size": draw(st.integers(16, 18)), **logical}, values)

    return build()


def _scalars(name: str) -> st.SearchStrategy[AnyType]:
    text = st.text(max_size=12)
    days = st.dates()
    millis = st.integers(-62_135_596_800_000, 253_402_300_799_999).map(
        lambda ms: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    )
    symbols = st.lists(st.text(string.ascii_letters, min_size=1, max_size=4), min_size=1, max_size=80, unique=True)
    return st.one_of(
        st.sampled_from(
            [
                AnyType("boolean", st.booleans()),
                AnyType("int", st.integers(-(1 << 31), (1 << 31) - 1)),
                AnyType("long", st.integers(-(1 << 63), (1 << 63) - 1)),
                AnyType("float", st.floats(width=32, allow_nan=False, allow_infinity=False)),
                AnyType("double", st.floats(allow_nan=False, allow_infinity=False)),
                AnyType("string", text),
                AnyType("bytes", st.binary(max_size=12)),
                AnyType(DATE, days),
                AnyType(MILLIS, millis),
                AnyType(MICROS, st.datetimes(timezones=st.just(UTC))),
            ]
        ),
        _decimal(f"{name}_decimal"),
        symbols.map(
            lambda each: AnyType({"type": "enum", "name": f"{name}_enum", "symbols": each}, st.sampled_from(each))
        ),
    )


def any_type(name: str) -> st.SearchStrategy[AnyType]:
    """Any type of the type table, nullable or not."""
    scalar = _scalars(name)
    arrays = scalar.map(lambda item: AnyType({"type": "array", "items": item.avro}, st.lists(item.values, max_size=70)))
    plain = scalar | arrays
    null_first = plain.map(lambda each: AnyType(["null", each.avro], st.none() | each.values))
    null_last = plain.map(lambda each: AnyType([each.avro, "null"], st.none() | each.values))
    return st.one_of(plain, null_first, null_last)


_KEYS = [
    AnyType("string", st.text(min_size=1, max_size=20)),
    AnyType("bytes", st.binary(min_size=1, max_size=20)),
    AnyType("int", st.integers(-(1 << 31), (1 << 31) - 1)),
    AnyType("long", st.integers(-(1 << 63), (1 << 63) - 1)),
    AnyType(DATE, st.dates()),
]
_UNITS: list[tuple[dict[str, Any], int]] = [
    ({"type": MICROS}, 1),
    ({"type": MILLIS}, 1000),
    ({"type": "long", "unit": "us"}, 1),
    ({"type": "long", "unit": "ms"}, 1000),
    ({"type": "long", "unit": "s"}, 1_000_000),
]


class AnyGroup(NamedTuple):
    """A definition and its events' values in python form, by field."""

    schema: dict[str, Any]
    events: st.SearchStrategy[dict[str, Any]]


@st.composite
def any_group(draw: st.DrawFn, max_features: int = 6) -> AnyGroup:
    """Any group: any keys, any event-time unit, any features, in any order of fields."""
    keys = draw(st.lists(st.sampled_from(_KEYS), min_size=1, max_size=3))
    attributes, unit_us = draw(st.sampled_from(_UNITS))
    kinds = [draw(any_type(f"f{number}")) for number in range(draw(st.integers(0, max_features)))]
    key_names = [f"k{number}" for number in range(len(keys))]
    fields = [field(name, each.avro) for name, each in zip(key_names, keys, strict=True)]
    fields.append({"name": "at", **attributes})
    fields += [field(f"f{number}", each.avro) for number, each in enumerate(kinds)]
    values = dict(zip(key_names, (each.values for each in keys), strict=True))
    values["at"] = st.integers(946_684_800_000_000, NOW_MS * 1000).map(lambda us: us // unit_us)
    values |= {f"f{number}": each.values for number, each in enumerate(kinds)}
    declared: dict[str, Any] = {
        "type": "record",
        "name": "anything",
        "entity": "thing",
        "keys": key_names,
        "event_time": "at",
        "fields": draw(st.permutations(fields)),
    }
    return AnyGroup(declared, st.fixed_dictionaries(values))


def json_form(kind: ValueType, value: Any) -> Any:
    """What a JSON event holds for a value in python form."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return base64.b64encode(value).decode()
        case Decimal():
            return f"{value:f}"
        case datetime() | date():
            return value.isoformat()
        case list():
            assert kind.item is not None
            return [json_form(kind.item, each) for each in value]
    raise AssertionError(value)


def plain_zero(kind: ValueType, value: Any) -> Any:
    """A value as it comes back: negative zero has lost its sign."""
    return value + 0.0 if kind.kind in {Kind.FLOAT, Kind.DOUBLE} and value is not None else value
