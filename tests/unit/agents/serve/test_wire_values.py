"""Values as messages: every type there and back, and nothing taken for what it is not."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from oomstream.agents.serve.oomagent_pb2 import Value
from oomstream.agents.serve.wire_values import from_wire, to_wire
from oomstream.schemas.errors import InvalidEvent
from oomstream.schemas.types import ValueType
from tests.integration.agent_groups import CLICKS

KINDS: dict[str, ValueType] = {each.name: each.type for each in CLICKS.features}
AT = datetime(2024, 5, 1, 12, 30, 15, 123_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("feature", "value", "which"),
    [
        ("title", "", "string"),
        ("title", "é 😀", "string"),
        ("number", -(1 << 63), "int64"),
        ("small", 0, "int64"),
        ("share", -0.5, "double"),
        ("is_new", False, "bool"),
        ("seen", AT, "unix_milli"),
        ("seen", datetime(1960, 1, 1, tzinfo=UTC), "unix_milli"),
        ("raw", b"", "bytes"),
        ("day", date(2024, 2, 29), "string"),
        ("paid", Decimal("-1.50"), "string"),
        ("vector", [1.5, -2.0], "string"),
    ],
)
def test_there_and_back(feature: str, value: Any, which: str) -> None:
    """A value goes out in the field that fits and comes back as it was."""
    message = to_wire(value)
    assert message.WhichOneof("value") == which
    back = from_wire(KINDS[feature], message)
    assert (back, type(back)) == (value, type(value))


def test_null_is_a_message_with_nothing_set() -> None:
    """Null goes both ways, for every type."""
    assert to_wire(None).WhichOneof("value") is None
    assert [from_wire(kind, Value()) for kind in KINDS.values()] == [None] * len(KINDS)


def test_a_time_below_a_millisecond_is_cut_off_towards_the_past() -> None:
    """The protocol has milliseconds: 999 µs are cut off, before 1970 too."""
    assert to_wire(datetime(1970, 1, 1, 0, 0, 0, 1_999, tzinfo=UTC)).unix_milli == 1
    assert to_wire(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)).unix_milli == -1


def test_what_the_python_client_sends_is_understood() -> None:
    """It sends true, times and whole doubles as int64."""
    assert from_wire(KINDS["is_new"], Value(int64=1)) is True
    assert from_wire(KINDS["share"], Value(int64=3)) == 3
    assert from_wire(KINDS["seen"], Value(int64=1_714_566_615_123)) == AT


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ("title", Value(bytes=b"x")),
        ("title", Value(int64=1)),
        ("number", Value(double=1.0)),
        ("number", Value(string="1")),
        ("number", Value(bool=True)),
        ("is_new", Value(int64=2)),
        ("is_new", Value(string="true")),
        ("seen", Value(double=1.0)),
        ("seen", Value(unix_milli=1 << 62)),
        ("raw", Value(string="eA==")),
        ("day", Value(int64=19_000)),
        ("day", Value(string="1 May")),
        ("paid", Value(double=1.5)),
        ("paid", Value(string="1.505")),
        ("vector", Value(string='["a"]')),
        ("vector", Value(string="[NaN]")),
    ],
)
def test_nothing_is_taken_for_what_it_is_not(feature: str, message: Value) -> None:
    """A message of another type, or with a value out of the type's range, is an error that shows no value."""
    with pytest.raises(InvalidEvent) as raised:
        from_wire(KINDS[feature], message)
    assert "505" not in str(raised.value)
