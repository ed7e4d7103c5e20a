"""Records of a log to events: what is exactly one valid encoding of the group's schema, and what is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.errors import InvalidEvent, Reason
from oomstream.schemas.events import Decoded, Event, Record, Rejected
from oomstream.schemas.framing import EVENT_TIME_HEADER, Framing, detect, parse_tombstone_key
from oomstream.schemas.groups import NO_DEFAULT
from oomstream.schemas.json_events import parse_object
from oomstream.schemas.keys import check_part, encode_entity
from oomstream.schemas.layout import RecordField, read_fields
from oomstream.schemas.walker import walk


@dataclass(frozen=True, slots=True)
class EventLimits:
    """Which event times and sizes are accepted.

    Attributes:
        min_event_time_us: The oldest event time, UTC microseconds (default 2000-01-01: a wrong unit lands in 1970).
        max_future_us: How far an event time may lie after the end of the record's Kafka timestamp.
        max_bytes: Longest value of a message.
    """

    min_event_time_us: int = 946_684_800_000_000
    max_future_us: int = 300_000_000
    max_bytes: int = 1 << 20


class Decoder:
    """Decodes records in the terms of one definition version of a group; holds no state between batches."""

    def __init__(
        self, registered: RegisteredGroup, limits: EventLimits, registry: Mapping[int, dict[str, Any]] | None = None
    ) -> None:
        self.group = registered.group
        self._registered = registered
        self._limits = limits
        self._registry = registry if registry is not None else {}
        self._codec = BodyCodec(registered)
        self._fields = read_fields(self.group.schema, where=f"group {self.group.name}")

    def decode(self, records: Sequence[Record]) -> Decoded:
        """Decode one batch."""
        events: list[Event] = []
        rejected: list[Rejected] = []
        fingerprints: set[bytes] = set()
        unknown: set[str] = set()
        ids: set[int] = set()
        ignored = 0
        names = {each.name for each in self._fields}
        for record in records:
            try:
                value = record.value
                if value is None:
                    key = parse_tombstone_key(record.key, self.group.keys)
                    time = self._tombstone_time(record)
                    self._check_time(record, time)
                    events.append(Event(record.offset, key, encode_entity(key), time, True, (), b""))
                    continue
                if len(value) > self._limits.max_bytes:
                    raise InvalidEvent(Reason.TOO_LARGE, f"the message is longer than {self._limits.max_bytes} bytes")
                framed = detect(value)
                if framed.framing is Framing.JSON:
                    found = parse_object(value, where=self.group.name)
                    extra = found.keys() - names
                    ignored += len(extra)
                    unknown |= extra
                    events.append(self._event(record, self._from_json(found)))
                    continue
                if framed.framing is Framing.SINGLE_OBJECT:
                    writer = self._registered.writers.get(framed.fingerprint)
                    if writer is None:
                        fingerprints.add(framed.fingerprint)
                        raise InvalidEvent(Reason.UNKNOWN_FINGERPRINT, "unknown fingerprint")
                    schema = writer.schema
                else:
                    if framed.schema_id not in self._registry:
                        ids.add(framed.schema_id)
                        raise InvalidEvent(Reason.UNKNOWN_SCHEMA_ID, "unknown schema id")
                    schema = self._registry[framed.schema_id]
                found = walk(framed.body, read_fields(schema, where="writer"), where=self.group.name)
                events.append(self._event(record, {each.name: self._resolved(each, found) for each in self._fields}))
            except InvalidEvent as exc:
                rejected.append(Rejected(record, exc))
        return Decoded(events, rejected, ignored, frozenset(fingerprints), frozenset(unknown), frozenset(ids))

    def _tombstone_time(self, record: Record) -> int:
        for name, raw in record.headers:
            if name == EVENT_TIME_HEADER:
                try:
                    return int(raw or b"")
                except ValueError as exc:
                    raise InvalidEvent(Reason.WRONG_TYPE, f"header {EVENT_TIME_HEADER} is not a number") from exc
        return record.timestamp * 1000 + 999

    def _check_time(self, record: Record, time: int) -> None:
        if time < self._limits.min_event_time_us:
            raise InvalidEvent(Reason.EVENT_TIME_TOO_OLD, "event time too old")
        if time > record.timestamp * 1000 + 999 + self._limits.max_future_us:
            raise InvalidEvent(Reason.EVENT_TIME_IN_FUTURE, "event time in future")

    def _resolved(self, field: RecordField, found: dict[str, Any]) -> Any:
        if field.name in found:
            return found[field.name]
        return field.default if field.default is not NO_DEFAULT else None

    def _from_json(self, found: dict[str, Any]) -> dict[str, Any]:
        avro: dict[str, Any] = {}
        for each in self._fields:
            if each.name not in found:
                avro[each.name] = self._resolved(each, {})
            elif found[each.name] is None:
                avro[each.name] = None
            else:
                try:
                    avro[each.name] = each.type.canonical(each.type.avro_from_json(found[each.name]))
                except InvalidEvent as exc:
                    raise InvalidEvent(exc.reason, f"{self.group.name}.{each.name} {exc}") from exc
        return avro

    def _event(self, record: Record, avro: dict[str, Any]) -> Event:
        for part in self.group.keys:
            check_part(avro[part.name])
        key = tuple(avro[part.name] for part in self.group.keys)
        time = avro[self.group.event_time.name] * self.group.event_time.unit.microseconds
        self._check_time(record, time)
        values = tuple(
            None if avro[each.name] is None else each.type.plain_from_avro(avro[each.name])
            for each in self.group.features
        )
        return Event(record.offset, key, encode_entity(key), time, False, values, self._codec.encode_record(avro))
