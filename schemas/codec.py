"""Avro bodies of one group: plain values to canonical bytes and back, under any of its definitions.

Source:
    design.md, section 6 (stored form); Apache Avro 1.12 specification, "Schema Resolution".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from io import BytesIO
from operator import itemgetter
from typing import Any, NamedTuple

import fastavro

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.errors import InvalidEvent, Reason
from oomstream.schemas.events import Plain
from oomstream.schemas.groups import NO_DEFAULT, TimeUnit
from oomstream.schemas.keys import check_part, encode_entity
from oomstream.schemas.layout import bare_record, read_fields
from oomstream.schemas.types import MAX_TIME_US, MIN_TIME_US, ValueType, us_from_time

Read = Callable[[bytes], tuple[Plain, ...]]


class Encoded(NamedTuple):
    """An event that a user passed in, encoded.

    Attributes:
        key: Entity key in plain form.
        entity: The same key, encoded (see `keys`).
        event_time_us: UTC microseconds.
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
        self._fields = read_fields(group.schema, where=self._where)
        self._bare = fastavro.parse_schema(bare_record(self._fields))
        self._types = {each.name: each.type for each in self._fields}
        self._unit_us = group.event_time.unit.microseconds
        self._converted = [
            (at, each.name, each.type) for at, each in enumerate(group.features) if not each.type.is_identity
        ]
        self._names = [each.name for each in group.features]
        self._readers: dict[bytes, Read] = {}

    def encode(self, key: Sequence[Plain], event_time_us: int, values: Sequence[Plain]) -> bytes:
        """Canonical body of plain forms.

        Args:
            key: Entity key, in the order of the group's key fields.
            event_time_us: UTC microseconds; a multiple of the event-time field's unit.
            values: One per active feature, in the order of `FeatureGroup.features`.
        """
        record = dict(zip(self._names, values, strict=True))
        for at, name, kind in self._converted:
            if values[at] is not None:
                record[name] = kind.avro_from_plain(values[at])
        record.update(zip(self.group.key_names, key, strict=True))
        record[self.group.event_time.name] = event_time_us // self._unit_us
        return self.encode_record(record)

    def encode_record(self, record: Mapping[str, Any]) -> bytes:
        """Canonical body of a whole record in avro form."""
        out = BytesIO()
        fastavro.schemaless_writer(out, self._bare, record)
        return out.getvalue()

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
        schema = fastavro.parse_schema(bare_record(fields))
        known = {each.name for each in fields}
        missing = {
            each.name: each.default for each in self.group.features if each.name not in known and each.has_default
        }
        converted = [
            (each.name, _nullable(each.type.plain_from_avro))
            for each in self.group.features
            if each.name in known and not each.type.is_identity
        ]
        pick = _pick(self._names)
        decode = fastavro.schemaless_reader

        def read(body: bytes) -> tuple[Plain, ...]:
            record = decode(BytesIO(body), schema, None)
            for name, convert in converted:
                record[name] = convert(record[name])
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
            InvalidEvent: A value is missing, unknown or not of its type; names the field.
        """
        group = self.group
        unknown = next((name for name in values if name not in self._types), None)
        if unknown is not None:
            raise InvalidEvent(Reason.WRONG_TYPE, f"{self._where} has no field {str(unknown)[:80]!r}")
        record: dict[str, Any] = {}
        key: list[Plain] = []
        for part in group.keys:
            plain = self._python(part.name, part.type, values.get(part.name))
            key.append(plain)
            record[part.name] = plain
            self._named(part.name, lambda plain=plain: check_part(plain))
        ticks = self._event_time(values.get(group.event_time.name))
        record[group.event_time.name] = ticks
        plain_values: list[Plain] = []
        for feature in group.features:
            value = values.get(feature.name, feature.default)
            if value is NO_DEFAULT:
                raise InvalidEvent(Reason.MISSING_FIELD, f"{group.name}.{feature.name} is missing and has no default")
            if feature.name not in values:
                plain_values.append(value)
                record[feature.name] = None if value is None else feature.type.avro_from_plain(value)
            elif value is None:
                if not feature.nullable:
                    raise InvalidEvent(Reason.NULL_REQUIRED, f"{group.name}.{feature.name} is null but is not nullable")
                plain_values.append(None)
                record[feature.name] = None
            else:
                avro = self._named(
                    feature.name, lambda kind=feature.type, value=value: kind.canonical(kind.avro_from_python(value))
                )
                record[feature.name] = avro
                plain_values.append(feature.type.plain_from_avro(avro))
        return Encoded(
            tuple(key), encode_entity(key), ticks * self._unit_us, tuple(plain_values), self.encode_record(record)
        )

    def _python(self, name: str, kind: ValueType, value: Any) -> Plain:
        if value is None:
            raise InvalidEvent(
                Reason.KEY_MISSING, f"{self.group.name}.{name} is missing, but is part of the entity key"
            )
        plain: Plain = self._named(name, lambda: kind.plain_from_avro(kind.avro_from_python(value)))
        return plain

    def _event_time(self, value: Any) -> int:
        name, unit = self.group.event_time.name, self.group.event_time.unit
        if value is None:
            raise InvalidEvent(Reason.MISSING_FIELD, f"{self.group.name}.{name} is missing, but is the event time")
        ticks: int = self._named(name, lambda: _ticks(value, unit))
        return ticks

    def _named(self, name: str, convert: Callable[[], Any]) -> Any:
        try:
            return convert()
        except InvalidEvent as exc:
            raise InvalidEvent(exc.reason, f"{self.group.name}.{name} {exc}") from exc


def _ticks(value: Any, unit: TimeUnit) -> int:
    """An event time that a user passed in, in the field's unit."""
    if isinstance(value, datetime):
        ticks, rest = divmod(us_from_time(value), unit.microseconds)
        if rest:
            raise InvalidEvent(Reason.OUT_OF_RANGE, f"has a part smaller than the field's unit {unit.value}")
        return ticks
    if type(value) is not int:
        raise InvalidEvent(Reason.WRONG_TYPE, f"is not a datetime or an integer in {unit.value}")
    if not MIN_TIME_US <= value * unit.microseconds <= MAX_TIME_US:
        raise InvalidEvent(Reason.OUT_OF_RANGE, "is outside the years 1 to 9999")
    return value


def _nullable(convert: Callable[[Any], Plain]) -> Callable[[Any], Plain]:
    return lambda avro: None if avro is None else convert(avro)


def _pick(names: Sequence[str]) -> Callable[[Mapping[str, Any]], tuple[Plain, ...]]:
    """What takes these entries out of a record, as a tuple for any number of names."""
    if not names:
        return lambda record: ()
    if len(names) == 1:
        only = names[0]
        return lambda record: (record[only],)
    return itemgetter(*names)
