"""Values that users and JSON events bring, to avro form: the right type or an error, never a guess.

From Python, types that hold the same value exactly are taken too (numpy's scalars and arrays, an enum that is text,
bytearray); from JSON nothing is. In both, an integer is good for a float or double: JSON writes 3.0 as 3.

Source:
    design.md, section 3 (no implicit conversion).
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from oomstream.schemas.decimals import decimal_from_text, unscaled_from_decimal
from oomstream.schemas.errors import InvalidEvent, Reason
from oomstream.schemas.kinds import Kind
from oomstream.schemas.times import EPOCH_DATE, day_from_text, us_from_text, us_from_time

if TYPE_CHECKING:
    from oomstream.schemas.types import ValueType

Convert = Callable[["ValueType", Any], Any]

_BUILTIN_NUMPY_KINDS = frozenset("biufU")


def to_builtin(value: Any) -> Any:
    """The builtin value of a numpy scalar of a kind that has one exactly; anything else as it is."""
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if kind in _BUILTIN_NUMPY_KINDS and getattr(value, "shape", None) == ():
        return value.item()
    return value


def wrong(expected: str) -> InvalidEvent:
    """The error for a value of another type."""
    return InvalidEvent(Reason.WRONG_TYPE, f"is not {expected}")


def to_float32(number: float) -> float:
    """The nearest value that a float holds.

    Raises:
        InvalidEvent: The number is too large for a float.
    """
    try:
        narrowed: float = struct.unpack("<f", struct.pack("<f", number))[0]
    except OverflowError as exc:
        raise InvalidEvent(Reason.OUT_OF_RANGE, "does not fit a float") from exc
    return narrowed


def exact_float(value: int) -> float:
    """The double of an integer that it must hold exactly.

    Raises:
        InvalidEvent: It does not.
    """
    try:
        number = float(value)
    except OverflowError as exc:
        raise InvalidEvent(Reason.OUT_OF_RANGE, "does not fit a double") from exc
    if int(number) != value:
        raise InvalidEvent(Reason.OUT_OF_RANGE, "is an integer that a double cannot hold exactly")
    return number


def _boolean(_: ValueType, value: Any) -> bool:
    if type(value) is not bool:
        raise wrong("true or false")
    return value


def _integer_from_python(_: ValueType, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong("an integer")
    return int(value)


def _integer_from_json(_: ValueType, value: Any) -> int:
    if type(value) is int:
        return value
    if type(value) is float and abs(value) >= 1 << 63 and value.is_integer():
        # orjson reads integers of more than 64 bits as floats.
        raise InvalidEvent(Reason.OUT_OF_RANGE, "is not an integer of 64 bits")
    raise wrong("an integer")


def _float_from_python(kind: ValueType, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong("a number")
    number = exact_float(value) if isinstance(value, int) else float(value)
    return to_float32(number) if kind.kind is Kind.FLOAT else number


def _float_from_json(kind: ValueType, value: Any) -> float:
    # Unlike from Python, 9007199254740993 is good for a double: in JSON it is one way to write the double nearest to
    # it, as 0.1 is, and JavaScript writes doubles so.
    if type(value) is not float and type(value) is not int:
        raise wrong("a number")
    number = float(value)
    return to_float32(number) if kind.kind is Kind.FLOAT else number


def _text_from_python(_: ValueType, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong("text")
    return str.__str__(value)  # of a text enum, the text


def _text_from_json(_: ValueType, value: Any) -> str:
    if type(value) is not str:
        raise wrong("text")
    return value


def _bytes_from_python(_: ValueType, value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise wrong("bytes")
    return bytes(value)


def _bytes_from_json(_: ValueType, value: Any) -> bytes:
    if type(value) is not str:
        raise wrong("base64 text")
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise wrong("base64 text") from exc
    if base64.b64encode(raw) != value.encode():  # bits after the last byte: a second text for the same bytes
        raise wrong("base64 text")
    return raw


def _date_from_python(_: ValueType, value: Any) -> int:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise wrong("a date")
    return (value - EPOCH_DATE).days


def _date_from_json(_: ValueType, value: Any) -> int:
    if type(value) is not str:
        raise wrong("a date as YYYY-MM-DD")
    try:
        return day_from_text(value)
    except ValueError as exc:
        raise wrong("a date as YYYY-MM-DD") from exc


def us_from_python(value: Any) -> int:
    """UTC microseconds of a datetime that a user passed in; a naive one is UTC.

    Raises:
        InvalidEvent: Not a datetime, or one with nanoseconds.
    """
    if not isinstance(value, datetime) or value != value:  # pandas' NaT is a datetime
        raise wrong("a datetime")
    if getattr(value, "nanosecond", 0):  # pandas' Timestamp
        raise InvalidEvent(Reason.OUT_OF_RANGE, "has a part smaller than a microsecond")
    return int(us_from_time(value))


def _time_from_python(kind: ValueType, value: Any) -> int:
    return time_in_unit(kind, us_from_python(value))


def time_in_unit(kind: ValueType, time_us: int) -> int:
    """Avro form of a time.

    Raises:
        InvalidEvent: It has a part smaller than the type's unit.
    """
    if kind.kind is Kind.TIMESTAMP_MICROS:
        return time_us
    if time_us % 1000:
        raise InvalidEvent(Reason.OUT_OF_RANGE, "has a part smaller than a millisecond")
    return time_us // 1000


def _time_from_json(kind: ValueType, value: Any) -> int:
    if type(value) is str:
        return time_in_unit(kind, us_from_text(value))
    if type(value) is not int:
        raise wrong("an integer time or RFC 3339 text")
    return value


def _decimal_from_python(kind: ValueType, value: Any) -> bytes:
    if isinstance(value, int) and not isinstance(value, bool):
        value = Decimal(int(value))
    if not isinstance(value, Decimal):
        raise wrong("a Decimal")
    return kind.unscaled_bytes(unscaled_from_decimal(value, kind.precision, kind.scale))


def _decimal_from_json(kind: ValueType, value: Any) -> bytes:
    if type(value) is not str:
        raise wrong("a decimal number as text")
    try:
        number = decimal_from_text(value)
    except ValueError as exc:
        raise wrong("a decimal number as text") from exc
    return kind.unscaled_bytes(unscaled_from_decimal(number, kind.precision, kind.scale))


def _array_from_python(kind: ValueType, value: Any) -> list[Any]:
    if getattr(value, "shape", ()) and hasattr(value, "tolist"):
        value = value.tolist()  # numpy's arrays
    if not isinstance(value, list | tuple):
        raise wrong("an array")
    return _items(kind, value, "avro_from_python")


def _array_from_json(kind: ValueType, value: Any) -> list[Any]:
    if type(value) is not list:
        raise wrong("an array")
    return _items(kind, value, "avro_from_json")


def _items(kind: ValueType, values: Sequence[Any], form: str) -> list[Any]:
    if len(values) > kind.max_items:  # before the work, which such an array is made to cause
        raise InvalidEvent(Reason.TOO_LARGE, f"has more than {kind.max_items} items")
    assert kind.item is not None
    return list(map(getattr(kind.item, form), values))


FROM_PYTHON: dict[Kind, Convert] = {
    Kind.BOOLEAN: _boolean,
    Kind.INT: _integer_from_python,
    Kind.LONG: _integer_from_python,
    Kind.FLOAT: _float_from_python,
    Kind.DOUBLE: _float_from_python,
    Kind.STRING: _text_from_python,
    Kind.BYTES: _bytes_from_python,
    Kind.DATE: _date_from_python,
    Kind.TIMESTAMP_MILLIS: _time_from_python,
    Kind.TIMESTAMP_MICROS: _time_from_python,
    Kind.DECIMAL: _decimal_from_python,
    Kind.ENUM: _text_from_python,
    Kind.ARRAY: _array_from_python,
}
"""Avro form of a builtin python value, per kind; ranges are checked elsewhere."""

FROM_JSON: dict[Kind, Convert] = {
    Kind.BOOLEAN: _boolean,
    Kind.INT: _integer_from_json,
    Kind.LONG: _integer_from_json,
    Kind.FLOAT: _float_from_json,
    Kind.DOUBLE: _float_from_json,
    Kind.STRING: _text_from_json,
    Kind.BYTES: _bytes_from_json,
    Kind.DATE: _date_from_json,
    Kind.TIMESTAMP_MILLIS: _time_from_json,
    Kind.TIMESTAMP_MICROS: _time_from_json,
    Kind.DECIMAL: _decimal_from_json,
    Kind.ENUM: _text_from_json,
    Kind.ARRAY: _array_from_json,
}
"""Avro form of a value that orjson read, per kind; ranges are checked elsewhere."""
