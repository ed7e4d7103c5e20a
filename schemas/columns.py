"""Whole columns of values: judged and converted in a few calls that loop in C.

A column is the values of one field in many events, in avro form, None for null. The functions here say yes only if
every value is beyond doubt; otherwise each event is judged by itself, which also finds out what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from typing import Any

from oomstream.schemas.errors import InvalidEvent
from oomstream.schemas.keys import MAX_PART_BYTES
from oomstream.schemas.layout import RecordField
from oomstream.schemas.types import INTEGER_RANGES, Kind, ValueType

Column = Sequence[Any]
Judge = Callable[[Column], bool]
ToPlain = Callable[[Column], Column]

_NO_NEED = frozenset({Kind.BOOLEAN, Kind.STRING, Kind.BYTES, Kind.ENUM})
"""Kinds whose values are all valid once a reader has made them."""


def judge_of(field: RecordField) -> Judge | None:
    """What tells whether all values of a column are valid; None where they cannot be otherwise."""
    return _of_present(_judge(field.type), field.nullable)


def is_canonical_of(field: RecordField) -> Judge | None:
    """What tells whether all valid values of a column are canonical; None where they cannot be otherwise."""
    return _of_present(_is_canonical(field.type), field.nullable)


def canonical_column(kind: ValueType, column: Column) -> Column:
    """The canonical form of a column of valid values."""
    canonical = kind.canonical
    return [None if each is None else canonical(each) for each in column]


def to_plain_of(kind: ValueType) -> ToPlain | None:
    """What gives a column's plain form; None where it is the avro form."""
    if kind.is_identity:
        return None
    convert = kind.plain_from_avro
    if kind.kind is Kind.TIMESTAMP_MILLIS:
        return lambda column: [None if each is None else each * 1000 for each in column]
    return lambda column: [None if each is None else convert(each) for each in column]


def judge_of_key(kind: ValueType) -> Judge | None:
    """What tells whether all values of a key column have a length that a key may have."""
    if kind.kind not in {Kind.STRING, Kind.BYTES}:
        return None
    # A character takes at most 4 bytes.
    longest = MAX_PART_BYTES // 4 if kind.kind is Kind.STRING else MAX_PART_BYTES
    return lambda column: min(map(len, column)) > 0 and max(map(len, column)) <= longest


def array_text_bytes(values: Iterable[Column]) -> int:
    """Bytes of text in columns of arrays, about; nulls count nothing."""
    return sum(len(each) for each in chain.from_iterable(values) if each is not None)


def _of_present(judge: Judge | None, nullable: bool) -> Judge | None:
    if judge is None or not nullable:
        return judge
    return lambda column: judge([each for each in column if each is not None] if None in column else column)


def _judge(kind: ValueType) -> Judge | None:
    if kind.kind in _NO_NEED:
        return None
    if kind.kind in INTEGER_RANGES:
        low, high = INTEGER_RANGES[kind.kind]
        return lambda column: not column or (low <= min(column) and max(column) <= high)
    if kind.kind in {Kind.FLOAT, Kind.DOUBLE}:
        # A sum is finite only if every summand is; a sum of finite ones that overflows is merely left in doubt.
        return lambda column: math.isfinite(sum(column))
    if kind.kind is Kind.DECIMAL:
        check = kind.check
        return lambda column: _none_raises(check, column)
    assert kind.item is not None
    of_items = _judge(kind.item)
    most = kind.max_items
    return lambda column: _all_arrays(column, most, of_items)


def _is_canonical(kind: ValueType) -> Judge | None:
    if kind.kind in {Kind.FLOAT, Kind.DOUBLE}:
        return _no_negative_zero
    if kind.kind is Kind.DECIMAL:
        canonical = kind.canonical
        return lambda column: all(map(bytes.__eq__, column, map(canonical, column)))
    if kind.item is not None and kind.item.kind is Kind.DECIMAL:
        of_items = _is_canonical(kind.item)
        assert of_items is not None
        return lambda column: of_items(list(chain.from_iterable(column)))
    return None


def _no_negative_zero(column: Column) -> bool:
    return 0.0 not in column or -1.0 not in map(math.copysign, repeat(1.0), [each for each in column if not each])


def _none_raises(check: Callable[[Any], None], column: Column) -> bool:
    try:
        for each in column:
            check(each)
    except InvalidEvent:
        return False
    return True


def _all_arrays(column: Column, most: int, of_items: Judge | None) -> bool:
    if column and max(map(len, column)) > most:
        return False
    return of_items is None or of_items(list(chain.from_iterable(column)))
