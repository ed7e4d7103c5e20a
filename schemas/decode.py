"""Records of a log to events: what is exactly one valid encoding of the group's schema, and what is not.

Records of one batch that are framed alike (and written with the same schema) are decoded together, a few hundred at a
time, by code that loops in C and only says yes beyond doubt. Where it does not, fewer of those are tried together, down
to one, and the ones still in doubt are judged slowly and exactly. Both ways give the same events.

Source:
    design.md, section 3 (event bytes).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.columns import Column
from oomstream.schemas.errors import InvalidDefinition, InvalidEvent, Reason
from oomstream.schemas.event_builder import EventBuilder
from oomstream.schemas.event_builder import EventLimits as EventLimits
from oomstream.schemas.events import Decoded, Event, Record, Rejected
from oomstream.schemas.framing import (
    SINGLE_OBJECT_HEADER_BYTES,
    Framing,
    detect,
    frame,
    parse_tombstone_key,
    tombstone_time_us,
)
from oomstream.schemas.groups import EventTimeField
from oomstream.schemas.json_events import JsonForm, parse_object
from oomstream.schemas.layout import RecordField, read_fields, under_names_of
from oomstream.schemas.names import MAX_NAME
from oomstream.schemas.resolve import Resolution
from oomstream.schemas.strict import StrictBodies
from oomstream.schemas.walker import walk

# What is decoded together: enough for speed, and few enough that a bad record among them costs little.
_CHUNK_RECORDS = 256
_COLUMN_RECORDS = 2048
"""Of bodies that are read column by column."""
_CHUNK_BYTES = 256 << 10

# Into how many parts a chunk is divided in which something is in doubt.
_PARTS = 4

_MAX_UNKNOWN_FIELDS = 100
"""Most names of unknown fields that one batch reports: they come from outside."""

_FEATURE_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{MAX_NAME - 1}}}", re.ASCII)


class _Form(Protocol):
    """How the bodies of some records hold the values of the group's fields."""

    keeps_bodies: bool
    """Whether a body that is beyond doubt is the canonical body of the newest definition."""

    def columns(self, items: Sequence[Any]) -> list[Column] | None:
        """One column per field, in avro form; None if anything is in doubt."""

    def record(self, item: Any) -> dict[str, Any]:
        """The checked record in one body, in canonical avro form; raises InvalidEvent."""


class _AvroForm:
    """Bodies of one writer's schema."""

    def __init__(
        self,
        writer: tuple[RecordField, ...],
        reader: tuple[RecordField, ...],
        event_time: EventTimeField,
        *,
        where: str,
    ) -> None:
        self._where = where
        self._fields = writer
        self._bodies = StrictBodies(writer)
        self._resolution = Resolution(writer, reader, event_time, where=where)
        self.keeps_bodies = self._resolution.is_same
        self.chunk_records = _COLUMN_RECORDS if self._bodies.in_columns else _CHUNK_RECORDS

    def columns(self, items: Sequence[bytes]) -> list[Column] | None:
        columns = self._bodies.read_columns(items)
        return None if columns is None else self._resolution.columns(columns, len(items))

    def record(self, item: bytes) -> dict[str, Any]:
        return self._resolution.record(walk(item, self._fields, where=self._where))


class _Batch:
    """What becomes of one batch, while it is decoded."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.results: list[Event | InvalidEvent | Rejected | None] = [None] * len(records)
        self.waiting: dict[_AvroForm, tuple[list[int], list[bytes]]] = {}
        self.json: tuple[list[int], list[bytes]] = ([], [])
        self.ignored_fields = 0
        self.fingerprints: set[bytes] = set()
        self.fields: set[str] = set()
        self.schema_ids: set[int] = set()

    def wait(self, form: _AvroForm, at: int, body: bytes) -> None:
        waiting = self.waiting.get(form)
        if waiting is None:
            waiting = self.waiting[form] = ([], [])
        waiting[0].append(at)
        waiting[1].append(body)

    def reject(self, at: int, error: InvalidEvent) -> None:
        # A new error: the traceback of the raised one keeps alive all that its frames hold, which may be megabytes.
        self.results[at] = Rejected(self.records[at], InvalidEvent(error.reason, str(error)))

    def decoded(self) -> Decoded:
        return Decoded(
            [each for each in self.results if each.__class__ is Event],
            [each for each in self.results if each.__class__ is Rejected],
            self.ignored_fields,
            frozenset(self.fingerprints),
            frozenset(self.fields),
            frozenset(self.schema_ids),
        )


class Decoder:
    """Decodes records in the terms of one definition version of a group; keeps nothing of a batch.

    Not to be used by several threads at once.
    """

    def __init__(
        self, registered: RegisteredGroup, limits: EventLimits, registry: Mapping[int, Any] | None = None
    ) -> None:
        """Prepare for a group.

        Args:
            registered: The group as the catalog holds it.
            limits: Which event times and sizes are accepted.
            registry: Schemas of the Schema Registry by id, as JSON data; looked into anew for each batch, so that the
                caller may add to it.
        """
        group = registered.group
        self.group = group
        self._where = group.name
        self._writers = registered.writers
        self._registry: Mapping[int, Any] = {} if registry is None else registry
        self._max_bytes = limits.max_bytes
        self._fields = read_fields(group.schema, where=f"group {group.name}")
        self._field_names = frozenset(each.name for each in self._fields)
        self._retired_names = frozenset(each.name for each in group.retired)
        self._json = JsonForm(group, self._fields)
        self._builder = EventBuilder(group, self._fields, StrictBodies(self._fields), limits)
        self._by_header: dict[bytes, _AvroForm] = {}
        self._by_fingerprint: dict[bytes, _AvroForm | InvalidEvent] = {}
        self._by_schema_id: dict[int, _AvroForm | InvalidEvent] = {}

    def decode(self, records: Sequence[Record]) -> Decoded:
        """Decode one batch.

        Args:
            records: Of one source, in log order.

        Returns:
            Every record, as an event or as rejected; nothing is raised for what a record holds.
        """
        batch = _Batch(records)
        values = [record.value for record in records]
        form = self._only_form(values)
        if form is not None:
            bodies: list[bytes] = [value[SINGLE_OBJECT_HEADER_BYTES:] for value in values if value is not None]
            self._build_bodies(batch, form, range(len(bodies)), bodies)
            return batch.decoded()
        known = self._by_header
        longest = self._max_bytes
        for at, (record, value) in enumerate(zip(records, values, strict=True)):
            # The common case by the shortest way: a schema that was met before.
            if value is not None and len(value) <= longest:
                form = known.get(value[:SINGLE_OBJECT_HEADER_BYTES])
                if form is not None:
                    batch.wait(form, at, value[SINGLE_OBJECT_HEADER_BYTES:])
                    continue
            try:
                self._sort(batch, at, record)
            except InvalidEvent as exc:
                batch.reject(at, exc)
        for form, (waiting, bodies) in batch.waiting.items():
            self._build_bodies(batch, form, waiting, bodies)
        places, texts = batch.json
        for chunk in _chunks(texts, _CHUNK_RECORDS):
            self._build_json(batch, places[chunk], texts[chunk])
        return batch.decoded()

    def _only_form(self, values: Sequence[bytes | None]) -> _AvroForm | None:
        """The form of all values, if they are of one schema that was met before, and none is too long."""
        present = [value for value in values if value is not None]
        if not present or len(present) < len(values) or max(map(len, present)) > self._max_bytes:
            return None
        headers = {value[:SINGLE_OBJECT_HEADER_BYTES] for value in present}
        return self._by_header.get(headers.pop()) if len(headers) == 1 else None

    def _sort(self, batch: _Batch, at: int, record: Record) -> None:
        """Put a record with those that are decoded alike; a tombstone is decoded at once."""
        value = record.value
        if value is None:
            key = parse_tombstone_key(record.key, self.group.keys, where=self._where)
            time_us = tombstone_time_us(record.headers, where=self._where)
            batch.results[at] = self._builder.tombstone(record, key, time_us)
            return
        if len(value) > self._max_bytes:
            raise InvalidEvent(Reason.TOO_LARGE, f"{self._where}: the message is longer than {self._max_bytes} bytes")
        framed = detect(value, where=self._where)
        if framed.framing is Framing.JSON:
            batch.json[0].append(at)
            batch.json[1].append(value)
            return
        if framed.framing is Framing.SINGLE_OBJECT:
            form = self._form_of_fingerprint(batch, framed.fingerprint)
        else:
            form = self._form_of_schema_id(batch, framed.schema_id)
        if isinstance(form, InvalidEvent):
            batch.reject(at, form)
        else:
            batch.wait(form, at, framed.body)

    def _form_of_fingerprint(self, batch: _Batch, fingerprint: bytes) -> _AvroForm | InvalidEvent:
        writer = self._writers.get(fingerprint)
        if writer is None:
            batch.fingerprints.add(fingerprint)
            raise InvalidEvent(
                Reason.UNKNOWN_FINGERPRINT, f"{self._where}: no definition has the fingerprint {fingerprint.hex()}"
            )
        form = self._by_fingerprint.get(fingerprint)
        if form is None:
            form = self._by_fingerprint[fingerprint] = self._form(writer.schema)
            if isinstance(form, _AvroForm):
                self._by_header[frame(fingerprint, b"")] = form
        return form

    def _form_of_schema_id(self, batch: _Batch, schema_id: int) -> _AvroForm | InvalidEvent:
        form = self._by_schema_id.get(schema_id)
        if form is not None:
            return form
        if schema_id not in self._registry:
            batch.schema_ids.add(schema_id)
            raise InvalidEvent(
                Reason.UNKNOWN_SCHEMA_ID, f"{self._where}: the Schema Registry's schema {schema_id} is not known"
            )
        form = self._by_schema_id[schema_id] = self._form(self._registry[schema_id])
        return form

    def _form(self, schema: Any) -> _AvroForm | InvalidEvent:
        try:
            writer = under_names_of(self._fields, read_fields(schema, where=self._where, foreign=True))
            return _AvroForm(writer, self._fields, self.group.event_time_field, where=self._where)
        except InvalidDefinition as exc:
            return InvalidEvent(Reason.UNSUPPORTED_SCHEMA, f"the writer's schema cannot be used: {exc}")

    def _build_bodies(self, batch: _Batch, form: _AvroForm, places: Sequence[int], bodies: Sequence[bytes]) -> None:
        for chunk in _chunks(bodies, form.chunk_records):
            self._build(batch, form, places[chunk], bodies[chunk])

    def _build_json(self, batch: _Batch, places: Sequence[int], texts: Sequence[bytes]) -> None:
        good: list[int] = []
        objects: list[dict[str, Any]] = []
        for at, text in zip(places, texts, strict=True):
            try:
                found = parse_object(text, where=self._where)
            except InvalidEvent as exc:
                batch.reject(at, exc)
                continue
            if not found.keys() <= self._field_names:
                extra = found.keys() - self._field_names
                batch.ignored_fields += len(extra)
                self._report_unknown(batch, extra)
            good.append(at)
            objects.append(found)
        if good:
            self._build(batch, self._json, good, objects)

    def _report_unknown(self, batch: _Batch, extra: set[str]) -> None:
        for name in extra - self._retired_names:
            if len(batch.fields) < _MAX_UNKNOWN_FIELDS and _FEATURE_NAME.fullmatch(name):
                batch.fields.add(name)

    def _build(self, batch: _Batch, form: _Form, places: Sequence[int], items: Sequence[Any]) -> None:
        """Make the events of some records that are framed alike: together, else in smaller groups, else slowly."""
        made = self._together(batch, form, places, items)
        if made is not None:
            for at, event in zip(places, made, strict=True):
                if event.__class__ is InvalidEvent:
                    batch.reject(at, event)
                else:
                    batch.results[at] = event
        elif len(items) > 1:
            size = -(-len(items) // _PARTS)
            for start in range(0, len(items), size):
                self._build(batch, form, places[start : start + size], items[start : start + size])
        else:
            try:
                batch.results[places[0]] = self._builder.one(batch.records[places[0]], form.record(items[0]))
            except InvalidEvent as exc:
                batch.reject(places[0], exc)

    def _together(
        self, batch: _Batch, form: _Form, places: Sequence[int], items: Sequence[Any]
    ) -> list[Event | InvalidEvent] | None:
        columns = form.columns(items)
        if columns is None:
            return None
        records = batch.records
        bodies = items if form.keeps_bodies else None
        return self._builder.many([records[at] for at in places], columns, bodies)


def _chunks(items: Sequence[bytes], records: int) -> Iterator[slice]:
    """Slices of at most that many items and of few bytes each, or of a single item."""
    start = size = 0
    if items and max(map(len, items)) * min(records, len(items)) <= _CHUNK_BYTES:
        for start in range(0, len(items), records):
            yield slice(start, start + records)
        return
    for at, item in enumerate(items):
        if at > start and (at - start == records or size + len(item) > _CHUNK_BYTES):
            yield slice(start, at)
            start, size = at, 0
        size += len(item)
    if start < len(items):
        yield slice(start, len(items))
