"""Features of stored bodies, column by column: the pattern reads what the codec reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.errors import InvalidEvent, Reason
from oomstream.schemas.field_pattern import FieldPattern, can_match
from oomstream.schemas.layout import read_fields
from oomstream.schemas.projection import Projection
from tests.unit.schemas.definitions import EVENT_TIME_US, any_group, field, plain_zero, registered, schema

LONGEST = "x" * 63


def encoded(group: Any, **values: Any) -> bytes:
    """A body of group `ride`."""
    return BodyCodec(group).encode_python({"id": "a", "at": EVENT_TIME_US, **values}).body


@settings(deadline=None)
@given(st.data())
def test_any_features_of_any_bodies(data: st.DataObject) -> None:
    """Any features of any group come back as they went in, in the order asked, whatever else the bodies hold."""
    drawn = data.draw(any_group())
    events = data.draw(st.lists(drawn.events, min_size=1, max_size=5))
    group = registered(drawn.schema)
    codec = BodyCodec(group)
    bodies = [codec.encode_python(event).body for event in events]
    features = data.draw(st.permutations(group.group.features))
    features = features[: data.draw(st.integers(0, len(features)))]
    columns = Projection(group, features).columns([group.group.fingerprint] * len(bodies), bodies)
    expected = [[plain_zero(each.type, event[each.name]) for event in events] for each in features]
    assert columns == expected
    assert [[type(each) for each in column] for column in columns] == [
        [type(each) for each in column] for column in expected
    ]


@settings(deadline=None)
@given(st.data())
def test_no_body_is_matched_in_another_way(data: st.DataObject) -> None:
    """A body that is cut, longer, or has a byte changed is not matched, or matched to what the codec reads of it."""
    drawn = data.draw(any_group(max_features=4))
    group = registered(drawn.schema)
    fields = read_fields(group.group.schema, where="it")
    if not can_match(fields) or not group.group.features:
        return
    codec = BodyCodec(group)
    body = codec.encode_python(data.draw(drawn.events)).body
    at = data.draw(st.integers(0, len(body) - 1))
    changed = data.draw(st.sampled_from([body[:at], body + b"\0", body[:at] + b"\x7f" + body[at + 1 :]]))
    names = [each.name for each in group.group.features]
    try:
        found = FieldPattern(fields, names).columns([changed])
        read = codec.read(group.group.fingerprint, changed)
    except Exception:
        return
    if found is not None:
        plain = [
            None if value is None else feature.type.python_from_plain(value)
            for feature, value in zip(group.group.features, read, strict=True)
        ]
        # As text, since a changed byte may make a number that is not equal to itself.
        assert repr(plain) == repr([column[0] for column in found])


@pytest.mark.parametrize("note", ["", LONGEST, LONGEST + "x", "é" * 31, "é" * 32, "x" * 70_000])
def test_texts_of_any_length(note: str) -> None:
    """Texts too long for the pattern are read all the same, beside short ones."""
    group = registered(schema(field("note", ["null", "string"]), field("count", "int")))
    bodies = [encoded(group, note=each, count=-1) for each in (note, "short", None)]
    columns = Projection(group, group.group.features).columns([group.group.fingerprint] * 3, bodies)
    assert columns == [[note, "short", None], [-1, -1, -1]]


def test_integers_of_any_size() -> None:
    """Integers of one to ten bytes, and those that were met before."""
    group = registered(schema(field("count", ["null", "long"])))
    numbers = [sign * (1 << bits) - more for bits in range(63) for sign in (1, -1) for more in (0, 1)]
    numbers += [-(1 << 63), (1 << 63) - 1]
    read = Projection(group, group.group.features)
    bodies = [encoded(group, count=number) for number in numbers]
    for _ in range(2):
        assert read.columns([group.group.fingerprint] * len(bodies), bodies) == [numbers]


def test_bodies_of_several_definitions_in_one_read() -> None:
    """Rows of older and newer definitions side by side: defaults filled, each list a list of its own."""
    one = schema(field("speed", "double"))
    two = schema(
        field("speed", "double"),
        field("note", ["null", "string"]),
        field("count", "long", default=7),
        field("tags", {"type": "array", "items": "string"}, default=["a"]),
    )
    group = registered(one, two)
    old, new = registered(one), registered(two)
    bodies = [
        encoded(old, speed=1.5),
        encoded(new, speed=2.5, note="x", count=1, tags=["b"]),
        encoded(old, speed=3.5),
    ]
    fingerprints = [old.group.fingerprint, new.group.fingerprint, old.group.fingerprint]
    by_name = {each.name: each for each in group.group.features}
    wanted = [by_name[name] for name in ("count", "tags", "speed", "note")]
    columns = Projection(group, wanted).columns(fingerprints, bodies)
    assert columns == [[7, 1, 7], [["a"], ["b"], ["a"]], [1.5, 2.5, 3.5], [None, "x", None]]
    assert columns[1][0] is not columns[1][2]
    assert Projection(group, [by_name["note"]]).columns(fingerprints, bodies) == [[None, "x", None]]
    assert Projection(group, wanted).columns([], []) == [[], [], [], []]


def test_what_cannot_be_read_is_said() -> None:
    """An unknown fingerprint and damaged bytes are errors with a reason, as with the codec."""
    group = registered(schema(field("note", "string")))
    read = Projection(group, group.group.features)
    with pytest.raises(InvalidEvent, match="no definition has the fingerprint") as caught:
        read.columns([b"\1" * 8], [b""])
    assert caught.value.reason is Reason.UNKNOWN_FINGERPRINT
    body = encoded(group, note="abc").replace(b"abc", b"a\xff\xfe")
    with pytest.raises(InvalidEvent, match="cannot be read") as caught:
        read.columns([group.group.fingerprint], [body])
    assert caught.value.reason is Reason.MALFORMED_AVRO
