"""Values as the cells of a CSV file write them, to avro form: the right type or an error, never a guess.

Text, bytes (base64), dates, decimals and enums are written as in JSON events. Integers are decimal digits, floats
decimal digits with an optional point and exponent, booleans ``true`` or ``false`` (``True``, ``TRUE``), arrays JSON
text, and times RFC 3339 with an offset or integer milliseconds since 1970-01-01 UTC: of microseconds, which a time in
milliseconds could be taken for, it would be one of 1970.

Source:
    design.md, section 3 (no implicit conversion); oomcli.md (import).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson

from oomstream.schemas.conversions import FROM_JSON, Convert, time_in_unit, to_float32, wrong
from oomstream.schemas.errors import InvalidEvent, Reason
from oomstream.schemas.kinds import Kind
from oomstream.schemas.times import us_from_text

if TYPE_CHECKING:
    from oomstream.schemas.types import ValueType

MILLISECOND_US = 1000
"""A millisecond in microseconds: what an integer counts where a file holds a time."""

TRUE = ("true", "True", "TRUE")
"""How true is written."""

FALSE = ("false", "False", "FALSE")
"""How false is written."""

_MAX_DIGITS = 100
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_FLOAT = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)


def avro_from_text(kind: ValueType, text: str) -> Any:
    """Canonical avro form of a cell that is not null.

    Raises:
        InvalidEvent: The text is no value of this type; the message names neither field nor value.
    """
    avro = _FROM_TEXT[kind.kind](kind, text)
    kind.check(avro)
    return kind.canonical(avro)


def integer_from_text(text: str) -> int:
    """The integer that a cell holds.

    Raises:
        InvalidEvent: The text is none, or one of more digits than any type has.
    """
    if not _INTEGER.fullmatch(text):
        raise wrong("an integer")
    if len(text) > _MAX_DIGITS:  # before Python makes a number of it
        raise InvalidEvent(Reason.OUT_OF_RANGE, "is not an integer of 64 bits")
    return int(text)


def time_us_from_text(text: str, unit_us: int) -> int:
    """UTC microseconds of a time in a cell.

    Args:
        text: RFC 3339 with an offset, or an integer.
        unit_us: What the integer counts since 1970-01-01 UTC, in microseconds.

    Raises:
        InvalidEvent: The text is neither.
    """
    if _INTEGER.fullmatch(text):
        return integer_from_text(text) * unit_us
    try:
        return us_from_text(text)
    except InvalidEvent as exc:
        if exc.reason is Reason.WRONG_TYPE:
            raise InvalidEvent(exc.reason, f"{exc}, nor an integer") from exc
        raise


def _boolean(_: ValueType, text: str) -> bool:
    if text in TRUE or text in FALSE:
        return text in TRUE
    raise wrong("true or false")


def _float(kind: ValueType, text: str) -> float:
    if not _FLOAT.fullmatch(text):
        raise wrong("a number")
    number = float(text)
    return to_float32(number) if kind.kind is Kind.FLOAT else number


def _time(kind: ValueType, text: str) -> int:
    return time_in_unit(kind, time_us_from_text(text, MILLISECOND_US))


def _array(kind: ValueType, text: str) -> Any:
    try:
        items = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise wrong("a JSON array") from exc
    return FROM_JSON[Kind.ARRAY](kind, items)


_FROM_TEXT: dict[Kind, Convert] = {
    **{kind: FROM_JSON[kind] for kind in (Kind.STRING, Kind.BYTES, Kind.DATE, Kind.DECIMAL, Kind.ENUM)},
    Kind.BOOLEAN: _boolean,
    Kind.INT: lambda _, text: integer_from_text(text),
    Kind.LONG: lambda _, text: integer_from_text(text),
    Kind.FLOAT: _float,
    Kind.DOUBLE: _float,
    Kind.TIMESTAMP_MILLIS: _time,
    Kind.TIMESTAMP_MICROS: _time,
    Kind.ARRAY: _array,
}
