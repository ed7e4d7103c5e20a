"""Values as oomagent's protocol carries them, to and from python form.

It knows int64, double, string, bool, milliseconds and bytes. What it does not know travels as text: dates as
YYYY-MM-DD, decimals as digits, arrays as JSON.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from oomstream.agents.cli.output import text_of
from oomstream.agents.serve.oomagent_pb2 import Value
from oomstream.schemas.errors import InvalidEvent, Reason
from oomstream.schemas.kinds import Kind
from oomstream.schemas.texts import avro_from_text
from oomstream.schemas.types import MAX_TIME_US, MIN_TIME_US, ValueType, time_from_us, us_from_time

_TIMES = frozenset({Kind.TIMESTAMP_MILLIS, Kind.TIMESTAMP_MICROS})
_AS_TEXT = frozenset({Kind.DATE, Kind.DECIMAL, Kind.ARRAY})
_TAKES: dict[Kind, frozenset[str]] = {
    # oomstore's Python client sends what Python calls an int, which true and false are, as int64.
    Kind.BOOLEAN: frozenset({"bool", "int64"}),
    Kind.INT: frozenset({"int64"}),
    Kind.LONG: frozenset({"int64"}),
    Kind.FLOAT: frozenset({"double", "int64"}),
    Kind.DOUBLE: frozenset({"double", "int64"}),
    Kind.STRING: frozenset({"string"}),
    Kind.ENUM: frozenset({"string"}),
    Kind.BYTES: frozenset({"bytes"}),
    **dict.fromkeys(_TIMES, frozenset({"unix_milli", "int64"})),
    **dict.fromkeys(_AS_TEXT, frozenset({"string"})),
}
"""The fields of `Value` that a feature of each type takes."""


def to_wire(value: Any) -> Value:
    """The message of a value in python form; a time's part below a millisecond is cut off, as the protocol has none."""
    if value is None:
        return Value()
    if isinstance(value, bool):
        return Value(bool=value)
    if isinstance(value, int):
        return Value(int64=value)
    if isinstance(value, float):
        return Value(double=value)
    if isinstance(value, str):
        return Value(string=value)
    if isinstance(value, bytes):
        return Value(bytes=value)
    if isinstance(value, datetime):
        return Value(unix_milli=us_from_time(value) // 1000)
    return Value(string=text_of(value))


def from_wire(kind: ValueType, message: Value) -> Any:
    """The python form of a feature's value; None for null.

    Raises:
        InvalidEvent: It is no value of the feature's type; the message names neither feature nor value.
    """
    which = message.WhichOneof("value")
    if which is None:
        return None
    value = getattr(message, which)
    if which not in _TAKES[kind.kind]:
        raise InvalidEvent(Reason.WRONG_TYPE, f"is of type {kind} and takes no {which}")
    if kind.kind is Kind.BOOLEAN and which == "int64":
        if value not in (0, 1):
            raise InvalidEvent(Reason.WRONG_TYPE, "is neither true nor false")
        return bool(value)
    if kind.kind in _TIMES:
        if not MIN_TIME_US <= value * 1000 <= MAX_TIME_US:
            raise InvalidEvent(Reason.OUT_OF_RANGE, "is outside the years 1 to 9999")
        return time_from_us(value * 1000)
    if kind.kind in _AS_TEXT:
        return kind.python_from_plain(kind.plain_from_avro(avro_from_text(kind, value)))
    return value
