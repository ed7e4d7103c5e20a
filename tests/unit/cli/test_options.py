"""How the texts people type become keys, times and values."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
import typer

from oomstream.agents.cli.options import parse_keys, parse_time, python_from_text, split_features
from oomstream.schemas.groups import KeyField
from oomstream.schemas.types import Kind, ValueType

TEXT = ValueType(Kind.STRING)
ONE = {"tailnum": KeyField("tailnum", TEXT)}
TWO = {"user": KeyField("user", ValueType(Kind.LONG)), "day": KeyField("day", ValueType(Kind.DATE))}


@pytest.mark.parametrize(
    ("texts", "rows"),
    [
        (["a,b"], [{"tailnum": "a"}, {"tailnum": "b"}]),
        (["b", "a", "b"], [{"tailnum": "b"}, {"tailnum": "a"}, {"tailnum": "b"}]),
        (["tailnum=a,b"], [{"tailnum": "a,b"}]),
        (["x=y"], [{"tailnum": "x=y"}]),
    ],
)
def test_keys_of_one_field(texts: list[str], rows: list[dict[str, Any]]) -> None:
    """K1,K2 are two keys in the order given, duplicates kept; field=value is one key that may hold commas."""
    assert parse_keys(texts, ONE) == rows


@pytest.mark.parametrize("text", ["plane=a", "tail_num=a", "tailnumber=a", "Tailnum=a", "b,plane=a"])
def test_a_wrong_name_of_the_key_field_is_refused(text: str) -> None:
    """The entity's name or a mistyped key field before an equals sign is no key: the right name is said."""
    with pytest.raises(typer.BadParameter, match=r"is not a key field \(it is: tailnum\)"):
        parse_keys([text], ONE, ["plane"])


@pytest.mark.parametrize("text", ["user=a", "YWJj=", "plane1=a", "a=b=c", "=", "plane"])
def test_keys_may_hold_an_equals_sign(text: str) -> None:
    """A key that holds an equals sign is read as it is; so is any, after the field's name."""
    assert parse_keys([text], ONE, ["plane"]) == [{"tailnum": text}]
    assert parse_keys(["tailnum=plane=a"], ONE, ["plane"]) == [{"tailnum": "plane=a"}]


def test_keys_of_several_fields() -> None:
    """A composite key is one row with typed values, its fields in any order."""
    assert parse_keys(["day=2013-07-01,user=7"], TWO) == [{"user": 7, "day": date(2013, 7, 1)}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("7", "user=…,day=…"),
        ("user=7", "lacks the key field day"),
        ("user=7,user=8,day=2013-07-01", "twice"),
        ("user=x,day=2013-07-01", "user is not an integer"),
        ("user=7,day=July", "day is not a date"),
    ],
)
def test_wrong_keys_name_the_field(text: str, says: str) -> None:
    """A key that lacks a field, repeats one or has a wrong type is refused with the field's name."""
    with pytest.raises(typer.BadParameter, match=says):
        parse_keys([text], TWO)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2013-07-01T12:00:00Z", datetime(2013, 7, 1, 12, tzinfo=UTC)),
        ("2013-07-01T12:00:00+02:00", datetime(2013, 7, 1, 10, tzinfo=UTC)),
        ("2013-07-01 12:00", datetime(2013, 7, 1, 12, tzinfo=UTC)),
        ("2013-07-01", datetime(2013, 7, 1, tzinfo=UTC)),
        ("1372680000000", datetime(2013, 7, 1, 12, tzinfo=UTC)),
    ],
)
def test_times(text: str, time: datetime) -> None:
    """Times are RFC 3339, dates, or Unix milliseconds; without an offset they are UTC."""
    assert parse_time(text) == time


@pytest.mark.parametrize("text", ["", "yesterday", "2013-13-01", "12", "9999999999999999999"])
def test_bad_times_say_what_one_looks_like(text: str) -> None:
    """A text that is no time is refused with an example of one."""
    with pytest.raises(typer.BadParameter, match="is not a time such as"):
        parse_time(text)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (ValueType(Kind.BOOLEAN), "True", True),
        (ValueType(Kind.LONG), "-7", -7),
        (ValueType(Kind.DOUBLE), "1e3", 1000.0),
        (TEXT, "", ""),
        (ValueType(Kind.BYTES), "AP8=", b"\x00\xff"),
        (ValueType(Kind.DATE), "2013-07-01", date(2013, 7, 1)),
        (ValueType(Kind.TIMESTAMP_MICROS), "2013-07-01", datetime(2013, 7, 1, tzinfo=UTC)),
        (ValueType(Kind.DECIMAL, precision=9, scale=2), "12.50", Decimal("12.50")),
        (ValueType(Kind.ENUM, symbols=("A",)), "A", "A"),
        (ValueType(Kind.ARRAY, item=ValueType(Kind.FLOAT)), "[1, 2.5]", [1, 2.5]),
        (ValueType(Kind.ARRAY, item=ValueType(Kind.DATE)), '["2013-07-01"]', [date(2013, 7, 1)]),
    ],
)
def test_values_by_type(kind: ValueType, text: str, value: Any) -> None:
    """A typed text becomes the python form of its type."""
    assert python_from_text(kind, text, where="f", option="--feature") == value


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in {Kind.STRING, Kind.ENUM}])
def test_wrong_values_name_the_feature_and_not_the_value(kind: Kind) -> None:
    """A text that does not fit names the feature and the type, never the value."""
    item = ValueType(Kind.INT) if kind is Kind.ARRAY else None
    with pytest.raises(typer.BadParameter, match=r"price is not (a|an|true|base64) ?") as caught:
        python_from_text(ValueType(kind, precision=9, item=item), "sécret", where="price", option="--feature")
    assert "sécret" not in str(caught.value)


def test_features_are_split_in_order() -> None:
    """--feature takes lists and may be repeated; the order asked is kept."""
    assert split_features(["b.x,a.y", "a.x"]) == ["b.x", "a.y", "a.x"]
    with pytest.raises(typer.BadParameter, match="empty feature name"):
        split_features(["b.x,"])
