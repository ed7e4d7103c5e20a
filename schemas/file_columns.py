"""Columns of a file, as Arrow has them, to columns of values in avro form: exactly what is meant, or an error.

There are two kinds of columns: cells of a CSV file, which are all text, and typed ones (parquet, Arrow). Both are read
in two ways that give the same: a short one for a column in which everything is as expected, which loops in C, and a
long one, value by value, which also says which value is wrong.

A typed column must have the type of its field: no whole float is an integer, no text a number. Text is read where an
event in JSON holds text too (bytes, dates, times, decimals), and an integer as a time in milliseconds.

Source:
    design.md, section 2 (types) and section 3 (no implicit conversion).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

import pyarrow as pa

from oomstream.schemas.arrow import Chunked, cast, plain_layout
from oomstream.schemas.column_shortcuts import DOUBT, SHORT, SHORT_OF_TEXT, UNITS_US, integers
from oomstream.schemas.columns import Column, canonical_column, is_canonical_of, judge_of, judge_of_key
from oomstream.schemas.conversions import time_in_unit, wrong
from oomstream.schemas.errors import InvalidEvent, Reason
from oomstream.schemas.groups import EventTimeField
from oomstream.schemas.keys import check_part
from oomstream.schemas.layout import RecordField
from oomstream.schemas.texts import MILLISECOND_US, avro_from_text, time_us_from_text
from oomstream.schemas.types import Kind, ValueType

_TIMES = frozenset({Kind.TIMESTAMP_MILLIS, Kind.TIMESTAMP_MICROS})
_TEXT_IN_JSON = frozenset({Kind.BYTES, Kind.DATE, Kind.DECIMAL, *_TIMES})
_DAY_MS = 86_400_000

Convert = Callable[[Any], Any]


class InvalidCell(InvalidEvent):
    """One value of a column is wrong; the message names neither column nor value.

    Attributes:
        at: Its row, from 0, among those of the column.
    """

    def __init__(self, at: int, error: InvalidEvent) -> None:
        super().__init__(error.reason, str(error))
        self.at = at


class FileField:
    """Reads the columns of one field.

    Args:
        field: The field.
        is_key: Whether it is part of the entity key, whose values are never null, empty or long.
        unit_us: What an integer counts where the field is a time, in microseconds.
    """

    def __init__(self, field: RecordField, *, is_key: bool = False, unit_us: int = MILLISECOND_US) -> None:
        self.name = field.name
        self._kind = field.type
        self._nullable = field.nullable
        self._is_key = is_key
        self._unit_us = unit_us
        judges = [judge_of(field), judge_of_key(field.type) if is_key else None, _judge_of_enum(field)]
        self._judges = [judge for judge in judges if judge is not None]
        self._is_canonical = is_canonical_of(field)

    def read(self, column: Chunked, *, is_text: bool) -> Column:
        """Values in canonical avro form, None for null.

        Args:
            column: One column of a batch.
            is_text: Whether it holds cells of a CSV file: an empty one is null, unless the field is text.

        Raises:
            InvalidCell: A value is wrong; the first one.
        """
        try:
            column = plain_layout(column)
            short = SHORT_OF_TEXT if is_text else SHORT
            values = short[self._kind.kind](self._kind, column, self._unit_us) if len(column) else []
        except DOUBT:
            values = None
        if values is None or not self._is_valid(values):
            return self._one_by_one(column, is_text=is_text)
        if self._is_canonical is not None and not self._is_canonical(values):
            return canonical_column(self._kind, values)
        return values

    def _is_valid(self, values: Column) -> bool:
        if not values:
            return True
        if not self._nullable and None in values:
            return False
        return all(judge(values) for judge in self._judges)

    def _one_by_one(self, column: Chunked, *, is_text: bool) -> Column:
        cells = _text_cells(self._kind, self._unit_us) if is_text else _cells(self._kind, column.type, self._unit_us)
        found: list[Any] = []
        for scalar in cells.prepare(column):
            try:
                found.append(self._one(_value(scalar), cells.convert, is_text=is_text))
            except InvalidEvent as exc:
                raise InvalidCell(len(found), exc) from None  # the chain of exceptions holds the value
        return found

    def _one(self, value: Any, convert: Convert, *, is_text: bool) -> Any:
        if is_text and value == "" and self._kind.kind is not Kind.STRING:
            value = None
        if value is None:
            if self._is_key:
                check_part(None)
            if not self._nullable:
                raise InvalidEvent(Reason.NULL_REQUIRED, "is null but is not nullable")
            return None
        avro = convert(value)
        self._kind.check(avro)
        if self._is_key:
            check_part(avro)
        return self._kind.canonical(avro)


class EventTimeReader:
    """Reads the columns of a group's event time.

    Args:
        event_time: The field.
        unit_us: What an integer counts in the file, in microseconds.
    """

    def __init__(self, event_time: EventTimeField, unit_us: int) -> None:
        self.name = event_time.name
        field = RecordField(event_time.name, ValueType(Kind.TIMESTAMP_MICROS))
        self._times = FileField(field, unit_us=unit_us)
        self._event_time = event_time

    def read(self, column: Chunked, *, is_text: bool) -> Column:
        """Event times in the field's own unit.

        Raises:
            InvalidCell: One is null, no time, or has a part smaller than the unit; the first one.
        """
        try:
            times = self._times.read(column, is_text=is_text)
        except InvalidCell as exc:
            if exc.reason is not Reason.NULL_REQUIRED:
                raise
            raise InvalidCell(exc.at, InvalidEvent(exc.reason, "is null, but is the event time")) from None
        unit_us = self._event_time.unit.microseconds
        if unit_us == 1:
            return times
        ticks = [each // unit_us for each in times]
        for at, (time_us, whole) in enumerate(zip(times, ticks, strict=True)):
            if time_us != whole * unit_us:
                try:
                    self._event_time.ticks(time_us)
                except InvalidEvent as exc:
                    raise InvalidCell(at, exc) from None
        return ticks


def _judge_of_enum(field: RecordField) -> Callable[[Column], bool] | None:
    """What tells whether all texts are symbols of an enum, or items that are; None for other types."""
    kind = field.type.item or field.type
    if kind.kind is not Kind.ENUM:
        return None
    known = frozenset((*kind.symbols, None))
    if field.type.item is None:
        return known.issuperset
    return lambda column: known.issuperset(chain.from_iterable(each for each in column if each is not None))


class _Cells(NamedTuple):
    """How the values of a column are read one by one.

    Attributes:
        prepare: What makes the column one of values that Python holds exactly.
        convert: What makes such a value, if it is not null, its avro form; ranges are checked afterwards.
    """

    prepare: Callable[[Chunked], Chunked]
    convert: Convert


def _value(scalar: Any) -> Any:
    """The Python value of an Arrow scalar."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError as exc:
        raise InvalidEvent(Reason.INVALID_TEXT, "is not valid UTF-8") from exc
    except (ValueError, OverflowError) as exc:
        raise InvalidEvent(Reason.OUT_OF_RANGE, "is outside the years 1 to 9999") from exc


def _same(what: Any) -> Any:
    return what


def _text_cells(kind: ValueType, unit_us: int) -> _Cells:
    if kind.kind in _TIMES:
        return _Cells(_same, lambda text: time_in_unit(kind, time_us_from_text(text, unit_us)))
    return _Cells(_same, lambda text: avro_from_text(kind, text))


def _cells(kind: ValueType, arrow: pa.DataType, unit_us: int) -> _Cells:
    """How a typed column is read one by one."""
    if pa.types.is_string(arrow) and kind.kind in _TEXT_IN_JSON:
        return _text_cells(kind, unit_us)
    if kind.kind in _TIMES:
        if pa.types.is_timestamp(arrow):
            return _Cells(integers, lambda ticks: time_in_unit(kind, _us_of_ticks(ticks, arrow.unit)))
        if pa.types.is_integer(arrow):
            return _Cells(_same, lambda ticks: time_in_unit(kind, ticks * unit_us))
        return _Cells(_same, _no_time)
    if kind.kind is Kind.DATE and pa.types.is_date32(arrow):
        return _Cells(lambda column: cast(column, pa.int32()), _same)
    if kind.kind is Kind.DATE and pa.types.is_date64(arrow):
        return _Cells(integers, _day_of_ms)
    return _Cells(_same, kind.avro_from_python)


def _no_time(_: Any) -> Any:
    raise wrong("a time")


def _us_of_ticks(ticks: int, unit: str) -> int:
    if unit != "ns":
        return ticks * UNITS_US[unit]
    if ticks % 1000:
        raise InvalidEvent(Reason.OUT_OF_RANGE, "has a part smaller than a microsecond")
    return ticks // 1000


def _day_of_ms(ms: int) -> int:
    if ms % _DAY_MS:
        raise wrong("a date")
    return ms // _DAY_MS
