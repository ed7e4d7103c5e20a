"""Bodies read column by column: exactly those that the walker accepts, with the same values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomstream.schemas.body_columns import BodyColumns
from oomstream.schemas.decode import Decoder, EventLimits
from oomstream.schemas.errors import InvalidEvent
from oomstream.schemas.events import RawRecord
from oomstream.schemas.framing import frame
from oomstream.schemas.layout import read_fields
from oomstream.schemas.walker import walk
from tests.unit.schemas.bombs import varint
from tests.unit.schemas.definitions import NOW_MS, registered

LONG = read_fields({"type": "record", "name": "r", "fields": [{"name": "n", "type": "long"}]}, where="test")
MIXED = read_fields(
    {
        "type": "record",
        "name": "r",
        "fields": [
            {"name": "text", "type": "string"},
            {"name": "maybe", "type": ["null", "long"]},
            {"name": "late", "type": ["string", "null"]},
            {"name": "yes", "type": "boolean"},
            {"name": "kind", "type": {"type": "enum", "name": "k", "symbols": ["a", "b", "c"]}},
            {"name": "raw", "type": "bytes"},
        ],
    },
    where="test",
)
SHORT = st.binary(max_size=4)
ALMOST = st.builds(
    b"".join,
    st.tuples(
        st.one_of(SHORT.map(lambda raw: varint(len(raw)) + raw), SHORT),
        st.one_of(st.just(b"\0"), st.integers(-(1 << 63), (1 << 63) - 1).map(lambda n: b"\2" + varint(n)), SHORT),
        st.one_of(st.just(b"\2"), st.text(max_size=3).map(lambda t: b"\0" + varint(len(t.encode())) + t.encode())),
        st.sampled_from([b"\0", b"\1", b"\2"]),
        st.sampled_from([b"\0", b"\2", b"\4", b"\6", b"\1"]),
        st.one_of(SHORT.map(lambda raw: varint(len(raw)) + raw), SHORT),
    ),
)


def walked(body: bytes, fields: Any) -> dict[str, Any] | None:
    """What the walker reads; None if it refuses."""
    try:
        return walk(body, fields, where="test")
    except InvalidEvent:
        return None


def read(bodies: list[bytes], fields: Any) -> list[dict[str, Any]] | None:
    """Records that are read together."""
    columns = BodyColumns(fields).read(bodies)
    return (
        None
        if columns is None
        else [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    )


@given(st.lists(ALMOST, min_size=1, max_size=6))
def test_accepts_what_the_walker_accepts(bodies: list[bytes]) -> None:
    """Bodies are read if the walker accepts every one of them, as it reads them, and else none is."""
    expected = [walked(each, MIXED) for each in bodies]
    assert read(bodies, MIXED) == (None if None in expected else expected)


@given(st.lists(st.binary(min_size=1, max_size=11), min_size=1, max_size=4))
def test_integers_of_any_bytes(bodies: list[bytes]) -> None:
    """Any bytes are the integer that the walker sees in them, or none."""
    expected = [walked(each, LONG) for each in bodies]
    assert read(bodies, LONG) == (None if None in expected else expected)


@pytest.mark.parametrize("bits", range(64))
def test_integers_of_any_size(bits: int) -> None:
    """Integers of every number of bytes are read in their shortest form, in any company, and in no longer form."""
    numbers = [n for n in (1 << bits, (1 << bits) - 1, -(1 << bits), 1 - (1 << bits)) if -(1 << 63) <= n < 1 << 63]
    bodies = [*map(varint, numbers), varint(0), varint(-(1 << 63)), varint((1 << 63) - 1)]
    expected = [*numbers, 0, -(1 << 63), (1 << 63) - 1]
    assert read(bodies, LONG) == [{"n": each} for each in expected]
    padded = bodies[0][:-1] + bytes([bodies[0][-1] | 0x80, 0])
    assert read([*bodies, padded], LONG) is None


@pytest.mark.parametrize(
    "bad", [b"", b"\x80", b"\xff" * 9, b"\xff" * 9 + b"\3", b"\xff" * 10 + b"\1", b"\2\2", b"\x80\0"]
)
def test_one_bad_body_leaves_all_in_doubt(bad: bytes) -> None:
    """A body that ends too early or too late, or with an integer of too many bits, is never passed over."""
    for at in (0, 1, 2):
        bodies = [varint(1), varint(1 << 40)]
        bodies.insert(at, bad)
        assert read(bodies, LONG) is None


def test_bad_records_among_thousands() -> None:
    """Among thousands of records exactly the bad ones are rejected, and events stay in the order of the log."""
    schema = {
        "type": "record",
        "name": "g",
        "entity": "e",
        "keys": ["k"],
        "event_time": "t",
        "fields": [
            {"name": "k", "type": "string"},
            {"name": "t", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "v", "type": ["null", "int"]},
        ],
    }
    group = registered(schema)
    bad = {0, 1_700, 1_701, 4_999}
    records = []
    for at in range(5_000):
        key = f"ключ {at % 97}".encode() if at % 3 else b"k%d" % at
        body = varint(len(key)) + key + varint(NOW_MS) + (b"\2" + varint(at) if at % 5 else b"\0")
        value = frame(group.group.fingerprint, body + b"\0" if at in bad else body)
        records.append(RawRecord(at, None, value, NOW_MS))
    decoded = Decoder(group, EventLimits()).decode(records)
    assert {each.record.offset for each in decoded.rejected} == bad
    assert [each.sequence for each in decoded.events] == [at for at in range(5_000) if at not in bad]
    for event in decoded.events:
        assert event.values == (event.sequence if event.sequence % 5 else None,)
