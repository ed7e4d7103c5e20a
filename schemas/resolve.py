"""How a writer's record becomes the reader's: Avro schema resolution, between flat records.

Fields are found by name; names of records, enums and fixed types are not compared. Fields that only the writer has are
dropped; fields that only the reader has take their defaults. Numbers, text and bytes may be promoted as Avro says, but
only to the same value; logical types and units must agree, as a time of another unit would be another time.

Source:
    Apache Avro 1.12 specification, "Schema Resolution".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from oomstream.schemas.columns import Column, judge_of
from oomstream.schemas.conversions import exact_float, to_float32
from oomstream.schemas.errors import InvalidDefinition, InvalidEvent, Reason
from oomstream.schemas.groups import NO_DEFAULT, EventTimeField
from oomstream.schemas.layout import RecordField
from oomstream.schemas.types import Kind, ValueType

Convert = Callable[[Any], Any]

_LOGICAL_KINDS = frozenset({Kind.DATE, Kind.TIMESTAMP_MILLIS, Kind.TIMESTAMP_MICROS, Kind.DECIMAL})
_BASE = {Kind.DATE: Kind.INT, Kind.TIMESTAMP_MILLIS: Kind.LONG, Kind.TIMESTAMP_MICROS: Kind.LONG}
_UNITS = {"timestamp-millis": "ms", "timestamp-micros": "us"}


class Resolution:
    """From one writer's fields to the reader's.

    Attributes:
        is_same: Whether the writer's bodies are the reader's bodies, byte for byte.
    """

    def __init__(
        self,
        writer: Sequence[RecordField],
        reader: Sequence[RecordField],
        event_time: EventTimeField,
        *,
        where: str,
    ) -> None:
        """Work out the resolution.

        Args:
            writer: The writer's fields.
            reader: The fields of the group's newest definition.
            event_time: The group's event time.
            where: What to name in an error: the group.

        Raises:
            InvalidDefinition: There is none; names the field.
        """
        self.is_same = [_shape(each) for each in writer] == [_shape(each) for each in reader]
        self._reader = tuple(reader)
        self._where = where
        by_name = {each.name: each for each in writer}
        self._converts: dict[str, Convert] = {}
        self._defaults: dict[str, Any] = {}
        for field in reader:
            source = by_name.get(field.name)
            if source is None:
                self._defaults[field.name] = _default(field, where)
                continue
            if field.name == event_time.name:
                _check_unit(source, event_time, where)
            convert = _conversion(source, field)
            if convert is _IMPOSSIBLE:
                raise InvalidDefinition(
                    f"{where}.{field.name} is {source.logical or source.type} in the writer's schema, which does not "
                    f"resolve to {field.type}"
                )
            if convert is not None:
                self._converts[field.name] = convert
        self._may_be_null = [
            each.name for each in reader if each.name in by_name and by_name[each.name].nullable and not each.nullable
        ]
        # Fields that the reader drops, or of which it takes more than the writer's type holds, must be valid as well.
        read = {each.name for each in reader} - self._converts.keys()
        self._also_judged = [
            (each.name, judge) for each in writer if each.name not in read and (judge := judge_of(each)) is not None
        ]

    def columns(self, written: Mapping[str, Column], count: int) -> list[Column] | None:
        """One column per reader's field, in avro form; None if any value is in doubt.

        Args:
            written: The writer's columns by field, in avro form.
            count: How many records they are of.
        """
        if not all(judge(written[name]) for name, judge in self._also_judged):
            return None
        if any(None in written[name] for name in self._may_be_null):
            return None
        columns: list[Column] = []
        for field in self._reader:
            if field.name in self._defaults:
                columns.append([self._defaults[field.name]] * count)
                continue
            column = written[field.name]
            convert = self._converts.get(field.name)
            if convert is not None:
                try:
                    column = [None if each is None else convert(each) for each in column]
                except InvalidEvent:
                    return None
            columns.append(column)
        return columns

    def record(self, written: dict[str, Any]) -> dict[str, Any]:
        """The reader's record, in avro form, checked.

        Args:
            written: The writer's record, in checked avro form.

        Raises:
            InvalidEvent: A value does not fit the reader's type; names the field.
        """
        record: dict[str, Any] = {}
        for field in self._reader:
            name = field.name
            if name in self._defaults:
                record[name] = self._defaults[name]
                continue
            value = written[name]
            if value is None:
                if not field.nullable:
                    raise InvalidEvent(Reason.NULL_REQUIRED, f"{self._where}.{name} is null but is not nullable")
            elif name in self._converts:
                try:
                    value = self._converts[name](value)
                    field.type.check(value)
                except InvalidEvent as exc:
                    raise InvalidEvent(exc.reason, f"{self._where}.{name} {exc}") from exc
                value = field.type.canonical(value)
            record[name] = value
        return record


def _shape(field: RecordField) -> tuple[Any, ...]:
    return field.name, field.type, field.nullable, field.null_index


def _default(field: RecordField, where: str) -> Any:
    if field.default is not NO_DEFAULT:
        return field.default
    if field.nullable:
        return None
    raise InvalidDefinition(f"{where}.{field.name} is not in the writer's schema and has no default")


def _check_unit(writer: RecordField, event_time: EventTimeField, where: str) -> None:
    unit = writer.attributes.get("unit") or _UNITS.get(writer.logical)
    if unit is not None and unit != event_time.unit.value:
        raise InvalidDefinition(
            f"{where}.{event_time.name} is in {event_time.unit.value}, but not so in the writer's schema"
        )


def _impossible(value: Any) -> Any:
    raise AssertionError(value)


_IMPOSSIBLE: Convert = _impossible


def _conversion(writer: RecordField, reader: RecordField) -> Convert | None:
    """What turns the writer's values into the reader's; None where they are the same, `_IMPOSSIBLE` if nothing does."""
    if writer.type == reader.type:
        return None
    # A logical type that is not ours (a local timestamp, say) means something else than one that is.
    if reader.logical and writer.logical and reader.logical != writer.logical:
        return _IMPOSSIBLE
    return _of_types(writer.type, reader.type)


def _of_types(writer: ValueType, reader: ValueType) -> Convert | None:
    if writer == reader:
        return None
    if writer.kind is Kind.ARRAY and reader.kind is Kind.ARRAY:
        assert writer.item is not None
        assert reader.item is not None
        of_items = _of_types(writer.item, reader.item)
        if of_items is None or of_items is _IMPOSSIBLE:
            return of_items
        return lambda items: [of_items(each) for each in items]
    if writer.kind is Kind.ENUM and reader.kind is Kind.ENUM:
        return _of_enums(reader)
    if writer.kind is Kind.DECIMAL and reader.kind is Kind.DECIMAL:
        return _of_decimals(writer, reader)
    if writer.kind in _LOGICAL_KINDS and reader.kind in _LOGICAL_KINDS:
        return _IMPOSSIBLE
    source, target = _BASE.get(writer.kind, writer.kind), _BASE.get(reader.kind, reader.kind)
    if source == target:
        return _same
    return _PROMOTIONS.get((source, target), _IMPOSSIBLE)


def _of_enums(reader: ValueType) -> Convert:
    def convert(symbol: str) -> str:
        reader.check(symbol)
        return symbol

    return convert


def _of_decimals(writer: ValueType, reader: ValueType) -> Convert:
    if writer.scale != reader.scale:
        return _IMPOSSIBLE

    def convert(raw: bytes) -> bytes:
        number = int.from_bytes(raw, "big", signed=True)
        if abs(number) >= 10**reader.precision:
            raise InvalidEvent(Reason.OUT_OF_RANGE, f"has more than {reader.precision} digits")
        return reader.unscaled_bytes(number)

    return convert


def _same(value: Any) -> Any:
    return value


def _int_to_float32(value: int) -> float:
    number = exact_float(value)
    if to_float32(number) != number:
        raise InvalidEvent(Reason.OUT_OF_RANGE, "is an integer that a float cannot hold exactly")
    return number


def _text_to_bytes(value: str) -> bytes:
    return value.encode()


def _bytes_to_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise InvalidEvent(Reason.INVALID_TEXT, "is not UTF-8 text") from exc


_PROMOTIONS: dict[tuple[Kind, Kind], Convert] = {
    (Kind.INT, Kind.LONG): _same,
    (Kind.INT, Kind.FLOAT): _int_to_float32,
    (Kind.INT, Kind.DOUBLE): exact_float,
    (Kind.LONG, Kind.FLOAT): _int_to_float32,
    (Kind.LONG, Kind.DOUBLE): exact_float,
    (Kind.FLOAT, Kind.DOUBLE): _same,
    (Kind.STRING, Kind.BYTES): _text_to_bytes,
    (Kind.BYTES, Kind.STRING): _bytes_to_text,
}
