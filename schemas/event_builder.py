"""Values of a group's fields to events: the checks that do not depend on how a message was framed.

Source:
    design.md, section 3 (what is accepted).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from operator import le
from typing import Any

from oomstream.schemas.columns import (
    Column,
    array_text_bytes,
    canonical_column,
    is_canonical_of,
    judge_of,
    judge_of_key,
    to_plain_of,
)
from oomstream.schemas.errors import InvalidEvent, Reason
from oomstream.schemas.events import MAX_EVENT_BYTES, Event, Plain, Record
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.keys import check_part, encode_entities, encode_entity
from oomstream.schemas.layout import RecordField
from oomstream.schemas.strict import StrictBodies
from oomstream.schemas.types import MAX_ARRAY_TEXT, MAX_TIME_US, MIN_TIME_US, Kind

_AS_EVENT: Callable[[Sequence[Any]], Event] = partial(tuple.__new__, Event)
"""`Event._make` without its check of the length, which is a call of a Python function for every event."""


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
    max_bytes: int = MAX_EVENT_BYTES


class EventBuilder:
    """Makes events of one group's newest definition, many at a time or one by one."""

    def __init__(
        self, group: FeatureGroup, fields: Sequence[RecordField], bodies: StrictBodies, limits: EventLimits
    ) -> None:
        """Prepare for a group.

        Args:
            group: Its newest definition.
            fields: The fields of its schema.
            bodies: Writes bodies of its schema.
            limits: What is accepted.
        """
        self._group = group
        self._bodies = bodies
        self._earliest = max(limits.min_event_time_us, MIN_TIME_US)
        self._future_us = 999 + limits.max_future_us
        self._unit_us = group.event_time_field.unit.microseconds
        self._names = [each.name for each in fields]
        at = {name: position for position, name in enumerate(self._names)}
        self._time_at = at[group.event_time_field.name]
        self._keys_at = [at[key.name] for key in group.keys]
        self._features_at = [at[each.name] for each in group.features]
        judges = [(at[each.name], judge_of(each)) for each in fields if each.name != group.event_time_field.name]
        judges += [(at[key.name], judge_of_key(key.type)) for key in group.keys]
        self._judges = [(position, judge) for position, judge in judges if judge is not None]
        is_canonical = [(at[each.name], each.type, is_canonical_of(each)) for each in fields]
        self._normalised = [(position, kind, judge) for position, kind, judge in is_canonical if judge is not None]
        self._to_plain = [(at[each.name], to_plain_of(each.type)) for each in group.features]
        self._arrays = [n for n, each in enumerate(group.features) if each.type.kind is Kind.ARRAY]

    def many(
        self, records: Sequence[Record], columns: list[Column], bodies: Sequence[bytes] | None
    ) -> list[Event | InvalidEvent] | None:
        """Events of whole columns, with an error in place of each whose time cannot be accepted.

        Args:
            records: Where the events come from, one or more.
            columns: One per field of the schema, in avro form; may be changed.
            bodies: Their bodies; None to write them.

        Returns:
            One per record; None if any is in doubt.
        """
        if not all(judge(columns[at]) for at, judge in self._judges):
            return None
        for at, kind, is_canonical in self._normalised:
            if not is_canonical(columns[at]):
                columns[at] = canonical_column(kind, columns[at])
                bodies = None
        ticks = columns[self._time_at]
        times = ticks if self._unit_us == 1 else [each * self._unit_us for each in ticks]
        plain = [columns[at] if convert is None else convert(columns[at]) for at, convert in self._to_plain]
        if self._arrays and array_text_bytes(plain[n] for n in self._arrays) > MAX_ARRAY_TEXT:
            return None
        if bodies is None:
            names = self._names
            bodies = self._bodies.write_many([dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)])
        key_columns = [columns[at] for at in self._keys_at]
        rows = zip(
            [each.offset for each in records],
            zip(*key_columns, strict=True),
            encode_entities(key_columns),
            times,
            repeat(False),
            zip(*plain, strict=True) if plain else repeat(()),
            bodies,
            strict=False,
        )
        events: list[Event | InvalidEvent] = list(map(_AS_EVENT, rows))
        if not self._all_in_time(records, times):
            # A time that no date can hold may be no value of its type either: the exact way says which it is.
            if not MIN_TIME_US <= min(times) <= max(times) <= MAX_TIME_US:
                return None
            for position, (record, time_us) in enumerate(zip(records, times, strict=True)):
                error = self._time_error(record, time_us)
                if error is not None:
                    events[position] = error
        return events

    def one(self, record: Record, avro: dict[str, Any]) -> Event:
        """The event of one record in checked, canonical avro form.

        Raises:
            InvalidEvent: The key or the event time cannot be accepted; names the field.
        """
        group = self._group
        for part in group.keys:
            try:
                check_part(avro[part.name])
            except InvalidEvent as exc:
                raise InvalidEvent(exc.reason, f"{group.name}.{part.name} {exc}") from exc
        key = tuple(avro[part.name] for part in group.keys)
        time_us = avro[group.event_time_field.name] * self._unit_us
        self._check_time(record, time_us)
        values = tuple(
            None if avro[each.name] is None else each.type.plain_from_avro(avro[each.name]) for each in group.features
        )
        if self._arrays and array_text_bytes([values[n]] for n in self._arrays) > MAX_ARRAY_TEXT:
            raise InvalidEvent(
                Reason.TOO_LARGE, f"{group.name}: its arrays are longer than {MAX_ARRAY_TEXT} characters as text"
            )
        body = self._bodies.write(avro)
        return Event(record.offset, key, encode_entity(key), time_us, False, values, body)

    def tombstone(self, record: Record, key: tuple[Plain, ...], time_us: int | None) -> Event:
        """The event of a tombstone.

        Args:
            record: The record.
            key: Checked entity key.
            time_us: Event time; None for the end of the millisecond of the record's own timestamp.

        Raises:
            InvalidEvent: The event time cannot be accepted.
        """
        if time_us is None:
            time_us = record.timestamp * 1000 + 999
        self._check_time(record, time_us)
        return Event(record.offset, key, encode_entity(key), time_us, True, (), b"")

    def _all_in_time(self, records: Sequence[Record], times: Sequence[int]) -> bool:
        future_us = self._future_us
        latest = [each.timestamp * 1000 + future_us for each in records]
        return min(times) >= self._earliest and max(times) <= MAX_TIME_US and all(map(le, times, latest))

    def _time_error(self, record: Record, time_us: int) -> InvalidEvent | None:
        """Why an event time cannot be accepted, if so."""
        where = f"{self._group.name}.{self._group.event_time_field.name}"
        if time_us < self._earliest:
            return InvalidEvent(
                Reason.EVENT_TIME_TOO_OLD,
                f"{where} is older than the oldest event time that is accepted (OOMSTREAM_MIN_EVENT_TIME)",
            )
        if time_us > min(record.timestamp * 1000 + self._future_us, MAX_TIME_US):
            return InvalidEvent(
                Reason.EVENT_TIME_IN_FUTURE,
                f"{where} lies further after the record's timestamp than is accepted (OOMSTREAM_MAX_FUTURE)",
            )
        return None

    def _check_time(self, record: Record, time_us: int) -> None:
        error = self._time_error(record, time_us)
        if error is not None:
            raise error
