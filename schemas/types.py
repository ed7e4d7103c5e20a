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
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from oomstream.schemas.conversions import FROM_JSON, FROM_PYTHON, to_builtin
from oomstream.schemas.decimals import MAX_DECIMAL_PRECISION as MAX_DECIMAL_PRECISION
from oomstream.schemas.decimals import decimal_text as decimal_text
from oomstream.schemas.decimals import unscaled_from_text
from oomstream.schemas.errors import InvalidEvent, Reason
from oomstream.schemas.events import Plain
from oomstream.schemas.kinds import Kind as Kind
from oomstream.schemas.times import EPOCH_DATE, MAX_DAY, MIN_DAY
from oomstream.schemas.times import MAX_TIME_US as MAX_TIME_US
from oomstream.schemas.times import MICROSECOND as MICROSECOND
from oomstream.schemas.times import MIN_TIME_US as MIN_TIME_US
from oomstream.schemas.times import time_from_us as time_from_us
from oomstream.schemas.times import us_from_text as us_from_text
from oomstream.schemas.times import us_from_time as us_from_time

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ARRAY_ITEMS = 1 << 17
"""Most items in one array: as many doubles as an event of 1 MiB holds."""

MAX_ARRAY_TEXT = 4 << 20
"""Most characters of plain form in all arrays of one event: TiDB refuses rows of more than 6 MiB."""

INTEGER_RANGES: dict[Kind, tuple[int, int]] = {
    Kind.INT: (-(1 << 31), (1 << 31) - 1),
    Kind.LONG: (-(1 << 63), (1 << 63) - 1),
    Kind.DATE: (MIN_DAY, MAX_DAY),
    Kind.TIMESTAMP_MILLIS: (-(-MIN_TIME_US // 1000), MAX_TIME_US // 1000),
    Kind.TIMESTAMP_MICROS: (MIN_TIME_US, MAX_TIME_US),
}
"""Least and greatest avro value of the types whose avro form is an integer."""


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
        return self.kind not in _TO_PLAIN

    @property
    def max_items(self) -> int:
        """Most items of an array of this type: 131,072, and no more than fit into the text of an event's arrays."""
        if self.item is not None and self.item.kind is Kind.DECIMAL:
            return min(MAX_ARRAY_ITEMS, MAX_ARRAY_TEXT // (self.item.scale + len('"0.",')))
        return MAX_ARRAY_ITEMS

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
        convert = _TO_PLAIN.get(self.kind)
        plain: Plain = avro if convert is None else convert(self, avro)
        return plain

    def avro_from_plain(self, plain: Any) -> Any:
        """Avro form of a plain value that is not null; the inverse of `plain_from_avro`."""
        match self.kind:
            case Kind.BOOLEAN:
                return bool(plain)  # SQL engines give integers back
            case Kind.FLOAT | Kind.DOUBLE:
                return float(plain)  # SQL engines may give an integer for a whole number
            case Kind.TIMESTAMP_MILLIS:
                return plain // 1000
            case Kind.DECIMAL:
                return self.unscaled_bytes(unscaled_from_text(plain, self.scale))
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
            case Kind.FLOAT | Kind.DOUBLE:
                return float(plain)
            case Kind.DATE:
                return EPOCH_DATE + timedelta(days=plain)
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
        """Canonical avro form of a value that a user passed in; no implicit conversion but int to float.

        Raises:
            InvalidEvent: The value is not of this type; the message does not name the field.
        """
        kind = self.kind
        avro = FROM_PYTHON[kind](self, value if type(value) in _BUILTIN else to_builtin(value))
        check = _CHECKS.get(kind)
        if check is not None:
            check(self, avro)
        return self.canonical(avro) if kind in _NORMALISED else avro

    def avro_from_json(self, value: Any) -> Any:
        """Canonical avro form of a value parsed from a JSON event; no implicit conversion but int to float.

        Raises:
            InvalidEvent: The value is not of this type; the message does not name the field.
        """
        avro = FROM_JSON[self.kind](self, value)
        self.check(avro)
        return self.canonical(avro)

    def canonical(self, avro: Any) -> Any:
        """The one avro form of a checked value: decimals in the fewest bytes, no negative zero outside arrays."""
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


def _array_text(kind: ValueType, avro: list[Any]) -> str:
    item = kind.item
    assert item is not None
    if not item.is_identity or item.kind is Kind.BYTES:
        avro = [_json_item(item.plain_from_avro(each)) for each in avro]
    return orjson.dumps(avro).decode()


def _json_item(plain: Plain) -> Plain:
    return base64.b64encode(plain).decode() if isinstance(plain, bytes) else plain


def _plain_item(item: ValueType, value: Any) -> Any:
    return base64.b64decode(value) if item.kind is Kind.BYTES else value


def _check_integer(kind: ValueType, avro: Any) -> None:
    low, high = INTEGER_RANGES[kind.kind]
    if not low <= avro <= high:
        raise InvalidEvent(Reason.OUT_OF_RANGE, f"is outside {low} to {high}")


def _check_float(_: ValueType, avro: Any) -> None:
    if not math.isfinite(avro):
        raise InvalidEvent(Reason.NOT_FINITE, "is not a finite number")


def _check_decimal(kind: ValueType, avro: Any) -> None:
    if not avro:
        raise InvalidEvent(Reason.MALFORMED_AVRO, "is a decimal of no bytes")
    # Bytes beyond these only repeat the sign, and some encoders write a few; so many are no number of ours.
    if len(avro) > 128 or abs(int.from_bytes(avro, "big", signed=True)) >= 10**kind.precision:
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
    if len(avro) > kind.max_items:
        raise InvalidEvent(Reason.TOO_LARGE, f"has more than {kind.max_items} items")
    if kind.item.kind in _CHECKS:
        for each in avro:
            kind.item.check(each)


_CHECKS: dict[Kind, Callable[[ValueType, Any], None]] = {
    **dict.fromkeys(INTEGER_RANGES, _check_integer),
    Kind.FLOAT: _check_float,
    Kind.DOUBLE: _check_float,
    Kind.STRING: _check_text,
    Kind.DECIMAL: _check_decimal,
    Kind.ENUM: _check_enum,
    Kind.ARRAY: _check_array,
}

_TO_PLAIN: dict[Kind, Callable[[ValueType, Any], Plain]] = {
    Kind.TIMESTAMP_MILLIS: lambda _, avro: int(avro) * 1000,
    Kind.DECIMAL: lambda kind, avro: decimal_text(int.from_bytes(avro, "big", signed=True), kind.scale),
    Kind.ARRAY: _array_text,
}
_NORMALISED = frozenset({Kind.FLOAT, Kind.DOUBLE, Kind.DECIMAL, Kind.ARRAY})
_BUILTIN = frozenset({bool, int, float, str, bytes})
