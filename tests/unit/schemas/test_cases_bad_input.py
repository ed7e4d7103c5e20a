"""Cases 1 to 5 of the list of what the product must survive: bad input, one dead letter each with a stable reason."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from oomstream.schemas.decode import Decoder, EventLimits
from oomstream.schemas.errors import Reason
from oomstream.schemas.events import RawRecord
from oomstream.schemas.framing import EVENT_TIME_HEADER, frame, frame_confluent
from tests.unit.schemas.definitions import EVENT_TIME_US, NOW_MS, decode, field, message, registered, schema

RIDE = registered(
    schema(
        field("flag", "boolean"),
        field("count", ["null", "int"]),
        field("total", ["long", "null"]),
        field("ratio", "double", default=0.5),
        field("word", {"type": "enum", "name": "word_enum", "symbols": ["on", "off"]}, default="on"),
        field("day", ["null", {"type": "int", "logicalType": "date"}]),
        field("note", "string", default=""),
        field("tags", {"type": "array", "items": "string"}, default=[]),
        field("price", ["null", {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}]),
    )
)
HEAD = b"\xc3\x01" + RIDE.group.fingerprint
WHOLE = message(RIDE, flag=True)
AT = WHOLE[10:].index(b"\x02a") + 2  # after the key: the event time


def reason_of(value: bytes, **options: Any) -> Reason:
    """The reason for which a message is rejected; its text names the group and holds no value."""
    decoded = decode(RIDE, value, **options)
    assert decoded.events == []
    (rejected,) = decoded.rejected
    assert rejected.record.value == value
    assert "ride" in str(rejected.error)
    return rejected.error.reason


def body(*parts: bytes) -> bytes:
    """A framed body of these encoded fields after a valid key and event time."""
    return HEAD + WHOLE[10 : len(WHOLE) - len(REST)] + b"".join(parts)


# flag, count, total, ratio, word, day, note, tags, price of WHOLE, in canonical form.
REST = b"\x01" + b"\x00" + b"\x02" + struct.pack("<d", 0.5) + b"\x00" + b"\x00" + b"\x00" + b"\x00" + b"\x00"


def parts(**changed: bytes) -> bytes:
    """A framed event in which some fields' bytes are replaced."""
    fields = {
        "flag": b"\x01",
        "count": b"\x00",
        "total": b"\x02",
        "ratio": struct.pack("<d", 0.5),
        "word": b"\x00",
        "day": b"\x00",
        "note": b"\x00",
        "tags": b"\x00",
        "price": b"\x00",
    }
    return body(*(fields | changed).values())


def test_the_parts_of_these_tests_make_a_valid_event() -> None:
    """What the tests below damage is a valid event before."""
    assert parts() == WHOLE
    assert decode(RIDE, WHOLE).rejected == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", Reason.EMPTY_VALUE),
        (b"\xc3\x02" + WHOLE[2:], Reason.UNKNOWN_FRAMING),
        (b"hello", Reason.UNKNOWN_FRAMING),
        (b"\xef\xbb\xbf{}", Reason.UNKNOWN_FRAMING),
        (b"\xc3\x01", Reason.TRUNCATED),
        (HEAD, Reason.TRUNCATED),
        (WHOLE[:-1], Reason.TRUNCATED),
        (WHOLE + b"\x00", Reason.TRAILING_BYTES),
        (b"\x00\x00\x00", Reason.TRUNCATED),
        (frame(b"12345678", WHOLE[10:]), Reason.UNKNOWN_FINGERPRINT),
        (frame_confluent(5, WHOLE[10:]), Reason.UNKNOWN_SCHEMA_ID),
        (parts(flag=b"\x07"), Reason.MALFORMED_AVRO),
        (parts(count=b"\x04"), Reason.MALFORMED_AVRO),
        (parts(count=b"\x01"), Reason.MALFORMED_AVRO),
        (parts(count=b"\x80\x00"), Reason.MALFORMED_AVRO),
        (parts(total=b"\x00" + b"\xff" * 10 + b"\x01"), Reason.MALFORMED_AVRO),
        (parts(total=b"\x00" + b"\xff" * 9 + b"\x03"), Reason.MALFORMED_AVRO),
        (parts(total=b"\x00\x80\x80\x00"), Reason.MALFORMED_AVRO),
        (parts(note=b"\x04\xc3\x28"), Reason.INVALID_TEXT),
        (parts(note=b"\x06\xed\xa0\x80"), Reason.INVALID_TEXT),
        (parts(note=b"\x01"), Reason.MALFORMED_AVRO),
        (parts(tags=b"\x02\x00"), Reason.TRUNCATED),
        (parts(tags=b"\x01\x04\x00\x00"), Reason.MALFORMED_AVRO),
        (parts(price=b"\x02\x00"), Reason.MALFORMED_AVRO),
        (b"{", Reason.TRUNCATED),
        (b'{"a":}', Reason.MALFORMED_JSON),
        (b'{"id":"\xff"}', Reason.INVALID_TEXT),
        (b'{"id":"\\ud800"}', Reason.INVALID_TEXT),
        (b'{"id":"a","id":"b"}', Reason.DUPLICATE_FIELD),
        (b'{"id":"a","\\u0069d":"b"}', Reason.DUPLICATE_FIELD),
        (b'{"id":"a:b","x":{"y":1,"y":2}}', Reason.DUPLICATE_FIELD),
        (b'{"id":"\\u003a","note":"1","note":"2"}', Reason.DUPLICATE_FIELD),
        (b"[]", Reason.WRONG_TYPE),
        (b"null", Reason.WRONG_TYPE),
        (b'"text"', Reason.WRONG_TYPE),
    ],
)
def test_case_1_not_an_encoding_at_all(value: bytes, reason: Reason) -> None:
    """Case 1: what is not exactly one encoding is rejected with a reason of its own."""
    assert reason_of(value) is reason


def test_case_1_what_is_unknown_is_reported() -> None:
    """Case 1: unknown fingerprints, schema ids and JSON fields are reported, so that they can be fetched once."""
    decoded = decode(RIDE, frame(b"12345678", b""), frame_confluent(5, b""), json_event(speed=1, flag=True))
    assert decoded.unknown_fingerprints == {b"12345678"}
    assert decoded.unknown_schema_ids == {5}
    assert decoded.unknown_fields == {"speed"}
    assert decoded.ignored_fields == 1
    assert len(decoded.events) == 1


def test_case_1_retired_and_impossible_names_are_counted_but_not_reported() -> None:
    """Case 1: fields that no newer definition could have, and retired ones, force no reload."""
    old = schema(field("a", "int"), field("gone", ["null", "int"]))
    newer = registered(old, schema(field("a", "int")))
    from dataclasses import replace

    group = replace(newer, group=replace(newer.group, retired=registered(old).group.features[1:]))
    value = b'{"id":"a","at":%d,"a":1,"gone":2,"_x":1,"":3,"%s":4}' % (EVENT_TIME_US, b"y" * 64)
    decoded = decode(group, value)
    assert (len(decoded.events), decoded.ignored_fields, decoded.unknown_fields) == (1, 4, frozenset())


def json_event(**values: Any) -> bytes:
    """A JSON event with a key and an event time."""
    import orjson

    return orjson.dumps({"id": "a", "at": EVENT_TIME_US, **values})


def raw_json(text: str) -> bytes:
    """A JSON event with a key, an event time, and this text."""
    return b'{"id":"a","at":%d,"flag":true,%s}' % (EVENT_TIME_US, text.encode())


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (parts(count=b"\x02\x80\x80\x80\x80\x10"), Reason.OUT_OF_RANGE),
        (parts(count=b"\x02\x80\x80\x80\x80\x20"), Reason.OUT_OF_RANGE),
        (parts(ratio=struct.pack("<d", float("nan"))), Reason.NOT_FINITE),
        (parts(ratio=struct.pack("<d", float("inf"))), Reason.NOT_FINITE),
        (parts(word=b"\x04"), Reason.UNKNOWN_SYMBOL),
        (parts(word=b"\x01"), Reason.UNKNOWN_SYMBOL),
        (parts(day=b"\x02\x80\x80\x80\x80\x08"), Reason.OUT_OF_RANGE),
        (parts(price=b"\x02\x06\x01\x00\x00"), Reason.OUT_OF_RANGE),
        (raw_json('"count":2147483648'), Reason.OUT_OF_RANGE),
        (raw_json('"total":9223372036854775808'), Reason.OUT_OF_RANGE),
        (raw_json('"total":-9223372036854775809'), Reason.OUT_OF_RANGE),
        (raw_json('"total":' + "9" * 30), Reason.OUT_OF_RANGE),
        (raw_json('"total":3.0'), Reason.WRONG_TYPE),
        (raw_json('"total":3.7'), Reason.WRONG_TYPE),
        (raw_json('"total":"1"'), Reason.WRONG_TYPE),
        (raw_json('"total":true'), Reason.WRONG_TYPE),
        (raw_json('"count":[1]'), Reason.WRONG_TYPE),
        (raw_json('"ratio":"0.5"'), Reason.WRONG_TYPE),
        (raw_json('"ratio":1e999'), Reason.NOT_FINITE),
        (raw_json('"ratio":NaN'), Reason.MALFORMED_JSON),
        (raw_json('"ratio":null'), Reason.NULL_REQUIRED),
        (raw_json('"word":"maybe"'), Reason.UNKNOWN_SYMBOL),
        (raw_json('"word":0'), Reason.WRONG_TYPE),
        (raw_json('"day":"2024-02-30"'), Reason.WRONG_TYPE),
        (raw_json('"day":"2024-W01-1"'), Reason.WRONG_TYPE),
        (raw_json('"day":"20240101"'), Reason.WRONG_TYPE),
        (raw_json('"day":19000'), Reason.WRONG_TYPE),
        (raw_json('"note":7'), Reason.WRONG_TYPE),
        (raw_json('"tags":"a"'), Reason.WRONG_TYPE),
        (raw_json('"tags":[1]'), Reason.WRONG_TYPE),
        (raw_json('"tags":[null]'), Reason.WRONG_TYPE),
        (raw_json('"price":1.25'), Reason.WRONG_TYPE),
        (raw_json('"price":"1.255"'), Reason.OUT_OF_RANGE),
        (raw_json('"price":"100.00"'), Reason.OUT_OF_RANGE),
        (raw_json('"price":"1e2"'), Reason.WRONG_TYPE),
        (json_event(flag=1), Reason.WRONG_TYPE),
        (json_event(), Reason.MISSING_FIELD),
    ],
)
def test_case_2_outside_the_type(value: bytes, reason: Reason) -> None:
    """Case 2: a value outside its type's range, or of another type, is rejected; nothing is converted."""
    assert reason_of(value) is reason


def test_case_2_what_is_only_unusual_is_accepted() -> None:
    """Case 2: integers for doubles, array blocks and padded decimals are valid, and stored in canonical form."""
    decoded = decode(
        RIDE,
        raw_json('"ratio":2'),
        parts(tags=b"\x02\x02x\x03\x08\x02y\x02z\x00"),
        parts(price=b"\x02\x06\x00\x00\x05"),
        parts(ratio=struct.pack("<d", -0.0)),
        json_event(flag=True, count=None),
    )
    assert decoded.rejected == []
    twice, blocks, padded, zero, _ = decoded.events
    assert twice.values[3] == 2.0
    assert blocks.values[7] == '["x","y","z"]'
    assert blocks.body == parts(tags=b"\x06\x02x\x02y\x02z\x00")[10:]
    assert padded.values[8] == "0.05"
    assert padded.body == parts(price=b"\x02\x02\x05")[10:]
    assert zero.body == parts(ratio=struct.pack("<d", 0.0))[10:]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (HEAD + b"\x00" + WHOLE[12:], Reason.KEY_EMPTY),
        (HEAD + b"\x80\x04" + b"k" * 256 + WHOLE[12:], Reason.KEY_TOO_LONG),
        (HEAD + b"\x80\x04" + "é".encode() * 128 + WHOLE[12:], Reason.KEY_TOO_LONG),
        (b'{"at":%d,"flag":true}' % EVENT_TIME_US, Reason.KEY_MISSING),
        (b'{"id":null,"at":%d,"flag":true}' % EVENT_TIME_US, Reason.KEY_MISSING),
        (b'{"id":"","at":%d,"flag":true}' % EVENT_TIME_US, Reason.KEY_EMPTY),
    ],
)
def test_case_4_entity_key(value: bytes, reason: Reason) -> None:
    """Case 4: an entity key that is missing, empty or longer than 255 bytes is rejected."""
    assert reason_of(value) is reason


def test_case_4_the_longest_key_is_accepted() -> None:
    """Case 4: 255 bytes are a key, in one-byte and in longer characters."""
    decoded = decode(RIDE, message(RIDE, id="k" * 255, flag=True), message(RIDE, id="é" * 127, flag=True))
    assert [each.key for each in decoded.events] == [("k" * 255,), ("é" * 127,)]


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, Reason.KEY_MISSING),
        (b"", Reason.KEY_EMPTY),
        (b"k" * 256, Reason.KEY_TOO_LONG),
        (b"\xff", Reason.INVALID_TEXT),
    ],
)
def test_case_4_tombstone_key(key: bytes | None, reason: Reason) -> None:
    """Case 4: a tombstone whose message key is no entity key is rejected."""
    (rejected,) = decode(RIDE, None, key=key).rejected
    assert rejected.error.reason is reason


def event_at(time: Any) -> bytes:
    """A JSON event at this time."""
    import orjson

    return orjson.dumps({"id": "a", "at": time, "flag": True})


LATEST_US = NOW_MS * 1000 + 999 + 300_000_000


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"id":"a","flag":true}', Reason.MISSING_FIELD),
        (event_at(None), Reason.NULL_REQUIRED),
        (event_at(NOW_MS), Reason.EVENT_TIME_TOO_OLD),
        (event_at(NOW_MS // 1000), Reason.EVENT_TIME_TOO_OLD),
        (event_at(946_684_800_000_000 - 1), Reason.EVENT_TIME_TOO_OLD),
        (event_at("1999-12-31T23:59:59.999999Z"), Reason.EVENT_TIME_TOO_OLD),
        (event_at(LATEST_US + 1), Reason.EVENT_TIME_IN_FUTURE),
        (event_at(1 << 62), Reason.OUT_OF_RANGE),
        (event_at("2023-11-14T22:13:20"), Reason.WRONG_TYPE),
        (event_at(1.7e15), Reason.WRONG_TYPE),
    ],
)
def test_case_5_event_time(value: bytes, reason: Reason) -> None:
    """Case 5: an event time missing, of a wrong unit or too far ahead is rejected, and the next event is not."""
    decoded = decode(RIDE, value, WHOLE)
    assert [each.error.reason for each in decoded.rejected] == [reason]
    assert [each.sequence for each in decoded.events] == [1]


def test_case_5_both_ends_of_the_accepted_times() -> None:
    """Case 5: the oldest accepted time, and the latest one by the record's own timestamp, are accepted."""
    decoded = decode(
        RIDE, event_at(946_684_800_000_000), event_at(LATEST_US), event_at("2023-11-14T23:18:20.000999+01:00")
    )
    assert [each.event_time_us for each in decoded.events] == [946_684_800_000_000, LATEST_US, LATEST_US]


def test_event_times_of_every_unit_may_be_text() -> None:
    """RFC 3339 text is an event time of every unit; a part smaller than the unit is refused, not rounded."""
    for unit in ("s", "ms", "us"):
        definition = schema()
        definition["fields"][1] = field("at", "long", unit=unit)
        text = b'{"id":"a","at":"2023-11-14T22:13:20%sZ"}'
        decoded = decode(registered(definition), text % b"", text % b".000001")
        assert decoded.events[0].event_time_us == NOW_MS * 1000
        assert [each.error.reason for each in decoded.rejected] == ([] if unit == "us" else [Reason.OUT_OF_RANGE])


def test_case_5_no_timestamp_makes_a_time_that_cannot_be_represented() -> None:
    """Case 5: with a Kafka timestamp of any size, an event time beyond the year 9999 is still refused."""
    decoder = Decoder(RIDE, EventLimits())
    timestamp = (1 << 62) // 1000
    decoded = decoder.decode(
        [RawRecord(0, b"a", None, timestamp), RawRecord(1, None, event_at(253_402_300_800_000_000), timestamp)]
    )
    assert decoded.events == []


def test_tombstone_time() -> None:
    """A tombstone's event time is the header's, else the end of the Kafka timestamp's millisecond."""
    decoder = Decoder(RIDE, EventLimits())
    header = (EVENT_TIME_HEADER, b"%d" % EVENT_TIME_US)
    decoded = decoder.decode(
        [
            RawRecord(0, b"a", None, NOW_MS, [("other", None), header]),
            RawRecord(1, b"a", None, NOW_MS),
            RawRecord(2, b"a", None, NOW_MS, [(EVENT_TIME_HEADER, b" 1")]),
            RawRecord(3, b"a", None, NOW_MS, [(EVENT_TIME_HEADER, None)]),
            RawRecord(4, b"a", None, NOW_MS, [header, header]),
            RawRecord(5, b"a", None, NOW_MS, [(EVENT_TIME_HEADER, b"%d" % (LATEST_US + 1))]),
        ]
    )
    assert [(each.sequence, each.event_time_us, each.deleted) for each in decoded.events] == [
        (0, EVENT_TIME_US, True),
        (1, NOW_MS * 1000 + 999, True),
    ]
    assert [each.error.reason for each in decoded.rejected] == [
        Reason.WRONG_TYPE,
        Reason.WRONG_TYPE,
        Reason.DUPLICATE_FIELD,
        Reason.EVENT_TIME_IN_FUTURE,
    ]


def test_messages_hold_no_values() -> None:
    """A rejection names group and field, and holds nothing of the event."""
    secret = "s3cret"
    for value in (raw_json(f'"total":"{secret}"'), raw_json(f'"word":"{secret}"'), b'{"id":"%s"' % secret.encode()):
        (rejected,) = decode(RIDE, value).rejected
        assert secret not in str(rejected.error)
    assert "ride.total" in str(decode(RIDE, raw_json('"total":"x"')).rejected[0].error)


def test_one_bad_record_among_many_is_the_only_one_rejected() -> None:
    """Neighbours of a bad record, decoded together with it, stay events, in log order."""
    values = [message(RIDE, id=f"n{number}", flag=True) for number in range(700)]
    values[300] = values[300][:-1]
    values[301] = b"junk"
    values[400] = json_event(flag=True)
    decoded = decode(RIDE, *values)
    assert [each.record.offset for each in decoded.rejected] == [300, 301]
    assert [each.sequence for each in decoded.events] == [each for each in range(700) if each not in (300, 301)]


def test_integers_of_64_bits_stay_valid_however_many_there_are() -> None:
    """Integers that take 10 bytes are judged by another way than small ones, which goes on with the stream."""
    values = [(1 << 63) - 1, -(1 << 63), 1 << 62, 0, -1]
    decoder = Decoder(RIDE, EventLimits())
    for _ in range(50):
        messages = [message(RIDE, flag=True, total=value) for value in values]
        decoded = decoder.decode([RawRecord(at, None, each, NOW_MS) for at, each in enumerate(messages)])
        assert [each.values[2] for each in decoded.events] == values


def test_integers_of_64_bits_in_a_group_without_arrays() -> None:
    """The same where bodies are judged by their size: the decoder learns that it is of no use here."""
    group = registered(schema(field("hash", "long"), field("ratio", "double")))
    decoder = Decoder(group, EventLimits())
    for ratio in range(150):
        good = message(group, hash=-(1 << 63) + ratio, ratio=-0.0)
        (event,) = decoder.decode([RawRecord(0, None, good, NOW_MS)]).events
        assert event.values == (-(1 << 63) + ratio, 0.0)
        bad = good.replace(b"\xff\x01", b"\xff\x03")
        if bad != good:
            assert not decoder.decode([RawRecord(0, None, bad, NOW_MS)]).events


def test_late_events_among_others_are_the_only_ones_rejected() -> None:
    """An event whose time is not accepted is rejected alone, in a batch that is decoded together."""
    values = [message(RIDE, flag=True, at=EVENT_TIME_US if at % 3 else 1) for at in range(300)]
    decoded = decode(RIDE, *values)
    assert [each.record.offset for each in decoded.rejected] == list(range(0, 300, 3))
    assert {each.error.reason for each in decoded.rejected} == {Reason.EVENT_TIME_TOO_OLD}
    assert len(decoded.events) == 200
