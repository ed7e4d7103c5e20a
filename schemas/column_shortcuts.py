"""The short ways from columns of a file to values in avro form (see `file_columns`), which loop in C.

Each gives the whole column, or None (or raises `DOUBT`) where anything is not as expected: then the long way is taken.
Ranges, lengths and symbols are for the caller to judge.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import orjson
import pyarrow as pa

from oomstream.schemas.arrow import Chunked, cast, pc
from oomstream.schemas.columns import Column
from oomstream.schemas.conversions import time_in_unit
from oomstream.schemas.errors import InvalidEvent
from oomstream.schemas.texts import FALSE, MILLISECOND_US, TRUE
from oomstream.schemas.types import Kind, ValueType

DOUBT = (pa.ArrowInvalid, pa.ArrowNotImplementedError, InvalidEvent, ValueError, OverflowError, struct.error)
"""What the short ways raise where something is not as expected."""

UNITS_US = {"s": 1_000_000, "ms": 1_000, "us": 1}
"""Arrow's units of times in microseconds; a nanosecond is a part of one."""

# Narrower than what Arrow reads as a time: it also takes times with no seconds, and offsets with no colon.
_RFC_3339 = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$"

Short = Callable[[ValueType, Chunked, int], Column | None]
"""Gets the field's type, the column, and what an integer counts where the field is a time (microseconds)."""


def _booleans(_: ValueType, column: Chunked, __: int) -> Column | None:
    return column.to_pylist() if pa.types.is_boolean(column.type) else None


def _whole(_: ValueType, column: Chunked, __: int) -> Column | None:
    return column.to_pylist() if pa.types.is_integer(column.type) else None


def _floats(kind: ValueType, column: Chunked, __: int) -> Column | None:
    if not pa.types.is_floating(column.type):
        return None
    if kind.kind is Kind.FLOAT:
        column = cast(column, pa.float32())
    return cast(column, pa.float64()).to_pylist()


def _texts(_: ValueType, column: Chunked, __: int) -> Column | None:
    return column.to_pylist() if pa.types.is_string(column.type) else None


def _blobs(_: ValueType, column: Chunked, __: int) -> Column | None:
    return column.to_pylist() if pa.types.is_binary(column.type) else None


def integers(column: Chunked) -> Chunked:
    """Integers of any kind, or what is stored as such, as int64."""
    return cast(column, pa.int64())


def _days(_: ValueType, column: Chunked, __: int) -> Column | None:
    return cast(column, pa.int32()).to_pylist() if pa.types.is_date32(column.type) else None


def _times(kind: ValueType, column: Chunked, unit_us: int) -> Column | None:
    arrow = column.type
    if pa.types.is_integer(arrow):
        return _scaled(kind, column.to_pylist(), unit_us)
    if not pa.types.is_timestamp(arrow) or arrow.unit == "ns":
        return None
    return _scaled(kind, integers(column).to_pylist(), UNITS_US[arrow.unit])


def _scaled(kind: ValueType, ticks: Column, unit_us: int) -> Column:
    """Avro form of times; raises if one has a part smaller than the type's unit."""
    own_us = 1 if kind.kind is Kind.TIMESTAMP_MICROS else MILLISECOND_US
    if unit_us == own_us:
        return ticks
    return [None if each is None else time_in_unit(kind, each * unit_us) for each in ticks]


def _lists(kind: ValueType, column: Chunked, __: int) -> Column | None:
    arrow = column.type
    is_list = pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow)
    if not is_list or kind.item is None:
        return None
    is_avro = _AVRO_ITEMS.get(kind.item.kind)
    if is_avro is None or not is_avro(arrow.value_type):
        return None
    chunks: Any = column.chunks
    if any(items.flatten().null_count for items in chunks):
        return None
    lists = column.to_pylist()
    if not pa.types.is_floating(arrow.value_type):
        return lists
    return [None if each is None else _without_negative_zeros(each) for each in lists]


def _without_negative_zeros(items: list[float]) -> list[float]:
    return [each + 0.0 for each in items] if 0.0 in items else items


_AVRO_ITEMS: dict[Kind, Callable[[pa.DataType], bool]] = {
    Kind.BOOLEAN: pa.types.is_boolean,
    Kind.INT: pa.types.is_integer,
    Kind.LONG: pa.types.is_integer,
    Kind.FLOAT: pa.types.is_float32,
    Kind.DOUBLE: pa.types.is_floating,
    Kind.STRING: pa.types.is_string,
    Kind.ENUM: pa.types.is_string,
}
"""Types of items that Python gets in avro form already."""


def _none(_: ValueType, __: Chunked, ___: int) -> Column | None:
    return None


SHORT: dict[Kind, Short] = {
    Kind.BOOLEAN: _booleans,
    Kind.INT: _whole,
    Kind.LONG: _whole,
    Kind.FLOAT: _floats,
    Kind.DOUBLE: _floats,
    Kind.STRING: _texts,
    Kind.BYTES: _blobs,
    Kind.DATE: _days,
    Kind.TIMESTAMP_MILLIS: _times,
    Kind.TIMESTAMP_MICROS: _times,
    Kind.DECIMAL: _none,
    Kind.ENUM: _texts,
    Kind.ARRAY: _lists,
}
"""By kind, for typed columns."""


def _filled(column: Chunked) -> Chunked:
    """Cells with null for an empty one."""
    filled: Chunked = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    return filled


def _booleans_of_text(_: ValueType, column: Chunked, __: int) -> Column | None:
    is_true, is_false = (pc.is_in(column, value_set=pa.array(texts)) for texts in (TRUE, FALSE))
    is_empty = pc.equal(column, "")
    if not pc.all(pc.or_(pc.or_(is_true, is_false), is_empty)).as_py():
        return None
    found: Chunked = pc.if_else(is_empty, pa.scalar(None, pa.bool_()), is_true)
    return found.to_pylist()


def _whole_of_text(_: ValueType, column: Chunked, __: int) -> Column | None:
    texts = _filled(column)
    numbers = integers(texts)
    # Arrow reads hexadecimal digits too: only what it would write itself is as expected.
    as_expected = pc.all(pc.equal(cast(numbers, pa.string()), texts)).as_py()
    return None if as_expected is False else numbers.to_pylist()


def _floats_of_text(kind: ValueType, column: Chunked, unit_us: int) -> Column | None:
    return _floats(kind, cast(_filled(column), pa.float64()), unit_us)


def _enums_of_text(_: ValueType, column: Chunked, __: int) -> Column | None:
    return _filled(column).to_pylist()


def _days_of_text(kind: ValueType, column: Chunked, unit_us: int) -> Column | None:
    return _days(kind, cast(_filled(column), pa.date32()), unit_us)


def _times_of_text(kind: ValueType, column: Chunked, unit_us: int) -> Column | None:
    texts = _filled(column)
    if pc.all(pc.match_substring_regex(texts, _RFC_3339)).as_py():
        return _times(kind, cast(texts, pa.timestamp("us", "UTC")), unit_us)
    ticks = _whole_of_text(kind, column, unit_us)
    return None if ticks is None else _scaled(kind, ticks, unit_us)


def _lists_of_text(kind: ValueType, column: Chunked, __: int) -> Column | None:
    item = kind.item.kind if kind.item is not None else None
    lists = [None if not text else orjson.loads(text) for text in column.to_pylist()]
    present = [each for each in lists if each is not None]
    if set(map(type, present)) != {list}:
        return None
    found = set(map(type, chain.from_iterable(present)))
    if item in (Kind.FLOAT, Kind.DOUBLE) and found <= {float, int}:
        to_floats = _floats_of_list if item is Kind.FLOAT else _doubles_of_list
        return [None if each is None else to_floats(each) for each in lists]
    as_it_is = _AS_IN_JSON.get(item) if item is not None else None
    return lists if as_it_is is not None and found <= {as_it_is} else None


def _doubles_of_list(items: Sequence[float]) -> list[float]:
    return _without_negative_zeros(list(map(float, items)))


def _floats_of_list(items: Sequence[float]) -> list[float]:
    layout = f"<{len(items)}f"
    return _without_negative_zeros(list(struct.unpack(layout, struct.pack(layout, *items))))


_AS_IN_JSON = {Kind.BOOLEAN: bool, Kind.INT: int, Kind.LONG: int, Kind.STRING: str, Kind.ENUM: str}

SHORT_OF_TEXT: dict[Kind, Short] = {
    Kind.BOOLEAN: _booleans_of_text,
    Kind.INT: _whole_of_text,
    Kind.LONG: _whole_of_text,
    Kind.FLOAT: _floats_of_text,
    Kind.DOUBLE: _floats_of_text,
    Kind.STRING: _texts,
    Kind.BYTES: _none,
    Kind.DATE: _days_of_text,
    Kind.TIMESTAMP_MILLIS: _times_of_text,
    Kind.TIMESTAMP_MICROS: _times_of_text,
    Kind.DECIMAL: _none,
    Kind.ENUM: _enums_of_text,
    Kind.ARRAY: _lists_of_text,
}
"""By kind, for cells of a CSV file."""
