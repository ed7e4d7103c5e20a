"""Avro bodies of one group: plain values and users' values to canonical bytes, and back under any of its definitions.

Source:
    design.md, section 6 (stored form); Apache Avro 1.12 specification, "Schema Resolution".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.columns import array_text_bytes
from oomstream.schemas.conversions import to_builtin, us_from_python
from oomstream.schemas.errors import InvalidEvent, Reason
from oomstream.schemas.events import MAX_EVENT_BYTES, Plain
from oomstream.schemas.framing import SINGLE_OBJECT_HEADER_BYTES
from oomstream.schemas.groups import NO_DEFAULT, EventTimeField, Feature
from oomstream.schemas.keys import check_part, encode_entity
from oomstream.schemas.layout import read_fields
from oomstream.schemas.strict import StrictBodies
from oomstream.schemas.types import INTEGER_RANGES, MAX_ARRAY_TEXT, MAX_TIME_US, MIN_TIME_US, Kind, ValueType

Read = Callable[[bytes], tuple[Plain, ...]]

_MISSING = object()


class Encoded(NamedTuple):
    """An event that a user passed in, encoded.

    Attributes:
        key: Entity key in plain form.
        entity: The same key, encoded (see `keys`).
        event_time_us: UTC microseconds; 0 in a batch group, whose rows have none.
        values: Plain form of every active feature, in the order of `FeatureGroup.features`.
        body: Canonical Avro body under the newest definition.
    """

    key: tuple[Plain, ...]
    entity: bytes
    event_time_us: int
    values: tuple[Plain, ...]
    body: bytes


class BodyCodec:
    """Encodes under the newest definition of a group and reads bodies of all its definitions."""

    def __init__(self, registered: RegisteredGroup) -> None:
        """Prepare the codec.

        Args:
            registered: The group as the catalog holds it.
        """
        group = registered.group
        self.group = group
        self._registered = registered
        self._where = f"group {group.name}"
        self._bodies = StrictBodies(read_fields(group.schema, where=self._where))
        self._names = [each.name for each in group.features]
        time = group.event_time
        self._field_names = frozenset((*group.key_names, *([] if time is None else [time.name]), *self._names))
        self._event_time = None if time is None else (time.name, time.unit.microseconds)
        # What SQL engines may give in another form is converted as well: 1 for true, 3 for 3.0.
        self._to_avro = [
            (at, each.name, each.type)
            for at, each in enumerate(group.features)
            if not each.type.is_identity or each.type.kind in {Kind.BOOLEAN, Kind.FLOAT, Kind.DOUBLE}
        ]
        self._inputs = [
            (each, each.type.is_identity, _converter(each.type), *_default_forms(each)) for each in group.features
        ]
        self._arrays = [at for at, each in enumerate(group.features) if each.type.kind is Kind.ARRAY]
        self._readers: dict[bytes, Read] = {}

    def encode(self, key: Sequence[Plain], event_time_us: int, values: Sequence[Plain]) -> bytes:
        """Canonical body of plain forms.

        Args:
            key: Entity key, in the order of the group's key fields.
            event_time_us: UTC microseconds; a multiple of the event-time field's unit. Not in bodies of batch groups.
            values: One per active feature, in the order of `FeatureGroup.features`.
        """
        record: dict[str, Any] = dict(zip(self._names, values, strict=True))
        for at, name, kind in self._to_avro:
            value = values[at]
            if value is not None:
                record[name] = kind.avro_from_plain(value)
        record.update(zip(self.group.key_names, key, strict=True))
        if self._event_time is not None:
            name, unit_us = self._event_time
            record[name] = event_time_us // unit_us
        return self._bodies.write(record)

    def read(self, fingerprint: bytes, body: bytes) -> tuple[Plain, ...]:
        """Values of a body, in plain form.

        Args:
            fingerprint: CRC-64-AVRO fingerprint (8 bytes, little-endian) of the schema it was written with.
            body: A canonical body, as stored.

        Returns:
            One per active feature of the newest definition, in the order of `FeatureGroup.features`; features that
            the writer did not know have their defaults.

        Raises:
            InvalidEvent: The fingerprint is of no known definition version, or the bytes are not such a body.
        """
        read = self._readers.get(fingerprint)
        if read is None:
            read = self._readers[fingerprint] = self._reader(fingerprint)
        try:
            return read(body)
        except Exception as exc:  # fastavro raises whatever it meets
            raise InvalidEvent(Reason.MALFORMED_AVRO, f"{self._where}: a stored body cannot be read") from exc

    def _reader(self, fingerprint: bytes) -> Read:
        writer = self._registered.writers.get(fingerprint)
        if writer is None:
            raise InvalidEvent(
                Reason.UNKNOWN_FINGERPRINT, f"{self._where}: no definition has the fingerprint {fingerprint.hex()}"
            )
        fields = read_fields(writer.schema, where=self._where)
        known = {each.name for each in fields}
        missing = {each.name: each.absent_value for each in self.group.features if each.name not in known}
        converted = [
            (each.name, each.type.plain_from_avro)
            for each in self.group.features
            if each.name in known and not each.type.is_identity
        ]
        decode = StrictBodies(fields).read_stored
        pick = _pick(self._names)

        def read(body: bytes) -> tuple[Plain, ...]:
            record = decode(body)
            for name, convert in converted:
                value = record[name]
                if value is not None:
                    record[name] = convert(value)
            if missing:
                record.update(missing)
            return pick(record)

        return read

    def encode_python(self, values: Mapping[str, Any]) -> Encoded:
        """Encode an event from values that a user passed in.

        Args:
            values: One per field of the group, by name, in python form (see `types`). The event time is a datetime
                (naive = UTC) or an integer in the field's unit. Features left out take their defaults.

        Raises:
            InvalidEvent: A value is missing, unknown or not of its type; names the field. Whether the event time is
                accepted is for the pipeline to say.
        """
        group = self.group
        if not values.keys() <= self._field_names:
            unknown = next(name for name in values if name not in self._field_names)
            raise InvalidEvent(Reason.UNKNOWN_FIELD, f"{self._where} has no field {str(unknown)[:80]!r}")
        record: dict[str, Any] = {}
        name = ""
        try:
            for part in group.keys:
                name = part.name
                value = values.get(name)
                plain = None if value is None else part.type.avro_from_python(value)
                check_part(plain)
                record[name] = plain
            key = tuple(record.values())
            time_us = 0
            if group.event_time is not None:
                name = group.event_time.name
                ticks = record[name] = _ticks(values.get(name), group.event_time)
                time_us = ticks * group.event_time.unit.microseconds
            plains: list[Plain] = []
            for feature, is_plain, convert, default, default_plain in self._inputs:
                name = feature.name
                value = values.get(name, _MISSING)
                if value is _MISSING:
                    if default is NO_DEFAULT:
                        raise InvalidEvent(Reason.MISSING_FIELD, "is missing and has no default")
                    record[name] = default
                    plains.append(default_plain)
                elif value is None:
                    if not feature.nullable:
                        raise InvalidEvent(Reason.NULL_REQUIRED, "is null but is not nullable")
                    record[name] = None
                    plains.append(None)
                else:
                    avro = record[name] = convert(value)
                    plains.append(avro if is_plain else feature.type.plain_from_avro(avro))
        except InvalidEvent as exc:
            raise InvalidEvent(exc.reason, f"{group.name}.{name} {exc}") from exc
        body = self._bodies.write(record)
        self._check_size(plains, body)
        return Encoded(key, encode_entity(key), time_us, tuple(plains), body)

    def _check_size(self, plains: Sequence[Plain], body: bytes) -> None:
        if len(body) + SINGLE_OBJECT_HEADER_BYTES > MAX_EVENT_BYTES:
            raise InvalidEvent(Reason.TOO_LARGE, f"{self._where}: the event is longer than {MAX_EVENT_BYTES} bytes")
        if self._arrays and array_text_bytes([plains[at]] for at in self._arrays) > MAX_ARRAY_TEXT:
            raise InvalidEvent(
                Reason.TOO_LARGE, f"{self._where}: its arrays are longer than {MAX_ARRAY_TEXT} characters as text"
            )


def _converter(kind: ValueType) -> Callable[[Any], Any]:
    """Avro form of a user's value: the common builtin types by a short way, the rest by the type table's."""
    convert = kind.avro_from_python

    def integer(value: Any) -> Any:
        return value if type(value) is int and low <= value <= high else convert(value)

    def number(value: Any) -> Any:
        # Only of a finite number is the difference to itself zero; adding zero takes the sign off -0.0.
        return value + 0.0 if type(value) is float and value - value == 0.0 else convert(value)

    def text(value: Any) -> Any:
        return value if type(value) is str and value.isascii() else convert(value)

    match kind.kind:
        case Kind.INT | Kind.LONG:
            low, high = INTEGER_RANGES[kind.kind]
            return integer
        case Kind.DOUBLE:
            return number
        case Kind.STRING:
            return text
    return convert


def _default_forms(feature: Feature) -> tuple[Any, Any]:
    """Avro and plain form of a feature's default; `NO_DEFAULT` for none."""
    if feature.default is NO_DEFAULT:
        return (None, None) if feature.nullable else (NO_DEFAULT, NO_DEFAULT)
    avro = None if feature.default is None else feature.type.avro_from_plain(feature.default)
    return avro, feature.default


def _ticks(value: Any, event_time: EventTimeField) -> int:
    """An event time that a user passed in, in the field's unit."""
    unit = event_time.unit
    if value is None:
        raise InvalidEvent(Reason.MISSING_FIELD, "is missing, but is the event time")
    if isinstance(value, datetime):
        return event_time.ticks(us_from_python(value))
    value = to_builtin(value)
    if type(value) is not int:
        raise InvalidEvent(Reason.WRONG_TYPE, f"is not a datetime or an integer in {unit.value}")
    if not MIN_TIME_US <= value * unit.microseconds <= MAX_TIME_US:
        raise InvalidEvent(Reason.OUT_OF_RANGE, "is outside the years 1 to 9999")
    return value


def _pick(names: Sequence[str]) -> Callable[[Mapping[str, Any]], tuple[Plain, ...]]:
    """What takes these entries out of a record, as a tuple for any number of names."""
    if not names:
        return lambda record: ()
    if len(names) == 1:
        only = names[0]
        return lambda record: (record[only],)
    return itemgetter(*names)
