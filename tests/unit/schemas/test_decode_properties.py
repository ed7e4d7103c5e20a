"""Properties of decoding: any group, any values, any damage."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomstream.schemas import strict
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.decode import Decoder, EventLimits
from oomstream.schemas.events import Decoded, RawRecord
from oomstream.schemas.framing import frame, frame_confluent, tombstone_key
from oomstream.schemas.layout import read_fields
from oomstream.schemas.types import MAX_TIME_US, MIN_TIME_US
from tests.unit.schemas.bombs import varint
from tests.unit.schemas.definitions import NOW_MS, AnyGroup, any_group, json_form, plain_zero, registered

ANY_GROUP = any_group()


def records_of(values: list[bytes]) -> list[RawRecord]:
    """Records of these values, at offsets from 0."""
    return [RawRecord(offset, None, value, NOW_MS) for offset, value in enumerate(values)]


def outline(decoded: Decoded) -> tuple[Any, ...]:
    """What can be compared: events, and where and why records were rejected."""
    return decoded.events, [(each.record.offset, each.error.reason, str(each.error)) for each in decoded.rejected]


def slow(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave only the slow and exact way."""
    monkeypatch.setattr(decoder, "_together", lambda *_: None)


@settings(deadline=None)
@given(st.data())
def test_any_values_come_back_from_every_framing(data: st.DataObject) -> None:
    """Any values of any group, encoded, framed in all three ways and decoded, are the same plain values and body."""
    any_one: AnyGroup = data.draw(ANY_GROUP)
    group = registered(any_one.schema)
    codec = BodyCodec(group)
    events = data.draw(st.lists(any_one.events, min_size=1, max_size=4))
    kinds = {each.name: each.type for each in read_fields(group.group.schema, where="test")}
    messages: list[bytes] = []
    expected = []
    for values in events:
        encoded = codec.encode_python(values)
        expected += [encoded] * 3
        messages.append(frame(group.group.fingerprint, encoded.body))
        messages.append(frame_confluent(7, encoded.body))
        messages.append(orjson.dumps({name: json_form(kinds[name], value) for name, value in values.items()}))
    decoder = Decoder(group, EventLimits(), {7: any_one.schema})
    decoded = decoder.decode(records_of(messages))
    assert decoded.rejected == []
    for event, encoded in zip(decoded.events, expected, strict=True):
        assert event[1:] == (
            encoded.key,
            encoded.entity,
            encoded.event_time_us,
            False,
            encoded.values,
            encoded.body,
        )


@settings(deadline=None)
@given(st.data())
def test_every_codec_path_agrees(data: st.DataObject) -> None:
    """Plain values encode to the same body that reads back as them, and python values survive the whole way."""
    any_one: AnyGroup = data.draw(ANY_GROUP)
    group = registered(any_one.schema)
    codec = BodyCodec(group)
    values = data.draw(any_one.events)
    encoded = codec.encode_python(values)
    assert codec.encode(encoded.key, encoded.event_time_us, encoded.values) == encoded.body
    assert codec.read(group.group.fingerprint, encoded.body) == encoded.values
    for feature, plain in zip(group.group.features, encoded.values, strict=True):
        back = None if plain is None else feature.type.python_from_plain(plain)
        assert back == plain_zero(feature.type, values[feature.name])
    written: Any = fastavro.schemaless_reader(io.BytesIO(encoded.body), fastavro.parse_schema(any_one.schema), None)
    for feature in group.group.features:
        assert written[feature.name] == plain_zero(feature.type, values[feature.name])


@settings(deadline=None)
@given(st.data())
def test_a_tombstone_key_comes_back(data: st.DataObject) -> None:
    """The message key of any entity is read back as the same entity by a tombstone."""
    any_one: AnyGroup = data.draw(any_group(max_features=0))
    group = registered(any_one.schema)
    encoded = BodyCodec(group).encode_python(data.draw(any_one.events))
    key = tombstone_key(encoded.key, group.group.keys)
    decoded = Decoder(group, EventLimits()).decode([RawRecord(0, key, None, NOW_MS)])
    assert decoded.events[0][1:] == (encoded.key, encoded.entity, NOW_MS * 1000 + 999, True, (), b"")


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A message with something done to it, or none of it at all."""
    at = draw(st.integers(0, len(whole) - 1))
    match draw(st.integers(0, 5)):
        case 0:
            return whole[:at] + bytes([draw(st.integers(0, 255))]) + whole[at + 1 :]
        case 1:
            return whole[:at]
        case 2:
            return whole + draw(st.binary(min_size=1, max_size=3))
        case 3:
            return whole[:at] + draw(st.binary(max_size=3)) + whole[at:]
        case 4:
            return whole[:at] + whole[at + draw(st.integers(1, 3)) :]
    return whole


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_is_rejected_or_is_another_valid_event(data: st.DataObject) -> None:
    """A damaged message never raises, gets one verdict by every way, and its body is that of its values."""
    any_one: AnyGroup = data.draw(ANY_GROUP)
    group = registered(any_one.schema)
    codec = BodyCodec(group)
    fingerprint = group.group.fingerprint
    wholes = [
        frame(fingerprint, codec.encode_python(values).body)
        for values in data.draw(st.lists(any_one.events, min_size=1, max_size=3))
    ]
    messages = [data.draw(damaged(each)) for each in wholes]
    decoder = Decoder(group, EventLimits())
    together = decoder.decode(records_of(messages))
    assert len(together.events) + len(together.rejected) == len(messages)
    alone = [decoder.decode([each]) for each in records_of(messages)]
    assert outline(together) == (
        [event for each in alone for event in each.events],
        [one for each in alone for one in outline(each)[1]],
    )
    with pytest.MonkeyPatch.context() as patch:
        slow(decoder, patch)
        assert outline(decoder.decode(records_of(messages))) == outline(together)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict, "_MANY", 1)
        assert outline(decoder.decode(records_of(messages))) == outline(together)
    for event in together.events:
        assert codec.encode(event.key, event.event_time_us, event.values) == event.body
        assert codec.read(fingerprint, event.body) == event.values


@pytest.mark.parametrize("time_us", [MIN_TIME_US - 1, MAX_TIME_US + 1, -(2**62), 2**62])
@pytest.mark.parametrize("time_type", [{"type": "long", "logicalType": "timestamp-micros"}, "long"])
def test_times_beyond_every_date_get_one_verdict(time_us: int, time_type: Any) -> None:
    """An event time that no date can hold is rejected for one reason, alone, in a batch and by the slow way."""
    unit = {"unit": "us"} if time_type == "long" else {}
    group = registered(
        {
            "type": "record",
            "name": "beyond",
            "entity": "thing",
            "keys": ["k"],
            "event_time": "at",
            "fields": [{"name": "k", "type": "string"}, {"name": "at", "type": time_type, **unit}],
        }
    )
    bodies = [varint(1) + b"a" + varint(each) for each in (NOW_MS * 1000, time_us, NOW_MS * 1000)]
    messages = records_of([frame(group.group.fingerprint, each) for each in bodies])
    decoder = Decoder(group, EventLimits())
    together = decoder.decode(messages)
    assert [each.sequence for each in together.events] == [0, 2]
    assert [each.record.offset for each in together.rejected] == [1]
    assert outline(decoder.decode(messages[1:2]))[1] == outline(together)[1]
    with pytest.MonkeyPatch.context() as patch:
        slow(decoder, patch)
        assert outline(decoder.decode(messages)) == outline(together)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_older_events_get_one_verdict_too(data: st.DataObject) -> None:
    """Events of an older definition, whole or damaged, are the same events by the fast and by the slow way."""
    any_one: AnyGroup = data.draw(ANY_GROUP)
    fields = any_one.schema["fields"]
    gone = data.draw(
        st.sets(st.sampled_from([each["name"] for each in fields if each["name"].startswith("f")] or ["-"]))
    )
    newer = {
        **any_one.schema,
        "fields": [
            {"name": "added", "type": ["null", "int"]},
            *(each for each in fields if each["name"] not in gone),
            {"name": "filled", "type": "string", "default": "x"},
        ],
    }
    older = registered(any_one.schema)
    wholes = [
        frame(older.group.fingerprint, BodyCodec(older).encode_python(values).body)
        for values in data.draw(st.lists(any_one.events, min_size=1, max_size=3))
    ]
    group = registered(any_one.schema, newer)
    decoder = Decoder(group, EventLimits())
    assert decoder.decode(records_of(wholes)).rejected == []
    messages = wholes + [data.draw(damaged(each)) for each in wholes]
    together = decoder.decode(records_of(messages))
    with pytest.MonkeyPatch.context() as patch:
        slow(decoder, patch)
        assert outline(decoder.decode(records_of(messages))) == outline(together)
    for event in together.events:
        assert event.values[0] is None
        assert event.values[-1] == "x"
        assert BodyCodec(group).encode(event.key, event.event_time_us, event.values) == event.body


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_without_arrays_and_decimals_a_body_is_accepted_only_as_it_is(data: st.DataObject) -> None:
    """Where Avro has one encoding per value, whatever is accepted is kept byte for byte (but for negative zero)."""
    group = registered(SIMPLE)
    codec = BodyCodec(group)
    encoded = codec.encode_python(data.draw(SIMPLE_EVENTS))
    broken = data.draw(damaged(frame(group.group.fingerprint, encoded.body)))
    for event in Decoder(group, EventLimits()).decode(records_of([broken])).events:
        assert event.body == broken[10:]


SIMPLE: dict[str, Any] = {
    "type": "record",
    "name": "simple",
    "entity": "thing",
    "keys": ["k"],
    "event_time": "at",
    "fields": [
        {"name": "k", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "flag", "type": "boolean"},
        {"name": "small", "type": ["null", "int"]},
        {"name": "big", "type": ["long", "null"]},
        {"name": "word", "type": {"type": "enum", "name": "word_enum", "symbols": ["a", "b", "c"]}},
        {"name": "raw", "type": ["null", "bytes"]},
    ],
}
SIMPLE_EVENTS = st.fixed_dictionaries(
    {
        "k": st.text(min_size=1, max_size=5),
        "at": st.integers(NOW_MS * 1000 - 10**9, NOW_MS * 1000),
        "flag": st.booleans(),
        "small": st.none() | st.integers(-(1 << 31), (1 << 31) - 1),
        "big": st.none() | st.integers(-(1 << 63), (1 << 63) - 1),
        "word": st.sampled_from(["a", "b", "c"]),
        "raw": st.none() | st.binary(max_size=5),
    }
)


@pytest.mark.parametrize("kinds", [[], [{"type": "array", "items": "long"}, {"type": "array", "items": "string"}]])
def test_every_change_of_one_byte(kinds: list[Any]) -> None:
    """Each of the 255 other values of each byte of a message, and each shorter message, gets the right verdict."""
    arrays = [{"name": f"a{number}", "type": kind} for number, kind in enumerate(kinds)]
    group = registered({**SIMPLE, "fields": [*SIMPLE["fields"], *arrays]})
    codec = BodyCodec(group)
    values = {"k": "né", "at": NOW_MS * 1000, "flag": True, "small": -70, "big": 1 << 61, "word": "b", "raw": b"\0\xff"}
    values |= {each["name"]: [] if each["name"] == "a0" else ["x", "yz"] for each in arrays}
    whole = frame(group.group.fingerprint, codec.encode_python(values).body)
    messages = [whole[:at] + bytes([byte]) + whole[at + 1 :] for at in range(10, len(whole)) for byte in range(256)] + [
        whole[:at] for at in range(len(whole))
    ]
    decoder = Decoder(group, EventLimits())
    together = decoder.decode(records_of(messages))
    with pytest.MonkeyPatch.context() as patch:
        slow(decoder, patch)
        assert outline(decoder.decode(records_of(messages))) == outline(together)
    assert len(together.events) > len(whole)
    for event in together.events:
        assert codec.encode(event.key, event.event_time_us, event.values) == event.body
        if not arrays:
            assert event.body == messages[event.sequence][10:]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_json_is_rejected_or_agrees_with_the_slow_way(data: st.DataObject) -> None:
    """A damaged JSON message never raises, and the fast and the slow way give the same verdict."""
    any_one: AnyGroup = data.draw(ANY_GROUP)
    group = registered(any_one.schema)
    codec = BodyCodec(group)
    kinds = {each.name: each.type for each in read_fields(group.group.schema, where="test")}
    messages = []
    for values in data.draw(st.lists(any_one.events, min_size=1, max_size=3)):
        whole = orjson.dumps({name: json_form(kinds[name], value) for name, value in values.items()})
        messages.append(data.draw(damaged(whole)))
    decoder = Decoder(group, EventLimits())
    together = decoder.decode(records_of(messages))
    assert len(together.events) + len(together.rejected) == len(messages)
    with pytest.MonkeyPatch.context() as patch:
        slow(decoder, patch)
        assert outline(decoder.decode(records_of(messages))) == outline(together)
    for event in together.events:
        assert codec.encode(event.key, event.event_time_us, event.values) == event.body


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["k", "at", "flag", "small", "big", "word", "raw", "x"]), JUNK))
def test_any_json_object_is_an_event_or_rejected(found: dict[str, Any]) -> None:
    """No JSON object raises, whatever its values are (NaN and integers of any size included)."""
    decoded = Decoder(registered(SIMPLE), EventLimits()).decode(records_of([json.dumps(found).encode()]))
    assert len(decoded.events) + len(decoded.rejected) == 1
