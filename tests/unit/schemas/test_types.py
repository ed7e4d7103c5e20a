"""The type table: every form of every type, exactly."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomstream.schemas.decimals import decimal_text, unscaled_from_decimal, unscaled_from_text
from oomstream.schemas.errors import InvalidEvent, Reason
from oomstream.schemas.layout import read_fields
from oomstream.schemas.times import day_from_text
from oomstream.schemas.types import (
    MAX_ARRAY_ITEMS,
    MAX_TIME_US,
    MIN_TIME_US,
    Kind,
    ValueType,
    time_from_us,
    us_from_text,
    us_from_time,
)
from tests.unit.schemas.definitions import any_type, field, json_form, plain_zero

INT = ValueType(Kind.INT)
LONG = ValueType(Kind.LONG)
FLOAT = ValueType(Kind.FLOAT)
DOUBLE = ValueType(Kind.DOUBLE)
STRING = ValueType(Kind.STRING)
BYTES = ValueType(Kind.BYTES)
BOOLEAN = ValueType(Kind.BOOLEAN)
DATE = ValueType(Kind.DATE)
MILLIS = ValueType(Kind.TIMESTAMP_MILLIS)
MICROS = ValueType(Kind.TIMESTAMP_MICROS)
ENUM = ValueType(Kind.ENUM, symbols=("on", "off"))
DECIMAL = ValueType(Kind.DECIMAL, precision=38, scale=10)
DOUBLES = ValueType(Kind.ARRAY, item=DOUBLE)
INTS = ValueType(Kind.ARRAY, item=INT)


@settings(deadline=None)
@given(st.data())
def test_forms_are_inverse(data: st.DataObject) -> None:
    """A value of any type goes from python or JSON to avro, plain and back to the same python value."""
    drawn = data.draw(any_type("f"))
    (declared,) = read_fields({"type": "record", "name": "r", "fields": [field("f", drawn.avro)]}, where="test")
    value = data.draw(drawn.values)
    if value is None:
        return
    kind = declared.type
    avro = kind.avro_from_python(value)
    kind.check(avro)
    assert kind.canonical(avro) == avro
    assert kind.avro_from_json(json_form(kind, value)) == avro
    plain = kind.plain_from_avro(avro)
    assert kind.avro_from_plain(plain) == avro
    assert kind.python_from_plain(plain) == plain_zero(kind, value)
    if kind.is_identity:
        assert plain is avro
    assert pa.scalar(kind.python_from_plain(plain), kind.arrow()).as_py() == kind.python_from_plain(plain)


class Word(enum.StrEnum):
    """A text enum of a user's."""

    ON = "on"


@pytest.mark.parametrize(
    ("kind", "value", "avro"),
    [
        (INT, np.int64(3), 3),
        (LONG, np.uint8(3), 3),
        (DOUBLE, np.float32(0.1), 0.10000000149011612),
        (DOUBLE, np.float64(0.5), 0.5),
        (DOUBLE, 3, 3.0),
        (DOUBLE, -0.0, 0.0),
        (BOOLEAN, np.bool_(True), True),
        (STRING, np.str_("a"), "a"),
        (STRING, Word.ON, "on"),
        (ENUM, Word.ON, "on"),
        (BYTES, bytearray(b"a"), b"a"),
        (BYTES, memoryview(b"a"), b"a"),
        (DOUBLES, np.array([0.5, 1.5], dtype=np.float32), [0.5, 1.5]),
        (INTS, np.array([], dtype=np.int64), []),
        (INTS, (1, 2), [1, 2]),
        (DECIMAL, 3, (3 * 10**10).to_bytes(5, "big")),
        (MICROS, pd.Timestamp("1970-01-01T00:00:01Z"), 1_000_000),
        (MICROS, datetime(1970, 1, 1, 0, 0, 1), 1_000_000),
        (MICROS, datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), 0),
    ],
)
def test_python_values_that_hold_the_same(kind: ValueType, value: Any, avro: Any) -> None:
    """Values of other Python types are accepted where they hold the same value exactly."""
    found = kind.avro_from_python(value)
    assert found == avro
    assert type(found) is type(avro)


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        (INT, True, Reason.WRONG_TYPE),
        (INT, 1.0, Reason.WRONG_TYPE),
        (INT, "1", Reason.WRONG_TYPE),
        (INT, Decimal(1), Reason.WRONG_TYPE),
        (INT, 1 << 31, Reason.OUT_OF_RANGE),
        (LONG, -(1 << 63) - 1, Reason.OUT_OF_RANGE),
        (DOUBLE, True, Reason.WRONG_TYPE),
        (DOUBLE, Fraction(1, 3), Reason.WRONG_TYPE),
        (DOUBLE, (1 << 53) + 1, Reason.OUT_OF_RANGE),
        (DOUBLE, 10**400, Reason.OUT_OF_RANGE),
        (DOUBLE, float("nan"), Reason.NOT_FINITE),
        (FLOAT, 1e39, Reason.OUT_OF_RANGE),
        (BOOLEAN, 1, Reason.WRONG_TYPE),
        (STRING, b"a", Reason.WRONG_TYPE),
        (STRING, "\ud800", Reason.INVALID_TEXT),
        (BYTES, "a", Reason.WRONG_TYPE),
        (ENUM, "maybe", Reason.UNKNOWN_SYMBOL),
        (DATE, datetime(2024, 1, 1), Reason.WRONG_TYPE),
        (DATE, "2024-01-01", Reason.WRONG_TYPE),
        (MICROS, date(2024, 1, 1), Reason.WRONG_TYPE),
        (MICROS, 5, Reason.WRONG_TYPE),
        (MICROS, pd.NaT, Reason.WRONG_TYPE),
        (MICROS, pd.Timestamp("2024-01-01T00:00:00.000000001"), Reason.OUT_OF_RANGE),
        (MICROS, np.datetime64("2024-01-01", "ns"), Reason.WRONG_TYPE),
        (MILLIS, datetime(2024, 1, 1, 0, 0, 0, 1), Reason.OUT_OF_RANGE),
        (DECIMAL, 1.5, Reason.WRONG_TYPE),
        (DECIMAL, True, Reason.WRONG_TYPE),
        (DECIMAL, Decimal("NaN"), Reason.NOT_FINITE),
        (DECIMAL, Decimal("-Infinity"), Reason.NOT_FINITE),
        (DECIMAL, Decimal("1E-11"), Reason.OUT_OF_RANGE),
        (DECIMAL, Decimal("1E+28"), Reason.OUT_OF_RANGE),
        (DECIMAL, Decimal("1E-999999"), Reason.OUT_OF_RANGE),
        (DECIMAL, Decimal("1E+999999"), Reason.OUT_OF_RANGE),
        (DOUBLES, "ab", Reason.WRONG_TYPE),
        (DOUBLES, {"a": 1}, Reason.WRONG_TYPE),
        (DOUBLES, [None], Reason.WRONG_TYPE),
        (DOUBLES, np.array([[1.0]]), Reason.WRONG_TYPE),
        (DOUBLES, [float("inf")], Reason.NOT_FINITE),
        (DOUBLES, [0.0] * (MAX_ARRAY_ITEMS + 1), Reason.TOO_LARGE),
    ],
)
def test_python_values_that_do_not(kind: ValueType, value: Any, reason: Reason) -> None:
    """A value of another type, or outside the type's range, is refused; nothing is converted."""
    with pytest.raises(InvalidEvent) as caught:
        kind.avro_from_python(value)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ("1.5", "1.5000000000"),
        ("-0.0000000001", "-0.0000000001"),
        ("0", "0.0000000000"),
        ("-0", "0.0000000000"),
        ("1234567890123456789012345678.0123456789", "1234567890123456789012345678.0123456789"),
        ("-9999999999999999999999999999.9999999999", "-9999999999999999999999999999.9999999999"),
        ("1.50000000000000", "1.5000000000"),
        ("+007", "7.0000000000"),
    ],
)
def test_decimals_are_exact(value: str, plain: str) -> None:
    """Decimals of up to 38 digits keep every digit, from JSON text and from Python, and through plain text."""
    avro = DECIMAL.avro_from_json(value)
    assert DECIMAL.plain_from_avro(avro) == plain
    assert DECIMAL.avro_from_python(Decimal(value)) == avro
    assert DECIMAL.avro_from_plain(plain) == avro
    assert DECIMAL.python_from_plain(plain) == Decimal(value)


@settings(deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False), st.integers(1, 38), st.data())
def test_any_decimal_is_exact_or_refused(value: Decimal, precision: int, data: st.DataObject) -> None:
    """Any decimal either comes back equal, or really does not fit."""
    scale = data.draw(st.integers(0, precision))
    fits = value == 0 or (
        value.adjusted() < precision - scale and (value.normalize() == value and value.as_tuple().exponent >= -scale)  # type: ignore[operator]
    )
    try:
        unscaled = unscaled_from_decimal(value, precision, scale)
    except InvalidEvent:
        assert not fits
        return
    text = decimal_text(unscaled, scale)
    assert Decimal(text) == value
    assert unscaled_from_text(text, scale) == unscaled


@pytest.mark.parametrize("value", ["", "+", ".5", "5.", "1e5", "1_0", " 1", "١", "0x1", "NaN", "1" * 129])
def test_decimal_text_is_plain_digits(value: str) -> None:
    """A JSON decimal is digits with an optional sign and point."""
    with pytest.raises(InvalidEvent, match="is not a decimal number as text"):
        DECIMAL.avro_from_json(value)


@pytest.mark.parametrize(
    ("text", "time_us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00z", 0),
        ("1970-01-01 00:00:00+00:00", 0),
        ("1970-01-01T00:00:00-00:00", 0),
        ("1970-01-01T01:00:00.5+01:00", 500_000),
        ("1969-12-31T18:30:00.000001-05:30", 1),
        ("1970-01-01T00:00:00.123456000Z", 123_456),
        ("0001-01-01T00:00:00Z", MIN_TIME_US),
        ("9999-12-31T23:59:59.999999Z", MAX_TIME_US),
    ],
)
def test_rfc_3339(text: str, time_us: int) -> None:
    """RFC 3339 text with any offset, in either case, is read to the microsecond."""
    assert us_from_text(text) == time_us


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1970-01-01",
        "1970-01-01T00:00:00",
        "1970-01-01T00:00Z",
        "19700101T000000Z",
        "1970-W01-4T00:00:00Z",
        "1970-01-01_00:00:00Z",
        "1970-01-01T00:00:00,5Z",
        "1970-01-01T00:00:00.Z",
        "1970-01-01T00:00:00+0100",
        "1970-01-01T00:00:00+24:00",
        "1970-01-01T00:00:00+01:60",
        "1970-01-01T24:00:00Z",
        "1970-02-30T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "1990-12-31T23:59:60Z",
        "١٩٧٠-01-01T00:00:00Z",
        "1970-01-01T00:00:00Z\n",
        " 1970-01-01T00:00:00Z",
    ],
)
def test_not_rfc_3339(text: str) -> None:
    """Other ISO 8601 forms, impossible times and leap seconds are refused."""
    with pytest.raises(InvalidEvent) as caught:
        us_from_text(text)
    assert caught.value.reason is Reason.WRONG_TYPE


def test_times_beyond_a_microsecond_are_refused() -> None:
    """A fraction that integers of microseconds cannot hold is refused, not rounded."""
    with pytest.raises(InvalidEvent, match="smaller than a microsecond"):
        us_from_text("1970-01-01T00:00:00.0000001Z")
    with pytest.raises(InvalidEvent, match="smaller than a millisecond"):
        MILLIS.avro_from_json("1970-01-01T00:00:00.0001Z")


@pytest.mark.parametrize("kind", [MICROS, MILLIS])
def test_times_of_json_stay_within_the_calendar(kind: ValueType) -> None:
    """An offset that moves a time out of the years 1 to 9999 makes it invalid."""
    for text in ("0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"):
        with pytest.raises(InvalidEvent, match="is outside"):
            kind.avro_from_json(text)


@settings(deadline=None)
@given(st.datetimes(timezones=st.timezones() | st.none() | st.just(UTC)))
def test_datetimes_come_back(time: datetime) -> None:
    """Any datetime, naive (= UTC) or in any time zone, is its integer and back."""
    aware = time.replace(tzinfo=UTC) if time.tzinfo is None else time
    time_us = us_from_time(time)
    if MIN_TIME_US <= time_us <= MAX_TIME_US:
        # In UTC, as times in a gap or fold of another zone are equal to no time of any other.
        assert time_from_us(time_us) == aware.astimezone(UTC)
    assert us_from_text(time_from_us(max(time_us, 0)).isoformat()) == max(time_us, 0)


@pytest.mark.parametrize("text", ["2024-1-1", "20240101", "2024-W01-1", "2024-02-30", "2024-01-01\n", ""])
def test_dates_are_written_in_one_way(text: str) -> None:
    """A date is YYYY-MM-DD and nothing else."""
    with pytest.raises(ValueError, match=r"."):
        day_from_text(text)


@pytest.mark.parametrize("text", ["YQ", "YQ=", "YR==", "YQ==\n", "YQ==YQ==", "Y Q==", "_w==", "é"])
def test_base64_is_written_in_one_way(text: str) -> None:
    """Base64 is padded, of the standard alphabet, and has no bits beyond its last byte."""
    with pytest.raises(InvalidEvent, match="base64"):
        BYTES.avro_from_json(text)


def test_json_numbers() -> None:
    """A JSON integer is a double's nearest value, and an integer too long for 64 bits is out of a long's range."""
    assert DOUBLE.avro_from_json(9007199254740993) == 9007199254740992.0
    assert FLOAT.avro_from_json(0.1) == 0.10000000149011612
    with pytest.raises(InvalidEvent, match="64 bits"):
        LONG.avro_from_json(1e30)
    with pytest.raises(InvalidEvent, match="is not an integer"):
        LONG.avro_from_json(1.0)


def test_sql_values_are_taken_for_plain_ones() -> None:
    """SQL engines give 1 for true and 3 for 3.0; both forms are understood."""
    assert BOOLEAN.avro_from_plain(1) is True
    assert BOOLEAN.python_from_plain(0) is False
    assert type(DOUBLE.avro_from_plain(3)) is float
    assert type(FLOAT.python_from_plain(3)) is float


def test_names_of_types() -> None:
    """Types name themselves in messages."""
    assert [str(each) for each in (INT, DECIMAL, DOUBLES)] == ["int", "decimal(38,10)", "array<double>"]
