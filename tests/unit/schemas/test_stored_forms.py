"""Keys, versions and online values: what rests in the stores, byte for byte."""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomstream.schemas.errors import InvalidEvent, InvalidKey
from oomstream.schemas.events import Event, Plain
from oomstream.schemas.groups import KeyField
from oomstream.schemas.keys import (
    check_part,
    decode_entity,
    encode_entities,
    encode_entity,
    entities_from_python,
    key_from_python,
)
from oomstream.schemas.online_value import (
    DELETED,
    FORMAT,
    decode_value,
    encode_key,
    encode_value,
    encode_values,
    key_prefix,
    packed_version,
    value_to_serve,
)
from oomstream.schemas.types import Kind, ValueType
from oomstream.schemas.versions import SourceKind, Version

TEXT = KeyField("text", ValueType(Kind.STRING))
RAW = KeyField("raw", ValueType(Kind.BYTES))
NUMBER = KeyField("number", ValueType(Kind.LONG))
DAY = KeyField("day", ValueType(Kind.DATE))

TRICKY = st.text(st.sampled_from("\0\x01a\x7f\u00ff\ufffd\U0010ffff"), min_size=1, max_size=4)
PARTS: list[tuple[KeyField, st.SearchStrategy[Any]]] = [
    (TEXT, TRICKY | st.text(min_size=1, max_size=8)),
    (
        RAW,
        st.binary(min_size=1, max_size=4) | st.text("\0\x01\xff", min_size=1).map(lambda text: text.encode("latin-1")),
    ),
    (NUMBER, st.integers(-(1 << 63), (1 << 63) - 1)),
]


def order_of(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """What keys are to be sorted by: text by its bytes."""
    return tuple(part.encode() if isinstance(part, str) else part for part in key)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=3).flatmap(
        lambda chosen: st.tuples(
            st.just([each for each, _ in chosen]),
            st.lists(st.tuples(*(values for _, values in chosen)), min_size=2, max_size=6),
        )
    )
)
def test_entities_sort_as_their_keys_and_come_back(drawn: tuple[list[KeyField], list[tuple[Plain, ...]]]) -> None:
    """Encoded keys sort as the typed keys do, differ if the keys do, are no prefixes of each other, and come back."""
    fields, keys = drawn
    encoded = {encode_entity(key): key for key in keys}
    assert len(encoded) == len(set(keys))
    ordered = sorted(encoded)
    assert [encoded[each] for each in ordered] == sorted(set(keys), key=order_of)
    assert not any(after.startswith(before) for before, after in pairwise(ordered))
    assert [decode_entity(each, fields) for each in ordered] == [encoded[each] for each in ordered]
    assert encode_entities(list(zip(*keys, strict=True))) == [encode_entity(key) for key in keys]


KEY_VALUES: list[tuple[KeyField, st.SearchStrategy[Any]]] = [
    *PARTS,
    (KeyField("count", ValueType(Kind.INT)), st.integers(-(1 << 31), (1 << 31) - 1)),
    (DAY, st.dates()),
]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(KEY_VALUES), min_size=1, max_size=3).flatmap(
        lambda chosen: st.tuples(
            st.just([each for each, _ in chosen]),
            st.lists(st.tuples(*(st.none() | values for _, values in chosen)), min_size=1, max_size=5),
        )
    )
)
def test_columns_of_keys_are_encoded_as_each_key_is(drawn: tuple[list[KeyField], list[tuple[Any, ...]]]) -> None:
    """Keys of any types, column by column, are what they are one by one; None for those with a null in them."""
    fields, rows = drawn
    expected = [None if None in row else encode_entity(key_from_python(row, fields, where="")) for row in rows]
    assert entities_from_python(list(zip(*rows, strict=True)), fields, where="rows") == expected


@pytest.mark.parametrize("wrong", ["", "x" * 256, "é" * 128, 7, b"x", 1.5, "\ud800"])
def test_a_wrong_key_in_a_column_is_named(wrong: Any) -> None:
    """A key that is of another type, empty, too long or no text is refused with its row's number."""
    with pytest.raises(InvalidKey, match=r"^rows\[2\]: text "):
        entities_from_python([["a", None, wrong]], [TEXT], where="rows")


@pytest.mark.parametrize("wrong", [True, 1 << 63, "1", 1.0])
def test_a_wrong_number_in_a_column_is_named(wrong: Any) -> None:
    """A number that is out of range or of another type is refused with its row's number."""
    with pytest.raises(InvalidKey, match=r"^rows\[1\]: number "):
        entities_from_python([["a", "b"], [1, wrong]], [TEXT, NUMBER], where="rows")


def test_case_38_composite_keys_never_collide() -> None:
    """Case 38: ("1", "11") and ("11", "1") are two entities; so are "a", "a " and "A"."""
    keys: list[tuple[Plain, ...]] = [("1", "11"), ("11", "1"), ("111", ""), ("a",), ("a ",), ("A",), (b"a",)]
    assert len({encode_entity(key) for key in keys}) == len(keys) - 1
    assert encode_entity(("a",)) == encode_entity((b"a",))  # never in one group: the type is the group's


@pytest.mark.parametrize(
    ("entity", "fields"),
    [
        (b"", [TEXT]),
        (b"\x01a", [TEXT]),
        (b"\x01a\0", [TEXT]),
        (b"\x01a\0\xff", [TEXT]),
        (b"\x01a\0\x01\0\0", [TEXT]),
        (b"\x01\xff\0\0", [TEXT]),
        (b"\x02" + b"\0" * 7, [NUMBER]),
        (b"\x02" + b"\0" * 9, [NUMBER]),
        (b"\x03a\0\0", [TEXT]),
        (b"\x01a\0\0", [TEXT, TEXT]),
        (b"\x01a\0\0\x01b\0\0", [TEXT]),
    ],
)
def test_other_bytes_are_no_entity(entity: bytes, fields: list[KeyField]) -> None:
    """Bytes that are not an encoding of the key fields are refused."""
    with pytest.raises(ValueError, match=r"."):
        decode_entity(entity, fields)


@pytest.mark.parametrize("part", ["k" * 255, "é" * 127, b"k" * 255, 0])
def test_longest_parts(part: Plain) -> None:
    """A key part has at most 255 bytes."""
    check_part(part)


@pytest.mark.parametrize("part", [None, "", b"", "k" * 256, "é" * 128, "😀" * 64, b"k" * 256])
def test_impossible_parts(part: Plain) -> None:
    """A key part that is null, empty or longer is refused."""
    with pytest.raises(InvalidEvent):
        check_part(part)


def test_keys_from_python() -> None:
    """Keys that a caller passes in are typed strictly, and a wrong part is named with its place."""
    day = date(1970, 1, 3)
    assert key_from_python(["a", 7, day], [TEXT, NUMBER, DAY], where="entity_rows[0]") == ("a", 7, 2)
    for value in (None, "", 7, b"a"):
        with pytest.raises(InvalidKey, match=r"^entity_rows\[3\]: text "):
            key_from_python([value], [TEXT], where="entity_rows[3]")


VERSIONS = st.builds(
    Version,
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.sampled_from(list(SourceKind)),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, (1 << 63) - 1),
)


@settings(deadline=None)
@given(VERSIONS, VERSIONS)
def test_packed_versions_sort_as_versions(one: Version, two: Version) -> None:
    """Packed versions compare as versions do, and come back."""
    assert (one.pack() < two.pack()) == (one < two)
    assert Version.unpack(one.pack()) == one


def test_the_order_of_versions() -> None:
    """Event time decides first, then the kind (file < push < topic), then the source, then the sequence."""
    ordered = [
        Version(-1, SourceKind.TOPIC, 9, 9),
        Version(0, SourceKind.FILE, 9, 9),
        Version(0, SourceKind.PUSH, 9, 9),
        Version(0, SourceKind.TOPIC, 1, 9),
        Version(0, SourceKind.TOPIC, 2, 0),
        Version(0, SourceKind.TOPIC, 2, 1),
    ]
    assert sorted(ordered) == ordered


@settings(deadline=None)
@given(VERSIONS, st.integers(-(1 << 63), (1 << 63) - 1), st.binary(min_size=8, max_size=8), st.booleans(), st.binary())
def test_online_values_come_back(
    version: Version, ingest_time_us: int, fingerprint: bytes, deleted: bool, body: bytes
) -> None:
    """An online value holds version, ingest time, fingerprint, flag and body."""
    value = encode_value(version.pack(), ingest_time_us, fingerprint, deleted, body)
    assert tuple(decode_value(value)) == (version, ingest_time_us, fingerprint, deleted, body)
    assert value_to_serve(value) == (version.event_time_us, fingerprint, deleted, body)
    assert packed_version(value) == version.pack()
    assert value[0] == FORMAT


def test_the_layout_of_online_rows() -> None:
    """The bytes of a stored row are fixed: other versions of oomstream read them."""
    key = encode_key(7, encode_entity(("a",)), 9)
    assert key.hex() == "6f" + "00000007" + "0000000000000009" + "01610000"
    assert key.startswith(key_prefix(7, 9))
    value = encode_value(Version(1, SourceKind.TOPIC, 2, 3).pack(), 4, b"12345678", True, b"")
    assert value.hex() == (
        "01"
        + "8000000000000001"
        + "03"
        + "00000002"
        + "0000000000000003"
        + "0000000000000004"
        + "3132333435363738"
        + "01"
    )
    assert value[-1] == DELETED


@pytest.mark.parametrize("value", [b"", b"\x02" + b"\0" * 60, b"\x01" * 10])
def test_unknown_online_values_are_refused(value: bytes) -> None:
    """A value of another format, or cut off, is an error and never read as something else."""
    with pytest.raises(ValueError, match="unknown format"):
        decode_value(value)


@given(st.lists(st.tuples(st.integers(-(1 << 62), 1 << 62), st.booleans(), st.binary(max_size=9)), max_size=5))
def test_values_of_many_events(made: list[tuple[int, bool, bytes]]) -> None:
    """Values of many events are, byte for byte, those that are made one by one."""
    events = [Event(at, ("k",), b"k", time_us, gone, (), body) for at, (time_us, gone, body) in enumerate(made)]
    versions = [Version(each.event_time_us, SourceKind.TOPIC, 7, each.sequence).pack() for each in events]
    assert encode_values(events, SourceKind.TOPIC, 7, 99, b"12345678") == [
        encode_value(version, 99, b"12345678", each.deleted, each.body)
        for version, each in zip(versions, events, strict=True)
    ]
