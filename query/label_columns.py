"""The key columns and the label time of a label table, checked and in plain form."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from oomstream.query.arrow import Chunked, cast, pc, plain_layout
from oomstream.query.labels import Column, Labels
from oomstream.schemas.errors import InvalidEvent, InvalidLabels
from oomstream.schemas.events import Plain
from oomstream.schemas.groups import KeyField
from oomstream.schemas.types import MAX_TIME_US, MIN_TIME_US, Kind, us_from_time

EVENT_TIMESTAMP = "event_timestamp"
"""Label time column by Feast's name: datetimes, dates or ISO text; naive ones are UTC."""

UNIX_MILLI = "unix_milli"
"""Label time column by oomstore's name: integer milliseconds since 1970-01-01 UTC."""

MAX_PUSHED_KEYS = 1_000
"""Up to how many entities a store is asked for by key."""

_MILLISECONDS = re.compile(r"-?[0-9]{1,15}")
_SAMPLE_ROWS = 20_000
_SPLITS = 1_000
_EXACT_IN_DOUBLE = float(1 << 53)
_DAY_MS = 86_400_000
_ARROW_OF_KEY: dict[Kind, pa.DataType] = {Kind.STRING: pa.string(), Kind.BYTES: pa.binary()}


def csv_key_type(key: KeyField) -> pa.DataType:
    """What a CSV column that holds this key is read as."""
    return pa.date32() if key.type.kind is Kind.DATE else _ARROW_OF_KEY.get(key.type.kind, pa.int64())


def time_column(labels: Labels, timestamp_column: str | None) -> str:
    """Name of the column that holds the label time.

    Raises:
        InvalidLabels: There is none, or more than one could be meant.
    """
    names = labels.names
    if timestamp_column is not None:
        if timestamp_column not in names:
            raise InvalidLabels(f"labels: there is no column {timestamp_column!r}")
        return timestamp_column
    found = [name for name in (EVENT_TIMESTAMP, UNIX_MILLI) if name in names]
    if len(found) != 1:
        what = "both columns" if found else "no column"
        raise InvalidLabels(
            f"labels: {what} {EVENT_TIMESTAMP!r} {'and' if found else 'or'} {UNIX_MILLI!r}; "
            "name the label time's column with timestamp_column (on the command line: --timestamp-column)"
        )
    return found[0]


def once(labels: Labels, name: str) -> Column:
    """A column that must be there once.

    Raises:
        InvalidLabels: Its name is there several times.
    """
    if list(labels.names).count(name) > 1:
        raise InvalidLabels(f"labels: there is more than one column {name!r}")
    return labels.column(name)


def label_times(column: Column, name: str) -> Chunked:
    """Label times as int64 UTC microseconds, no nulls; parts of a microsecond are cut off.

    Raises:
        InvalidLabels: A value is null, not a time or out of range; names column and row.
    """
    if not isinstance(column, list):
        column = plain_layout(column)
        kind = column.type
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return _checked_times(_us_of_timestamps(column, name), name)
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return _checked_times(_us_of_milliseconds(column, name), name)
        if not pa.types.is_string(kind) and not pa.types.is_null(kind):
            raise InvalidLabels(f"labels: column {name!r} is of type {kind}, which is not a time")
        column = column.to_pylist()
    times = [_us_of_python(value, name, row) for row, value in enumerate(column)]
    return _checked_times(pa.chunked_array([pa.array(times, pa.int64())]), name)


def key_column(column: Column, key: KeyField, name: str) -> Chunked:
    """Key values in plain form (string, binary or int64); nulls stay null.

    Integers that pandas turned into floats because of a null beside them are integers again.

    Raises:
        InvalidLabels: A value is not of the key's type; names column and row.
    """
    if isinstance(column, list):
        return _key_of_python(column, key, name)
    column = plain_layout(column)
    plain = _PLAIN_KEY.get(key.type.kind, _integers)(column)
    if plain is None:
        return _key_of_python(_python_values(column, name), key, name)
    if pa.types.is_string(plain.type):
        try:
            plain.validate(full=True)
        except pa.ArrowInvalid as exc:
            raise InvalidLabels(f"labels: column {name!r} holds text that is not valid UTF-8") from exc
    elif key.type.kind is Kind.INT:
        too_large = pc.or_(pc.less(plain, -(1 << 31)), pc.greater(plain, (1 << 31) - 1))
        _refuse(too_large, name, "the value is not an integer of 32 bits")
    return plain


def _python_values(column: Chunked, name: str) -> list[Any]:
    try:
        return column.to_pylist()
    except (ValueError, OverflowError) as exc:  # a time that Python cannot represent
        raise InvalidLabels(f"labels: column {name!r} holds a value that is no key ({exc})") from exc


def _text(column: Chunked) -> Chunked | None:
    return _as(column, pa.string(), pa.types.is_string)


def _bytes(column: Chunked) -> Chunked | None:
    return _as(column, pa.binary(), pa.types.is_binary)


def _as(column: Chunked, wanted: pa.DataType, is_wanted: Callable[[pa.DataType], bool]) -> Chunked | None:
    if pa.types.is_null(column.type):
        return cast(column, wanted)
    return column if is_wanted(column.type) else None


def _integers(column: Chunked) -> Chunked | None:
    kind = column.type
    try:
        if pa.types.is_integer(kind) or pa.types.is_null(kind):
            return cast(column, pa.int64())
        if pa.types.is_floating(kind):
            column = cast(column, pa.float64())
            numbers = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
            if pc.any(pc.greater(pc.abs(numbers), _EXACT_IN_DOUBLE)).as_py():
                return None
            return cast(numbers, pa.int64())
    except pa.ArrowInvalid:
        pass
    return None


def _days(column: Chunked) -> Chunked | None:
    kind = column.type
    if pa.types.is_null(kind):
        return cast(column, pa.int64())
    if not pa.types.is_date(kind) and not pa.types.is_timestamp(kind):
        return None
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return None
    days = cast(column, pa.date32())
    if not pc.all(pc.equal(cast(days, kind), column)).as_py() and days.null_count != len(days):
        return None  # a time of day
    return cast(cast(days, pa.int32()), pa.int64())


_PLAIN_KEY: dict[Kind, Callable[[Chunked], Chunked | None]] = {
    Kind.STRING: _text,
    Kind.BYTES: _bytes,
    Kind.DATE: _days,
}


def _key_of_python(values: Iterable[Any], key: KeyField, name: str) -> Chunked:
    """The exact way, value by value, which also finds the row that is wrong."""
    plain: list[Any] = []
    for row, value in enumerate(values):
        if value is None or value != value:
            plain.append(None)
            continue
        try:
            plain.append(key.type.plain_from_avro(key.type.avro_from_python(_unboxed(value, key))))
        except InvalidEvent as exc:
            raise InvalidLabels(f"labels: column {name!r}, row {row} (from 0): the value {exc}") from exc
    return pa.chunked_array([pa.array(plain, _ARROW_OF_KEY.get(key.type.kind, pa.int64()))])


def _unboxed(value: Any, key: KeyField) -> Any:
    if hasattr(value, "item") and not isinstance(value, datetime):
        value = value.item()  # a NumPy scalar
    if key.type.kind in (Kind.INT, Kind.LONG) and isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= _EXACT_IN_DOUBLE else value
    if key.type.kind is Kind.DATE and isinstance(value, datetime):
        return value.date() if value.tzinfo is None and value == datetime(value.year, value.month, value.day) else value
    return str(value) if type(value) is not str and isinstance(value, str) else value


def _us_of_timestamps(column: Chunked, name: str) -> Chunked:
    kind = column.type
    if pa.types.is_date(kind):
        column, unit = cast(column, pa.timestamp("ms")), "ms"
    else:
        unit = kind.unit
    numbers = cast(column, pa.int64())
    if unit == "ns":
        cut = pc.divide(numbers, 1000)
        # Division of integers goes towards zero; before 1970 the microsecond begins one further down.
        floor: Chunked = pc.subtract(cut, cast(pc.greater(pc.multiply(cut, 1000), numbers), pa.int64()))
        return floor
    return _times(numbers, {"s": 1_000_000, "ms": 1000, "us": 1}[unit], name)


def _us_of_milliseconds(column: Chunked, name: str) -> Chunked:
    if name != UNIX_MILLI:
        raise InvalidLabels(
            f"labels: column {name!r} holds numbers, whose unit nothing tells; name it {UNIX_MILLI!r} if they are "
            "milliseconds, or make them datetimes"
        )
    numbers = _integers(column)
    if numbers is None:
        raise InvalidLabels(f"labels: column {name!r} holds numbers that are not whole milliseconds")
    return _times(numbers, 1000, name)


def _times(numbers: Chunked, factor: int, name: str) -> Chunked:
    too_far = pc.or_(pc.less(numbers, MIN_TIME_US // factor), pc.greater(numbers, MAX_TIME_US // factor))
    _refuse(too_far, name, "the label time is outside the years 1 to 9999")
    times: Chunked = pc.multiply(numbers, factor)
    return times


def _us_of_python(value: Any, name: str, row: int) -> int:
    where = f"labels: column {name!r}, row {row} (from 0)"
    if value is None or value != value:
        raise InvalidLabels(f"{where}: the label time is null")
    try:
        if isinstance(value, str):
            if name == UNIX_MILLI and _MILLISECONDS.fullmatch(value):
                # One wrong cell makes a CSV file's whole column text: that cell is to be named, not the first.
                return int(value) * 1000
            return us_from_time(datetime.fromisoformat(value))
        if isinstance(value, datetime):
            return us_from_time(value)
        if isinstance(value, date):
            return us_from_time(datetime(value.year, value.month, value.day, tzinfo=UTC))
    except (ValueError, OverflowError):
        pass
    kinds = "a datetime, a date or ISO 8601 text" if name != UNIX_MILLI else "a whole number of milliseconds, or a time"
    raise InvalidLabels(f"{where}: the label time is not {kinds}")


def _checked_times(times: Chunked, name: str) -> Chunked:
    _refuse(pc.is_null(times), name, "the label time is null")
    return _times(times, 1, name)


def _refuse(wrong: Chunked, name: str, message: str) -> None:
    row = pc.index(wrong, True).as_py()
    if row >= 0:
        raise InvalidLabels(f"labels: column {name!r}, row {row} (from 0): {message}")


def pushed_keys(labels: pa.Table, parts: int) -> list[tuple[Plain, ...]] | None:
    """The entities that a store is asked for by key; None if they are so many that all are better scanned.

    Args:
        labels: Columns k0, k1, … without nulls.
        parts: Number of key fields.
    """
    names = [f"k{at}" for at in range(parts)]
    distinct = labels.select(names).group_by(names).aggregate([])
    if distinct.num_rows > MAX_PUSHED_KEYS:
        return None
    columns: list[Iterable[Plain]] = [distinct.column(name).to_pylist() for name in names]
    return sorted(zip(*columns, strict=True))


def key_splits(labels: pa.Table) -> list[Plain]:
    """Values of the first key field, ascending, between which there are about equally many labels.

    Args:
        labels: Columns k0, … without nulls.
    """
    first = labels.column("k0")
    # Evenly spaced rows of the table as it is: any order of the labels that is none by key makes them a fair sample.
    sample = first.take(pa.array(range(0, len(first), max(1, len(first) // _SAMPLE_ROWS)), pa.int64()))
    ordered = sample.unique().sort()
    splits: list[Plain] = ordered.take(pa.array(range(0, len(ordered), max(1, len(ordered) // _SPLITS)))).to_pylist()
    return splits
