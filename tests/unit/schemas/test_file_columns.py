"""Columns of files: what each type takes, what it refuses, and that the short way and the long way say the same."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomstream.schemas.arrow import Chunked
from oomstream.schemas.errors import InvalidEvent, Reason
from oomstream.schemas.file_columns import EventTimeReader, FileField, InvalidCell
from oomstream.schemas.groups import EventTimeField, TimeUnit
from oomstream.schemas.layout import RecordField, read_fields
from oomstream.schemas.types import Kind
from tests.unit.schemas.definitions import DATE, MICROS, MILLIS, any_type, field, json_form, schema

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}
COLOR = {"type": "enum", "name": "color", "symbols": ["red", "blue"]}
DAY_US = 86_400_000_000
Outcome = list[Any] | tuple[int, Reason, str]


def array(items: Any) -> Any:
    """A list type."""
    return {"type": "array", "items": items}


def field_of(avro: Any) -> RecordField:
    """The feature `f` of this type."""
    return read_fields(schema(field("f", avro)), where="test")[-1]


def column_of(values: list[Any], arrow: pa.DataType | None = None) -> Chunked:
    """A column of two chunks, unless it is too short for them."""
    whole: Any = pa.array(values, arrow)
    chunks: Any = [whole[:1], whole[1:]]
    return pa.chunked_array(chunks)


def outcome(read: FileField, column: Chunked, *, is_text: bool, long: bool = False) -> Outcome:
    """What reading a column gives: its values, or where and why it fails."""
    try:
        way = read._one_by_one if long else read.read
        return list(way(column, is_text=is_text))
    except InvalidCell as exc:
        return exc.at, exc.reason, str(exc)


TEXTS = [
    ("boolean", ["true", "FALSE", "True", ""], [True, False, True, None]),
    ("int", ["1", "-7", "", "+5", "007"], [1, -7, None, 5, 7]),
    ("long", ["9223372036854775807", "-9223372036854775808"], [(1 << 63) - 1, -(1 << 63)]),
    ("float", ["0.1", "16777217", ""], [0.10000000149011612, 16777216.0, None]),
    ("double", ["3", "-1.5e3", ".5", "5.", "-0.0", ""], [3.0, -1500.0, 0.5, 5.0, 0.0, None]),
    ("string", ["", " a ", "null", "é\n"], ["", " a ", "null", "é\n"]),
    ("bytes", ["AAE=", ""], [b"\0\1", None]),
    (DATE, ["1970-01-02", "", "0001-01-01"], [1, None, -719162]),
    (MILLIS, ["1970-01-02T00:00:00Z", "86400000", ""], [86_400_000, 86_400_000, None]),
    (MICROS, ["1970-01-01 00:00:00.000001+00:00", "1970-01-01T01:00:00+01:00"], [1, 0]),
    (MICROS, ["86400000", "-1", ""], [DAY_US, -1000, None]),
    (DECIMAL, ["1.5", "-999.99", ""], [b"\0\x96", b"\xfe\x79\x61", None]),
    (COLOR, ["red", "", "blue"], ["red", None, "blue"]),
    (array("double"), ["[1, 2.5]", "", "[]"], [[1.0, 2.5], None, []]),
    (array("long"), ["[1, -2]", "[]"], [[1, -2], []]),
    (array("string"), ['["", "é"]'], [["", "é"]]),
    (array(DATE), ['["1970-01-02"]'], [[1]]),
]
TYPED = [
    ("boolean", pa.bool_(), [True, None], [True, None]),
    ("int", pa.uint8(), [200, None], [200, None]),
    ("long", pa.int64(), [-(1 << 63)], [-(1 << 63)]),
    ("float", pa.float64(), [0.1, None], [0.10000000149011612, None]),
    ("double", pa.float32(), [0.5, -0.0], [0.5, 0.0]),
    ("double", pa.int64(), [3], [3.0]),
    ("string", pa.large_string(), ["", None], ["", None]),
    ("string", pa.dictionary(pa.int8(), pa.string()), ["a", "b", "a"], ["a", "b", "a"]),
    ("bytes", pa.binary(2), [b"ab"], [b"ab"]),
    ("bytes", pa.string(), ["AAE="], [b"\0\1"]),
    (DATE, pa.date32(), [date(1970, 1, 2)], [1]),
    (DATE, pa.date64(), [date(1970, 1, 2)], [1]),
    (DATE, pa.string(), ["1970-01-02"], [1]),
    (MILLIS, pa.timestamp("us"), [datetime(1970, 1, 2)], [86_400_000]),
    (MICROS, pa.timestamp("ns", "UTC"), [DAY_US * 1000, None], [DAY_US, None]),
    (MICROS, pa.timestamp("s", "+02:00"), [86_400], [DAY_US]),
    (MICROS, pa.int64(), [86_400_000], [DAY_US]),
    (MICROS, pa.string(), ["1970-01-02T00:00:00Z", "86400000"], [DAY_US, DAY_US]),
    (DECIMAL, pa.decimal128(10, 4), [Decimal("1.5000"), None], [b"\0\x96", None]),
    (DECIMAL, pa.string(), ["1.5"], [b"\0\x96"]),
    (DECIMAL, pa.int32(), [2], [b"\0\xc8"]),
    (COLOR, pa.string(), ["red", None], ["red", None]),
    (array("float"), pa.list_(pa.float32()), [[0.5], None, []], [[0.5], None, []]),
    (array("double"), pa.list_(pa.float32(), 2), [[0.5, 1.5]], [[0.5, 1.5]]),
    (array("int"), pa.large_list(pa.int64()), [[1, 2]], [[1, 2]]),
    (array(MICROS), pa.list_(pa.timestamp("ms", "UTC")), [[datetime(1970, 1, 2, tzinfo=UTC)]], [[DAY_US]]),
]


@pytest.mark.parametrize(("avro", "cells", "expected"), TEXTS, ids=lambda each: str(each)[:40])
def test_cells_of_every_type(avro: Any, cells: list[str], expected: list[Any]) -> None:
    """Cells of a CSV file give the values that they write; an empty one is null, but for text."""
    read = FileField(field_of(["null", avro]))
    for column in (column_of(cells, pa.string()), column_of(cells[:1], pa.string())):
        assert outcome(read, column, is_text=True) == expected[: len(column)]
        assert outcome(read, column, is_text=True, long=True) == expected[: len(column)]


@pytest.mark.parametrize(("avro", "arrow", "values", "expected"), TYPED, ids=lambda each: str(each)[:40])
def test_typed_columns_of_every_type(avro: Any, arrow: pa.DataType, values: list[Any], expected: list[Any]) -> None:
    """Columns of a typed file give their values where the type is the field's, or JSON has text or an integer too."""
    read = FileField(field_of(["null", avro]))
    assert outcome(read, column_of(values, arrow), is_text=False) == expected
    assert outcome(read, column_of(values, arrow), is_text=False, long=True) == expected


@pytest.mark.parametrize(
    ("avro", "cell", "reason"),
    [
        ("boolean", "1", Reason.WRONG_TYPE),
        ("boolean", "yes", Reason.WRONG_TYPE),
        ("int", "2147483649", Reason.OUT_OF_RANGE),
        ("long", "3.7", Reason.WRONG_TYPE),
        ("long", "3.0", Reason.WRONG_TYPE),
        ("long", "0x1F", Reason.WRONG_TYPE),
        ("long", " 1", Reason.WRONG_TYPE),
        ("long", "1_000", Reason.WRONG_TYPE),
        ("long", "٣", Reason.WRONG_TYPE),
        ("long", "9" * 5000, Reason.OUT_OF_RANGE),
        ("float", "1e39", Reason.OUT_OF_RANGE),
        ("double", "nan", Reason.WRONG_TYPE),
        ("double", "inf", Reason.WRONG_TYPE),
        ("double", "1e999", Reason.NOT_FINITE),
        ("double", "1,5", Reason.WRONG_TYPE),
        ("bytes", "AA", Reason.WRONG_TYPE),
        (DATE, "2013-7-1", Reason.WRONG_TYPE),
        (DATE, "0000-01-01", Reason.WRONG_TYPE),
        (MILLIS, "1970-01-01T00:00:00.0001Z", Reason.OUT_OF_RANGE),
        (MICROS, "1970-01-01T00:00:00", Reason.WRONG_TYPE),
        (MICROS, "1970-01-01T00:00Z", Reason.WRONG_TYPE),
        (MICROS, "1970-01-01T24:00:00Z", Reason.WRONG_TYPE),
        (MICROS, "1700000000000000", Reason.OUT_OF_RANGE),
        (DECIMAL, "1.555", Reason.OUT_OF_RANGE),
        (DECIMAL, "1e2", Reason.WRONG_TYPE),
        (COLOR, "green", Reason.UNKNOWN_SYMBOL),
        (array("double"), "[1, null]", Reason.WRONG_TYPE),
        (array("double"), "[1],[2]", Reason.WRONG_TYPE),
        (array("long"), "{}", Reason.WRONG_TYPE),
        (array(COLOR), '["green"]', Reason.UNKNOWN_SYMBOL),
    ],
)
def test_cells_that_are_refused(avro: Any, cell: str, reason: Reason) -> None:
    """A cell that is no value of the type is an error at its row, with a reason and without the value."""
    found = outcome(FileField(field_of(["null", avro])), column_of(["", cell], pa.string()), is_text=True)
    assert isinstance(found, tuple)
    assert found[:2] == (1, reason)
    assert cell not in found[2]


@pytest.mark.parametrize(
    ("avro", "arrow", "value", "reason"),
    [
        ("boolean", pa.int8(), 1, Reason.WRONG_TYPE),
        ("int", pa.int64(), 1 << 31, Reason.OUT_OF_RANGE),
        ("long", pa.uint64(), 1 << 63, Reason.OUT_OF_RANGE),
        ("long", pa.float64(), 3.0, Reason.WRONG_TYPE),
        ("long", pa.string(), "3", Reason.WRONG_TYPE),
        ("long", pa.bool_(), True, Reason.WRONG_TYPE),
        ("double", pa.float64(), float("nan"), Reason.NOT_FINITE),
        ("double", pa.int64(), (1 << 53) + 1, Reason.OUT_OF_RANGE),
        ("float", pa.float64(), 1e39, Reason.OUT_OF_RANGE),
        ("string", pa.int64(), 3, Reason.WRONG_TYPE),
        ("string", pa.binary(), b"a", Reason.WRONG_TYPE),
        (DATE, pa.date32(), 1 << 30, Reason.OUT_OF_RANGE),
        (DATE, pa.timestamp("us"), 0, Reason.WRONG_TYPE),
        (MICROS, pa.timestamp("ns"), 1, Reason.OUT_OF_RANGE),
        (MICROS, pa.timestamp("s"), 1 << 60, Reason.OUT_OF_RANGE),
        (MICROS, pa.float64(), 1.0, Reason.WRONG_TYPE),
        (MICROS, pa.date32(), 1, Reason.WRONG_TYPE),
        (DECIMAL, pa.float64(), 1.5, Reason.WRONG_TYPE),
        (DECIMAL, pa.decimal256(60, 2), Decimal("1000.00"), Reason.OUT_OF_RANGE),
        (array("double"), pa.list_(pa.float64()), [1.0, None], Reason.WRONG_TYPE),
        (array("long"), pa.string(), "[1]", Reason.WRONG_TYPE),
        (array(MICROS), pa.list_(pa.timestamp("s")), [1 << 60], Reason.OUT_OF_RANGE),
    ],
)
def test_typed_values_that_are_refused(avro: Any, arrow: pa.DataType, value: Any, reason: Reason) -> None:
    """No value is converted: not 3.0 to a long, not text to a number, not NaN to anything."""
    found = outcome(FileField(field_of(["null", avro])), column_of([None, value], arrow), is_text=False)
    assert isinstance(found, tuple)
    assert found[:2] == (1, reason)


def test_text_that_is_not_utf_8() -> None:
    """Bytes that are no text, in a column that says it holds text, are refused at their row."""
    raw: Any = pa.array([b"a", b"\xff"], pa.binary())
    column: Chunked = pa.chunked_array([raw.view(pa.string())])
    assert outcome(FileField(field_of("string")), column, is_text=False) == (
        1,
        Reason.INVALID_TEXT,
        "is not valid UTF-8",
    )


@pytest.mark.parametrize("is_text", [True, False])
def test_nulls_where_none_may_be(is_text: bool) -> None:
    """A null in a required feature or a key, and an empty or a long key, are errors at their row."""
    cells = ["1", "" if is_text else None]
    required = FileField(field_of("long"))
    assert outcome(required, column_of(cells, pa.string() if is_text else None), is_text=is_text) == (
        (1, Reason.NULL_REQUIRED, "is null but is not nullable")
        if is_text
        else (0, Reason.WRONG_TYPE, "is not an integer")
    )
    key = FileField(field_of("string"), is_key=True)
    for value, reason in ((None, Reason.KEY_MISSING), ("", Reason.KEY_EMPTY), ("é" * 128, Reason.KEY_TOO_LONG)):
        if not is_text or value is not None:
            found = outcome(key, column_of(["a", value], pa.string()), is_text=is_text)
            assert found[:2] == (1, reason)
    assert outcome(key, column_of(["é" * 127], pa.string()), is_text=is_text) == ["é" * 127]


def test_event_times() -> None:
    """Event times are read in the unit they are in and given in the field's own; none is finer, or null."""
    seconds = EventTimeReader(EventTimeField("at", TimeUnit.SECOND), 1000)
    assert seconds.read(column_of(["7000", "1970-01-01T00:00:08Z"]), is_text=True) == [7, 8]
    with pytest.raises(InvalidCell, match="has a part smaller than its unit, s") as too_fine:
        seconds.read(column_of([7000, 7001]), is_text=False)
    assert too_fine.value.at == 1
    own = EventTimeReader(EventTimeField("at", TimeUnit.SECOND), 1_000_000)
    assert own.read(column_of(["7"]), is_text=True) == [7]
    with pytest.raises(InvalidCell, match="is null, but is the event time"):
        own.read(column_of(["7", ""]), is_text=True)


KEY_KINDS = {Kind.STRING, Kind.BYTES, Kind.INT, Kind.LONG, Kind.DATE}
ODD = [
    "",
    "0",
    "-0",
    "+1",
    "01",
    "1.",
    ".5",
    "1e2",
    "1E+2",
    "0x1",
    "nan",
    "Infinity",
    " 1",
    "1 ",
    "true",
    "TRUE",
    "tRUE",
]
ODD += [
    "[]",
    "[1]",
    "[1.0]",
    "[1",
    "null",
    "1970-01-01",
    "1970-01-01T00:00:00Z",
    "1970-01-01t00:00:00z",
    "99999999999999999999",
]
ODD += [
    "1970-01-01T00:00:00.123456789Z",
    "1970-01-01T00:00:00+0100",
    "1970-01-01T00:00:00-24:00",
    "2400-02-30",
    "AA==",
    "red",
]


@settings(deadline=None, max_examples=300)
@given(st.data(), st.booleans())
def test_both_ways_say_the_same_of_cells(data: st.DataObject, is_key: bool) -> None:
    """For cells of any type, right, odd or wrong, the short way gives what the long way gives, or leaves it to it."""
    kind = data.draw(any_type("f"))
    found = field_of(kind.avro)
    texts = kind.values.map(lambda value: json_form(found.type, value))
    right = texts.map(lambda form: "" if form is None else form if isinstance(form, str) else str(form).lower())
    cells = data.draw(
        st.lists(st.one_of(right, right, st.sampled_from(ODD), st.text(max_size=3)), min_size=1, max_size=6)
    )
    column = column_of(cells, pa.string())
    read = FileField(found, is_key=is_key and not found.nullable and found.type.kind in KEY_KINDS)
    assert outcome(read, column, is_text=True) == outcome(read, column, is_text=True, long=True)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_both_ways_say_the_same_of_typed_values(data: st.DataObject) -> None:
    """For a typed column as a field of any type, its own or another, the short way gives what the long way gives."""
    written, wanted = data.draw(any_type("f")), data.draw(any_type("g"))
    values = data.draw(st.lists(written.values, min_size=1, max_size=6))
    column = column_of(values, field_of(written.avro).type.arrow())
    for avro in (written.avro, wanted.avro):
        read = FileField(field_of(avro))
        assert outcome(read, column, is_text=False) == outcome(read, column, is_text=False, long=True)


def test_errors_hold_no_values() -> None:
    """Neither an error nor what it is raised from shows a value."""
    with pytest.raises(InvalidEvent) as error:
        FileField(field_of("long")).read(column_of(["secret"]), is_text=True)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__
