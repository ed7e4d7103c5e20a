"""Rows of a file to rows of a group, under one definition: exactly what is meant, or an error that says where."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.columns import Column, array_text_bytes, to_plain_of
from oomstream.schemas.errors import InvalidEvent, InvalidImport, Reason
from oomstream.schemas.event_builder import EventBuilder, EventLimits
from oomstream.schemas.events import MAX_EVENT_BYTES, Event, RawRecord
from oomstream.schemas.file_columns import EventTimeReader, FileField, InvalidCell
from oomstream.schemas.framing import SINGLE_OBJECT_HEADER_BYTES, frame
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.layout import RecordField, read_fields
from oomstream.schemas.strict import StrictBodies
from oomstream.schemas.texts import MILLISECOND_US
from oomstream.schemas.types import MAX_ARRAY_TEXT, Kind
from oomstream.stores.revisions import RevisionRow
from oomstream.streams.csv_rows import RowBatch
from oomstream.streams.import_header import match_header

_MAX_BODY = MAX_EVENT_BYTES - SINGLE_OBJECT_HEADER_BYTES
_TEXTS = frozenset({Kind.STRING, Kind.BYTES, Kind.ENUM, Kind.DECIMAL, Kind.ARRAY})
_MOST_BYTES_OF_NUMBER = 10
_MOST_BYTES_PER_CHARACTER = 5
"""In an array an item takes at least two characters as text, and ten bytes at most in Avro."""


class RowReader:
    """Reads batches of one file under one definition of a group.

    Args:
        group: The group, as registered.
        batch: The first batch, for the header.
        where: Names the file, for messages.
        begun: Whether a part of the file was imported earlier (see `match_header`).

    Raises:
        InvalidImport: The header lacks a column, or has one too many or twice; names it.
    """

    def __init__(self, group: FeatureGroup, batch: RowBatch, *, where: str, begun: bool = False) -> None:
        self.group = group
        self.where = where
        self.fields = read_fields(group.schema, where=f"group {group.name}")
        self._header = batch.header
        head = f"{where}: line 1" if batch.is_text else where
        self._columns = match_header(group, batch.header, where=head, begun=begun)
        self._defaults = {
            each.name: None if each.default is None else each.type.avro_from_plain(each.default)
            for each in group.features
            if each.has_default
        }
        self._readers = [self._reader(field) for field in self.fields if field.name in self._columns]

    def _reader(self, field: RecordField) -> FileField | EventTimeReader:
        event_time = self.group.event_time
        if event_time is None or field.name != event_time.name:
            return FileField(field, is_key=field.name in self.group.key_names)
        has_own_unit = self._header[self._columns[field.name]] == field.name and field.type.kind is Kind.LONG
        return EventTimeReader(event_time, event_time.unit.microseconds if has_own_unit else MILLISECOND_US)

    def columns(self, batch: RowBatch) -> list[Column]:
        """One column per field of the schema, in canonical avro form.

        Raises:
            InvalidImport: A value is wrong; names the line and the column of the first row that has one.
        """
        if batch.header != self._header:
            raise InvalidImport(f"{self.where}: its columns change at {batch.place(0)}")
        found: dict[str, Column] = {}
        first: tuple[InvalidCell, str] | None = None
        for reader in self._readers:
            try:
                column = batch.columns[self._columns[reader.name]]
                found[reader.name] = reader.read(column, is_text=batch.is_text)
            except InvalidCell as exc:
                if first is None or exc.at < first[0].at:
                    first = exc, reader.name
        if first is not None:
            raise self.error(batch, first[0].at, str(first[0]), first[1])
        missing = {name: [default] * batch.num_rows for name, default in self._defaults.items() if name not in found}
        return [found[field.name] if field.name in found else missing[field.name] for field in self.fields]

    def error(self, batch: RowBatch, at: int, what: str, field: str | None = None) -> InvalidImport:
        """The error for a row of a batch.

        Args:
            batch: The batch.
            at: Number of the row in it, from 0.
            what: What is wrong, as the end of a sentence.
            field: The field whose column it is about.
        """
        column = "" if field is None else f", column {self._header[self._columns[field]]!r}"
        return InvalidImport(f"{self.where}: {batch.place(at)}{column} {what}")


class RevisionReader(RowReader):
    """Reads rows of a batch group; see `RowReader`."""

    def __init__(self, registered: RegisteredGroup, batch: RowBatch, *, where: str) -> None:
        group = registered.group
        super().__init__(group, batch, where=where)
        at = {field.name: number for number, field in enumerate(self.fields)}
        self._keys_at = [at[name] for name in group.key_names]
        self._features = [(at[each.name], to_plain_of(each.type)) for each in group.features]
        self._texts = [n for n, each in enumerate(group.features) if each.type.kind in _TEXTS]
        self._arrays = [n for n, each in enumerate(group.features) if each.type.kind is Kind.ARRAY]
        self._codec = BodyCodec(registered)

    def rows(self, batch: RowBatch) -> list[RevisionRow]:
        """Rows in plain form.

        Raises:
            InvalidImport: A value is wrong, or a row is too long; names the line, and the column.
        """
        columns = self.columns(batch)
        keys = zip(*(columns[at] for at in self._keys_at), strict=True)
        plain = [columns[at] if convert is None else convert(columns[at]) for at, convert in self._features]
        rows = list(map(RevisionRow, keys, zip(*plain, strict=True) if plain else repeat(())))
        if not self._are_short(plain):
            for at, row in enumerate(rows):
                self._check_size(batch, at, row)
        return rows

    def _are_short(self, plain: Sequence[Column]) -> bool:
        """Whether all rows are beyond doubt no longer than is accepted."""
        longest = [max((len(each) for each in plain[n] if each is not None), default=0) for n in self._texts]
        return sum(longest) * _MOST_BYTES_PER_CHARACTER + len(self.fields) * _MOST_BYTES_OF_NUMBER <= _MAX_BODY

    def _check_size(self, batch: RowBatch, at: int, row: RevisionRow) -> None:
        if len(self._codec.encode(row.key, 0, row.values)) > _MAX_BODY:
            raise self.error(batch, at, f"is longer than {MAX_EVENT_BYTES} bytes")
        if array_text_bytes([row.values[n]] for n in self._arrays) > MAX_ARRAY_TEXT:
            raise self.error(batch, at, f"has arrays of more than {MAX_ARRAY_TEXT} characters as text")


class EventReader(RowReader):
    """Reads events of a stream group; see `RowReader`.

    Args:
        group: The group, as registered.
        batch: The first batch, for the header.
        limits: Which event times are accepted.
        now_ms: What they are measured against, UTC milliseconds.
        where: Names the file, for messages.
        begun: Whether a part of the file was imported earlier.
    """

    def __init__(
        self,
        group: FeatureGroup,
        batch: RowBatch,
        limits: EventLimits,
        now_ms: int,
        *,
        where: str,
        begun: bool = False,
    ) -> None:
        super().__init__(group, batch, where=where, begun=begun)
        self._now_ms = now_ms
        self._builder = EventBuilder(group, self.fields, StrictBodies(self.fields), limits)
        self._names = [field.name for field in self.fields]

    def records(self, batch: RowBatch) -> list[RawRecord]:
        """One record per row, as a log would hold it: its offset is the number of the row in the file, from 0.

        Raises:
            InvalidImport: A value or an event time is wrong, or a row is too long; names the line, and the column.
        """
        if not batch.num_rows:
            return []
        columns = self.columns(batch)
        offsets = range(batch.first, batch.first + batch.num_rows)
        records = [RawRecord(offset, None, b"", self._now_ms) for offset in offsets]
        events = self._builder.many(records, list(columns), None)
        if events is None:
            rows = zip(*columns, strict=True)
            events = [self._one(record, row) for record, row in zip(records, rows, strict=True)]
        for at, event in enumerate(events):
            if isinstance(event, InvalidEvent):
                raise self._refused(batch, at, event)
            if len(event.body) > _MAX_BODY:
                raise self.error(batch, at, f"is longer than {MAX_EVENT_BYTES} bytes")
        framed = [frame(self.group.fingerprint, event.body) for event in events if isinstance(event, Event)]
        return list(map(RawRecord, offsets, repeat(None), framed, repeat(self._now_ms)))

    def _one(self, record: RawRecord, row: Sequence[object]) -> Event | InvalidEvent:
        try:
            return self._builder.one(record, dict(zip(self._names, row, strict=True)))
        except InvalidEvent as exc:
            return exc

    def _refused(self, batch: RowBatch, at: int, error: InvalidEvent) -> InvalidImport:
        """An event's error in terms of the file: its messages begin with ``group.field`` where they are about one."""
        if error.reason in (Reason.EVENT_TIME_TOO_OLD, Reason.EVENT_TIME_IN_FUTURE):
            field = self.group.event_time_field.name
            what = str(error).removeprefix(f"{self.group.name}.{field} ").replace("the record's timestamp", "now")
            return self.error(batch, at, what, field)
        return self.error(batch, at, f"cannot be accepted: {error}")
