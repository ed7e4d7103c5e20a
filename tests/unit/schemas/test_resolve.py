"""Events written with other schemas: older definitions, and whatever a Schema Registry holds."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import pytest

from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.decode import Decoder, EventLimits
from oomstream.schemas.errors import Reason
from oomstream.schemas.events import RawRecord
from oomstream.schemas.framing import frame, frame_confluent
from tests.unit.schemas.definitions import (
    DATE,
    EVENT_TIME_US,
    MICROS,
    MILLIS,
    NOW_MS,
    decode,
    field,
    registered,
    schema,
)

WORD = {"type": "enum", "name": "word", "symbols": ["on", "off"]}
PRICE = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}


def written(definition: dict[str, Any], **values: Any) -> bytes:
    """A body that fastavro writes with a schema."""
    out = io.BytesIO()
    parsed = fastavro.parse_schema({key: definition[key] for key in ("type", "name", "fields")})
    fastavro.schemaless_writer(out, parsed, {"id": "a", "at": EVENT_TIME_US, **values})
    return out.getvalue()


def resolved(reader: Any, writer: Any, value: Any) -> Any:
    """The plain value, or the reason, of a value that a registry's schema wrote into the field `f`."""
    writer_schema = schema(field("f", writer), field("extra", "double"))
    body = written(writer_schema, f=value, extra=1.0)
    group = registered(schema(field("f", reader)))
    decoded = decode(group, frame_confluent(9, body), frame_confluent(9, body), registry={9: writer_schema})
    if decoded.rejected:
        return decoded.rejected[0].error.reason
    event = decoded.events[1]
    assert BodyCodec(group).encode(event.key, event.event_time_us, event.values) == event.body
    return event.values[0]


@pytest.mark.parametrize(
    ("reader", "writer", "value", "expected"),
    [
        ("int", "int", 5, 5),
        ("long", "int", 5, 5),
        ("double", "int", 5, 5.0),
        ("double", "long", 1 << 53, float(1 << 53)),
        ("double", "long", (1 << 53) + 1, Reason.OUT_OF_RANGE),
        ("float", "long", 1 << 24, float(1 << 24)),
        ("float", "int", (1 << 24) + 1, Reason.OUT_OF_RANGE),
        ("double", "float", 0.5, 0.5),
        ("float", "double", 0.5, Reason.UNSUPPORTED_SCHEMA),
        ("int", "long", 5, Reason.UNSUPPORTED_SCHEMA),
        ("bytes", "string", "é", "é".encode()),
        ("string", "bytes", "é".encode(), "é"),
        ("string", "bytes", b"\xff", Reason.INVALID_TEXT),
        ("string", "int", 5, Reason.UNSUPPORTED_SCHEMA),
        (["null", "long"], "int", 5, 5),
        (["null", "long"], ["int", "null"], None, None),
        ("long", ["null", "long"], 5, 5),
        ("long", ["null", "long"], None, Reason.NULL_REQUIRED),
        (WORD, {"type": "enum", "name": "x", "symbols": ["off", "on", "new"]}, "on", "on"),
        (WORD, {"type": "enum", "name": "x", "symbols": ["off", "on", "new"]}, "new", Reason.UNKNOWN_SYMBOL),
        ({"type": "array", "items": "long"}, {"type": "array", "items": "int"}, [1, 2], "[1,2]"),
        ({"type": "array", "items": "long"}, {"type": "array", "items": "string"}, [], Reason.UNSUPPORTED_SCHEMA),
        (MICROS, "long", 5, 5),
        (MICROS, "int", 5, 5),
        ("long", MICROS, 5, 5),
        (MICROS, MILLIS, 5, Reason.UNSUPPORTED_SCHEMA),
        (MICROS, {"type": "long", "logicalType": "local-timestamp-micros"}, 5, Reason.UNSUPPORTED_SCHEMA),
        ("long", {"type": "long", "logicalType": "time-micros"}, 5, 5),
        ("string", {"type": "string", "logicalType": "uuid"}, "a", "a"),
        (DATE, "int", 5, 5),
        (PRICE, PRICE | {"precision": 4}, b"\x05", "0.05"),
        (PRICE | {"precision": 4}, PRICE, b"\x01\x00\x00", Reason.OUT_OF_RANGE),
        (PRICE, PRICE | {"scale": 3}, b"\x05", Reason.UNSUPPORTED_SCHEMA),
        (PRICE, PRICE | {"type": "fixed", "name": "p", "size": 4}, b"\0\0\0\x05", "0.05"),
        ("long", {"type": "map", "values": "long"}, {}, Reason.UNSUPPORTED_SCHEMA),
        ("long", ["null", "long", "string"], 5, Reason.UNSUPPORTED_SCHEMA),
    ],
)
def test_promotions(reader: Any, writer: Any, value: Any, expected: Any) -> None:
    """A registry's schema resolves to the definition as Avro says, to the same value or not at all."""
    if isinstance(writer, dict) and writer.get("logicalType") not in (None, "uuid"):
        # fastavro would convert what it is given; bytes and integers are written as they are.
        found = resolved_raw(reader, writer, value)
    else:
        found = resolved(reader, writer, value)
    assert found == expected
    assert type(found) is type(expected)


def resolved_raw(reader: Any, writer: Any, value: Any) -> Any:
    """As `resolved`, for a writer's type whose values are written without its logical type."""
    bare = {key: each for key, each in writer.items() if key not in ("logicalType", "precision", "scale")}
    body = written(schema(field("f", bare), field("extra", "double")), f=value, extra=1.0)
    writer_schema = schema(field("f", writer), field("extra", "double"))
    group = registered(schema(field("f", reader)))
    decoded = decode(group, frame_confluent(9, body), registry={9: writer_schema})
    return decoded.rejected[0].error.reason if decoded.rejected else decoded.events[0].values[0]


def test_fields_of_only_one_side() -> None:
    """A field that only the writer has is dropped, one that only the reader has takes its default, or is refused."""
    writer = schema(field("other", "string"))
    body = written(writer, other="x")
    reader = registered(schema(field("f", "int", default=7), field("g", ["null", "int"])))
    (event,) = decode(reader, frame_confluent(9, body), registry={9: writer}).events
    assert event.values == (7, None)
    required = registered(schema(field("f", "int")))
    (rejected,) = decode(required, frame_confluent(9, body), registry={9: writer}).rejected
    assert rejected.error.reason is Reason.UNSUPPORTED_SCHEMA
    assert "ride.f is not in the writer's schema" in str(rejected.error)


@pytest.mark.parametrize("attributes", [{"type": MILLIS}, {"type": "long", "unit": "ms"}])
def test_an_event_time_of_another_unit_is_refused(attributes: dict[str, Any]) -> None:
    """A registry's schema whose event time is in another unit is refused as a schema, not event by event."""
    writer = schema()
    writer["fields"][1] = {"name": "at", **attributes}
    (rejected,) = decode(registered(schema()), frame_confluent(9, b"\x02a\x02"), registry={9: writer}).rejected
    assert rejected.error.reason is Reason.UNSUPPORTED_SCHEMA
    assert "ride.at is in us" in str(rejected.error)


def test_the_same_schema_from_a_registry_keeps_the_body() -> None:
    """The definition itself, under another name and namespace, gives the very event that single-object Avro gives."""
    group = registered(schema(field("f", WORD)))
    body = BodyCodec(group).encode_python({"id": "a", "at": EVENT_TIME_US, "f": "on"}).body
    registry = {3: schema(field("f", WORD | {"name": "Other"}), namespace="org") | {"name": "Value"}}
    decoded = decode(group, frame(group.group.fingerprint, body), frame_confluent(3, body), registry=registry)
    one, two = decoded.events
    assert one[1:] == two[1:]


def test_defaults_of_a_writers_schema_do_not_matter() -> None:
    """A default of a registry's schema that no value of the type can be is nobody's business."""
    writer = schema(field("f", "int", default="x"))
    body = written(schema(field("f", "int")), f=1)
    assert (
        len(decode(registered(schema(field("f", "int"))), frame_confluent(9, body), registry={9: writer}).events) == 1
    )


def test_a_registry_may_be_filled_between_batches() -> None:
    """A schema id that was unknown is known once the caller has added it, without a new decoder."""
    group = registered(schema())
    body = BodyCodec(group).encode_python({"id": "a", "at": EVENT_TIME_US}).body
    registry: dict[int, Any] = {}
    decoder = Decoder(group, EventLimits(), registry)
    records = [RawRecord(0, None, frame_confluent(4, body), NOW_MS)]
    assert decoder.decode(records).unknown_schema_ids == {4}
    registry[4] = schema()
    assert len(decoder.decode(records).events) == 1


def test_events_of_older_definitions() -> None:
    """An event written with an older definition is an event in the terms of the newest, body included."""
    one = schema(field("gone", "double"), field("speed", "double"))
    two = schema(field("speed", "double"), field("count", "int", default=7))
    group = registered(one, two)
    older = BodyCodec(registered(one))
    values = {"id": "a", "at": EVENT_TIME_US, "gone": 1.0, "speed": 2.0}
    message = frame(older.group.fingerprint, older.encode_python(values).body)
    (event,) = decode(group, message).events
    newest = BodyCodec(group).encode_python({"id": "a", "at": EVENT_TIME_US, "speed": 2.0})
    assert (event.values, event.body) == ((2.0, 7), newest.body)


def test_a_dropped_field_must_be_valid_as_well() -> None:
    """A value outside its type's range makes an event invalid even in a field that is no longer read."""
    one, two = schema(field("gone", "double")), schema()
    older = BodyCodec(registered(one))
    good = older.encode_python({"id": "a", "at": EVENT_TIME_US, "gone": 1.0}).body
    bad = good[:-8] + b"\0\0\0\0\0\0\xf8\x7f"
    decoded = decode(registered(one, two), *(frame(older.group.fingerprint, body) for body in (good, bad, good)))
    assert [each.sequence for each in decoded.events] == [0, 2]
    assert decoded.rejected[0].error.reason is Reason.NOT_FINITE
