"""The type table: what a value of each type looks like in Avro, JSON, Python, SQL and Arrow.

Four forms of one value:

* **avro**: what an Avro codec gives without logical types (timestamps and dates are integers, decimals bytes);
* **plain**: the canonical form inside the pipeline, which is also the stored form in SQL: timestamps are integer
  microseconds, dates integer days since 1970-01-01, decimals exact text, arrays JSON text, the rest as it is;
* **python**: what users pass in and get back (datetime, date, Decimal, list, …);
* **json**: what a JSON event holds (see design.md, section 3).

Source:
    design.md, section 2 (types) and section 6 (stored form).
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import orjson

from oomstream.schemas.errors import InvalidEvent, Reason
from oomstream.schemas.events import Plain

if TYPE_CHECKING:
    import pyarrow as pa

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DATE = date(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)
MIN_TIME_US = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // MICROSECOND
MAX_TIME_US = (datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC) - _EPOCH) // MICROSECOND
_MIN_DAY = (date(1, 1, 1) - _EPOCH_DATE).days
_MAX_DAY = (date(9999, 12, 31) - _EPOCH_DATE).days
MAX_DECIMAL_PRECISION = 38
MAX_ARRAY_ITEMS = 1 << 17
"""Most items in one array: as many doubles as an event of 1 MiB holds."""
_DECIMAL_TEXT = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?", re.ASCII)


class Kind(StrEnum):
    """The types a field may have."""

    BOOLEAN = "boolean"
    INT = "int"
    LONG = "long"
    FLOAT = "float"
    DOUBLE = "double"
    STRING = "string"
    BYTES = "bytes"
    DATE = "date"
    TIMESTAMP_MILLIS = "timestamp-millis"
    TIMESTAMP_MICROS = "timestamp-micros"
    DECIMAL = "decimal"
    ENUM = "enum"
    ARRAY = "array"


@dataclass(frozen=True, slots=True)
class ValueType:
    """Type of a field.

    Attributes:
        kind: Row of the type table.
        precision: Of a decimal, in digits (1 to 38).
        scale: Of a decimal, digits after the point.
        fixed_size: Of a decimal on Avro `fixed`, its size in bytes; None on `bytes`.
        symbols: Of an enum, in order.
        item: Of an array, the type of its items (never null, never an array).
    """

    kind: Kind
    precision: int = 0
    scale: int = 0
    fixed_size: int | None = None
    symbols: tuple[str, ...] = ()
    item: ValueType | None = None

    def __str__(self) -> str:
        if self.kind is Kind.DECIMAL:
            return f"decimal({self.precision},{self.scale})"
        if self.item is not None:
            return f"array<{self.item}>"
        return self.kind.value

    @property
    def is_identity(self) -> bool:
        """Whether the avro form is the plain form, so that conversion can be left out."""
        return self.kind not in _CONVERTED

    def check(self, avro: Any) -> None:
        """Check that a decoded avro value lies in the type's range.

        Raises:
            InvalidEvent: It does not; the message says what is wrong but not with which field or value.
        """
        check = _CHECKS.get(self.kind)
        if check is not None:
            check(self, avro)

    def plain_from_avro(self, avro: Any) -> Plain:
        """Plain form of a checked avro value that is not null."""
        match self.kind:
            case Kind.TIMESTAMP_MILLIS:
                return int(avro) * 1000
            case Kind.DECIMAL:
                return decimal_text(int.from_bytes(avro, "big", signed=True), self.scale)
            case Kind.ARRAY:
                assert self.item is not None
                item = self.item
                return orjson.dumps([_json_item(item.plain_from_avro(each)) for each in avro]).decode()
        plain: Plain = avro
        return plain

    def avro_from_plain(self, plain: Any) -> Any:
        """Avro form of a plain value that is not null; the inverse of `plain_from_avro`."""
        match self.kind:
            case Kind.BOOLEAN:
                return bool(plain)  # SQL engines give integers back
            case Kind.TIMESTAMP_MILLIS:
                return plain // 1000
            case Kind.DECIMAL:
                return self.unscaled_bytes(int(Decimal(plain).scaleb(self.scale)))
            case Kind.ARRAY:
                assert self.item is not None
                item = self.item
                return [item.avro_from_plain(_plain_item(item, each)) for each in orjson.loads(plain)]
        return plain

    def python_from_plain(self, plain: Any) -> Any:
        """What users get for a plain value that is not null."""
        match self.kind:
            case Kind.BOOLEAN:
                return bool(plain)
            case Kind.DATE:
                return _EPOCH_DATE + timedelta(days=plain)
            case Kind.TIMESTAMP_MILLIS | Kind.TIMESTAMP_MICROS:
                return time_from_us(plain)
            case Kind.DECIMAL:
                return Decimal(plain)
            case Kind.ARRAY:
                assert self.item is not None
                item = self.item
                return [item.python_from_plain(_plain_item(item, each)) for each in orjson.loads(plain)]
        return plain

    def avro_from_python(self, value: Any) -> Any:
        """Avro form of a value that a user passed in; no implicit conversion but int to float.

        Raises:
            InvalidEvent: The value is not of this type; the message does not name the field.
        """
        avro = _FROM_PYTHON[self.kind](self, value)
        self.check(avro)
        return avro

    def avro_from_json(self, value: Any) -> Any:
        """Avro form of a value parsed from a JSON event; no implicit conversion.

        Raises:
            InvalidEvent: The value is not of this type; the message does not name the field.
        """
        avro = _FROM_JSON[self.kind](self, value)
        self.check(avro)
        return avro

    def canonical(self, avro: Any) -> Any:
        """The one avro form of a checked value: decimals in the fewest bytes, no negative zero."""
        match self.kind:
            case Kind.FLOAT | Kind.DOUBLE:
                return avro + 0.0  # turns -0.0 into 0.0: SQLite does not keep the sign, so no store may
            case Kind.DECIMAL:
                return self.unscaled_bytes(int.from_bytes(avro, "big", signed=True))
            case Kind.ARRAY if self.item is not None and self.item.kind is Kind.DECIMAL:
                return [self.item.canonical(each) for each in avro]
        return avro

    def unscaled_bytes(self, unscaled: int) -> bytes:
        """Shortest two's-complement bytes of an unscaled decimal (or of the fixed size)."""
        size = self.fixed_size or (unscaled if unscaled >= 0 else ~unscaled).bit_length() // 8 + 1
        return unscaled.to_bytes(size, "big", signed=True)

    def arrow(self) -> pa.DataType:
        """The Arrow type of the python form."""
        import pyarrow as pa

        if self.kind is Kind.DECIMAL:
            return pa.decimal128(self.precision, self.scale)
        if self.item is not None:
            return pa.list_(self.item.arrow())
        plain: dict[Kind, Callable[[], pa.DataType]] = {
            Kind.BOOLEAN: pa.bool_,
            Kind.INT: pa.int32,
            Kind.LONG: pa.int64,
            Kind.FLOAT: pa.float32,
            Kind.DOUBLE: pa.float64,
            Kind.BYTES: pa.binary,
            Kind.DATE: pa.date32,
            Kind.TIMESTAMP_MILLIS: lambda: pa.timestamp("us", "UTC"),
            Kind.TIMESTAMP_MICROS: lambda: pa.timestamp("us", "UTC"),
        }
        return plain.get(self.kind, pa.string)()


def decimal_text(unscaled: int, scale: int) -> str:
    """Exact text of a decimal, with all digits of its scale."""
    digits = str(abs(unscaled)).rjust(scale + 1, "0")
    sign = "-" if unscaled < 0 else ""
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}" if scale else f"{sign}{digits}"


def time_from_us(time_us: int) -> datetime:
    """Aware UTC datetime of integer microseconds."""
    return _EPOCH + timedelta(microseconds=time_us)


def us_from_time(time: datetime) -> int:
    """Integer UTC microseconds of a datetime; a naive one is UTC."""
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // MICROSECOND


def us_from_text(text: str) -> int:
    """UTC microseconds of RFC 3339 text with an offset.

    Raises:
        InvalidEvent: Not such text.
    """
    # fromisoformat also takes dates alone, week dates and times without offset: none of them is RFC 3339.
    try:
        time = datetime.fromisoformat(text) if len(text) >= 20 and text[10] in "Tt " else None
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise InvalidEvent(Reason.WRONG_TYPE, "is not RFC 3339 text with an offset")
    return us_from_time(time)


def _json_item(plain: Plain) -> Plain:
    return base64.b64encode(plain).decode() if isinstance(plain, bytes) else plain


def _plain_item(item: ValueType, value: Any) -> Any:
    return base64.b64decode(value) if item.kind is Kind.BYTES else value


def _in_range(low: int, high: int) -> Callable[[ValueType, Any], None]:
    def check(_: ValueType, avro: Any) -> None:
        if not low <= avro <= high:
            raise InvalidEvent(Reason.OUT_OF_RANGE, f"is outside {low} to {high}")

    return check


def _check_float(_: ValueType, avro: Any) -> None:
    if not math.isfinite(avro):
        raise InvalidEvent(Reason.NOT_FINITE, "is not a finite number")


def _check_decimal(kind: ValueType, avro: Any) -> None:
    if not avro:
        raise InvalidEvent(Reason.MALFORMED_AVRO, "is a decimal of no bytes")
    if len(avro) > 4096 or abs(int.from_bytes(avro, "big", signed=True)) >= 10**kind.precision:
        raise InvalidEvent(Reason.OUT_OF_RANGE, f"has more than {kind.precision} digits")


def _check_enum(kind: ValueType, avro: Any) -> None:
    if avro not in kind.symbols:
        raise InvalidEvent(Reason.UNKNOWN_SYMBOL, "is not a symbol of the enum")


def _check_text(_: ValueType, avro: Any) -> None:
    try:
        avro.encode()
    except UnicodeEncodeError as exc:
        raise InvalidEvent(Reason.INVALID_TEXT, "is not valid Unicode") from exc


def _check_array(kind: ValueType, avro: Any) -> None:
    assert kind.item is not None
    if len(avro) > MAX_ARRAY_ITEMS:
        raise InvalidEvent(Reason.TOO_LARGE, f"has more than {MAX_ARRAY_ITEMS} items")
    for each in avro:
        kind.item.check(each)


_CHECKS: dict[Kind, Callable[[ValueType, Any], None]] = {
    Kind.INT: _in_range(-(1 << 31), (1 << 31) - 1),
    Kind.LONG: _in_range(-(1 << 63), (1 << 63) - 1),
    Kind.FLOAT: _check_float,
    Kind.DOUBLE: _check_float,
    Kind.STRING: _check_text,
    Kind.DATE: _in_range(_MIN_DAY, _MAX_DAY),
    Kind.TIMESTAMP_MILLIS: _in_range(-(-MIN_TIME_US // 1000), MAX_TIME_US // 1000),
    Kind.TIMESTAMP_MICROS: _in_range(MIN_TIME_US, MAX_TIME_US),
    Kind.DECIMAL: _check_decimal,
    Kind.ENUM: _check_enum,
    Kind.ARRAY: _check_array,
}

_CONVERTED = frozenset({Kind.TIMESTAMP_MILLIS, Kind.DECIMAL, Kind.ARRAY})


def _wrong(expected: str) -> InvalidEvent:
    return InvalidEvent(Reason.WRONG_TYPE, f"is not {expected}")


def _exactly(python_type: type, expected: str) -> Callable[[ValueType, Any], Any]:
    def convert(_: ValueType, value: Any) -> Any:
        if type(value) is not python_type:
            raise _wrong(expected)
        return value

    return convert


def _float(kind: ValueType, value: Any) -> float:
    if type(value) is not float and type(value) is not int:
        raise _wrong("a number")
    try:
        number = float(value)
    except OverflowError as exc:
        raise InvalidEvent(Reason.OUT_OF_RANGE, "does not fit a double") from exc
    if type(value) is int and int(number) != value:
        raise InvalidEvent(Reason.OUT_OF_RANGE, "is an integer that a double cannot hold exactly")
    return _to_float32(number) if kind.kind is Kind.FLOAT else number


def _to_float32(number: float) -> float:
    try:
        narrowed: float = struct.unpack("<f", struct.pack("<f", number))[0]
    except OverflowError as exc:
        raise InvalidEvent(Reason.OUT_OF_RANGE, "does not fit a float") from exc
    return narrowed


def _decimal_avro(kind: ValueType, value: Decimal) -> bytes:
    if not value.is_finite():
        raise InvalidEvent(Reason.NOT_FINITE, "is not a finite number")
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    if -exponent > kind.scale and any(digits[len(digits) - (-exponent - kind.scale) :] if digits else ()):
        raise InvalidEvent(Reason.OUT_OF_RANGE, f"has more than {kind.scale} digits after the point")
    if value and value.adjusted() >= kind.precision - kind.scale:
        raise InvalidEvent(Reason.OUT_OF_RANGE, f"has more than {kind.precision} digits")
    unscaled = int(f"{abs(value):f}".replace(".", "") or "0") if exponent <= 0 else int(abs(value))
    shift = kind.scale + min(exponent, 0)
    unscaled = unscaled * 10**shift if shift >= 0 else unscaled // 10**-shift
    return kind.unscaled_bytes(-unscaled if value < 0 else unscaled)


def _decimal_from_python(kind: ValueType, value: Any) -> bytes:
    if type(value) is int:
        value = Decimal(value)
    if not isinstance(value, Decimal):
        raise _wrong("a Decimal")
    return _decimal_avro(kind, value)


def _decimal_from_json(kind: ValueType, value: Any) -> bytes:
    if type(value) is not str or len(value) > 128 or not _DECIMAL_TEXT.fullmatch(value):
        raise _wrong("a decimal number as text")
    try:
        return _decimal_avro(kind, Decimal(value))
    except InvalidOperation as exc:
        raise _wrong("a decimal number as text") from exc


def _time_from_python(kind: ValueType, value: Any) -> int:
    if not isinstance(value, datetime):
        raise _wrong("a datetime")
    return _time_in_unit(kind, us_from_time(value))


def _time_in_unit(kind: ValueType, time_us: int) -> int:
    if kind.kind is Kind.TIMESTAMP_MICROS:
        return time_us
    if time_us % 1000:
        raise InvalidEvent(Reason.OUT_OF_RANGE, "has a part smaller than a millisecond")
    return time_us // 1000


def _time_from_json(kind: ValueType, value: Any) -> int:
    if type(value) is int:
        return value
    if type(value) is not str:
        raise _wrong("an integer time or RFC 3339 text")
    return _time_in_unit(kind, us_from_text(value))


def _date_from_python(_: ValueType, value: Any) -> int:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise _wrong("a date")
    return (value - _EPOCH_DATE).days


def _date_from_json(_: ValueType, value: Any) -> int:
    if type(value) is not str or len(value) != 10:
        raise _wrong("a date as YYYY-MM-DD")
    try:
        return (date.fromisoformat(value) - _EPOCH_DATE).days
    except ValueError as exc:
        raise _wrong("a date as YYYY-MM-DD") from exc


def _bytes_from_json(_: ValueType, value: Any) -> bytes:
    if type(value) is not str:
        raise _wrong("base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise _wrong("base64 text") from exc


def _array(per_item: str) -> Callable[[ValueType, Any], list[Any]]:
    def convert(kind: ValueType, value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise _wrong("an array")
        item = kind.item
        assert item is not None
        return [getattr(item, per_item)(each) for each in value]

    return convert


_SAME: dict[Kind, Callable[[ValueType, Any], Any]] = {
    Kind.BOOLEAN: _exactly(bool, "true or false"),
    Kind.INT: _exactly(int, "an integer"),
    Kind.LONG: _exactly(int, "an integer"),
    Kind.FLOAT: _float,
    Kind.DOUBLE: _float,
    Kind.STRING: _exactly(str, "text"),
    Kind.ENUM: _exactly(str, "text"),
}
_FROM_PYTHON: dict[Kind, Callable[[ValueType, Any], Any]] = {
    **_SAME,
    Kind.BYTES: _exactly(bytes, "bytes"),
    Kind.DATE: _date_from_python,
    Kind.TIMESTAMP_MILLIS: _time_from_python,
    Kind.TIMESTAMP_MICROS: _time_from_python,
    Kind.DECIMAL: _decimal_from_python,
    Kind.ARRAY: _array("avro_from_python"),
}
_FROM_JSON: dict[Kind, Callable[[ValueType, Any], Any]] = {
    **_SAME,
    Kind.BYTES: _bytes_from_json,
    Kind.DATE: _date_from_json,
    Kind.TIMESTAMP_MILLIS: _time_from_json,
    Kind.TIMESTAMP_MICROS: _time_from_json,
    Kind.DECIMAL: _decimal_from_json,
    Kind.ARRAY: _array("avro_from_json"),
}
