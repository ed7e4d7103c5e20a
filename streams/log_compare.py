"""One partition's records, rows and dead letters, merged in order of offset."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.events import Event, Plain
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.base import HistoryRow, HistoryStore, Source
from oomstream.streams.decoding import Decoding
from oomstream.streams.judging import Judge, Side
from oomstream.streams.log_result import LogDifference, LogFinding, PartitionCheck
from oomstream.streams.offset_set import OffsetSet
from oomstream.streams.topic_log import Stretch

_ROWS = 1_000

_UNSETTLED_US = 120_000_000
"""For so long after a definition was published a transaction may still have been decoded with the one before: its own
limit of 30 s, what a server adds to it, and some difference between clocks."""


class Kept(NamedTuple):
    """What may be gone from the log or the dead-letter topic, so that its absence says nothing.

    Attributes:
        compacted: The topic is compacted.
        letters_dropped: The dead-letter topic has dropped letters.
    """

    compacted: bool = False
    letters_dropped: bool = False


class PartitionComparison:
    """Compares one partition, a stretch at a time.

    Args:
        history: Open history store.
        decoding: Decodes as the pipeline does.
        group: Name of the group.
        source: The partition's source, as it was before anything of it was read.
        letters: Offsets before its position that have a dead letter.
        kept: What may be gone.
    """

    def __init__(
        self,
        history: HistoryStore,
        decoding: Decoding,
        group: str,
        source: Source,
        letters: OffsetSet,
        kept: Kept,
    ) -> None:
        self.check = PartitionCheck(source.name.partition, source.id, source.next_sequence)
        self._history = history
        self._decoding = decoding
        self._group = group
        self._source = source
        self._letters = letters
        self._kept = kept
        self._terms: _Terms | None = None

    async def first_known(self) -> int:
        """The first offset that has a row or a letter; the position if none has."""
        terms = await self._newest_terms()
        position = self.check.position
        rows = await self._history.rows_of_source(terms.judge.group, self._source.id, 0, position, limit=1)
        return min([row.sequence for row in rows] + [next(self._letters.between(0, position), position)])

    async def differences(self, stretch: Stretch) -> AsyncIterator[LogDifference]:
        """What is wrong in a stretch of the log, in order of offset but for dead letters; counts everything."""
        if stretch.dropped:
            self.check.dropped += stretch.end - stretch.start
            return
        events, forgotten = await self._decode(stretch)
        terms = await self._newest_terms()
        rows = self._rows(terms, stretch)
        row = await anext(rows, None)
        for record in stretch.records:
            while row is not None and row.sequence < record.offset:
                if (found := self._without_record(terms, row)) is not None:
                    yield found
                row = await anext(rows, None)
            mine = row if row is not None and row.sequence == record.offset else None
            if record.offset in forgotten:
                self.check.forgotten += 1
                if mine is not None:
                    yield self._difference(LogFinding.EXTRA, record.offset, None, mine)
                    row = await anext(rows, None)
                continue
            if (found := self._of_record(terms, record.offset, events.get(record.offset), mine)) is not None:
                yield found
            if mine is not None:
                while (row := await anext(rows, None)) is not None and row.sequence == record.offset:
                    yield self._difference(LogFinding.DOUBLED, row.sequence, None, row)
        while row is not None:
            if (found := self._without_record(terms, row)) is not None:
                yield found
            row = await anext(rows, None)
        for found in self._letters_without_record(stretch):
            yield found

    async def _decode(self, stretch: Stretch) -> tuple[dict[int, Event], frozenset[int]]:
        """The valid events of a stretch by offset, and the offsets of those of forgotten entities."""
        if not stretch.records:
            return {}, frozenset()
        decoded, registered = await self._decoding.decode(stretch.records, self._group)
        if self._terms is None or self._terms.version != registered.group.version:
            self._terms = _Terms(registered)
        return {event.sequence: event for event in decoded.events}, decoded.forgotten

    async def _newest_terms(self) -> _Terms:
        if self._terms is None:
            _, registered = await self._decoding.decode((), self._group)
            self._terms = _Terms(registered)
        return self._terms

    async def _rows(self, terms: _Terms, stretch: Stretch) -> AsyncIterator[HistoryRow]:
        """The source's rows in a stretch, by sequence, page by page."""
        start = stretch.start
        while start < stretch.end:
            rows = await self._history.rows_of_source(
                terms.judge.group, self._source.id, start, stretch.end, limit=_ROWS
            )
            # The last sequence of a full page may have more rows than fitted: it begins the next page.
            whole = len(rows) < _ROWS or rows[0].sequence == rows[-1].sequence
            for row in rows:
                if whole or row.sequence < rows[-1].sequence:
                    yield row
            if len(rows) < _ROWS:
                return
            start = rows[-1].sequence + whole

    def _of_record(
        self, terms: _Terms, offset: int, event: Event | None, row: HistoryRow | None
    ) -> LogDifference | None:
        """What is wrong with one record of the log."""
        check, dead = self.check, offset in self._letters
        check.records += 1
        check.events += event is not None
        check.letters += dead
        finding: LogFinding | None = None
        if event is not None and row is not None:
            check.taken_in += dead
            finding = None if terms.agree(event, row) else LogFinding.DIFFERENT
        elif event is not None and event.event_time_us < terms.horizon_us and not dead:
            check.retired += 1
        elif event is not None:
            check.waiting += dead
            finding = None if dead else LogFinding.LOST
        elif row is not None:
            finding = LogFinding.REFUSED
        elif not dead:
            finding = LogFinding.LETTER_MISSING
            if self._kept.letters_dropped:
                check.unjudged += 1
                finding = None
        return None if finding is None else self._difference(finding, offset, event, row)

    def _without_record(self, terms: _Terms, row: HistoryRow) -> LogDifference | None:
        if self._kept.compacted:
            self.check.unjudged += 1
            return None
        return self._difference(LogFinding.EXTRA, row.sequence, None, row)

    def _letters_without_record(self, stretch: Stretch) -> Iterator[LogDifference]:
        offsets = {record.offset for record in stretch.records}
        for offset in self._letters.between(stretch.start, stretch.end):
            if offset in offsets:
                continue
            self.check.letters += 1
            if self._kept.compacted:
                self.check.unjudged += 1
            else:
                yield self._difference(LogFinding.LETTER_EXTRA, offset, None, None)

    def _difference(
        self, finding: LogFinding, offset: int, event: Event | None, row: HistoryRow | None
    ) -> LogDifference:
        assert self._terms is not None
        self.check.count(finding)
        name, kinds = self._source.name, {self._source.id: SourceKind.TOPIC}
        return LogDifference(
            topic=name.name,
            partition=name.partition,
            offset=offset,
            finding=finding,
            key=event.key if event is not None else row.key if row is not None else None,
            log=None if event is None else self._terms.log_side(event, self._source.id),
            history=self._terms.judge.history_side(row, kinds),
        )


class _Terms:
    """The terms of one definition version: what an event says in them, and what its row may say instead."""

    def __init__(self, registered: RegisteredGroup) -> None:
        self.version = registered.group.version
        self.horizon_us = registered.horizon_us
        self.judge = Judge(registered)
        self._published = registered.published
        self._features = registered.group.features

    def agree(self, event: Event, row: HistoryRow) -> bool:
        """Whether a row is what its event became."""
        if (row.key, row.event_time_us, row.deleted) != (event.key, event.event_time_us, event.deleted):
            return False
        body = self.judge.canonical(row)
        if body is None or body == event.body:
            return body is not None
        absent: frozenset[str] | None = None
        in_row, in_log = self.judge.values(body), self.judge.values(event.body)
        for feature, there, here in zip(self._features, in_row, in_log, strict=True):
            if there != here or type(there) is not type(here):
                absent = self._absent_at(row.ingest_time_us) if absent is None else absent
                default = feature.default if feature.has_default else None
                if feature.name not in absent or there != default:
                    return False
        return True

    def _absent_at(self, ingest_time_us: int) -> frozenset[str]:
        """Features that a row of an ingest time may not have known: they were added, or revived, later."""
        known: frozenset[str] | None = None
        current = 0
        for number, each in enumerate(self._published):
            if each.create_time_us <= ingest_time_us - _UNSETTLED_US:
                current = number  # nothing older can have been in use
        for each in self._published[current:]:
            if each.create_time_us <= ingest_time_us + _UNSETTLED_US or known is None:
                known = each.fields if known is None else known & each.fields
        return frozenset(feature.name for feature in self._features if known is not None and feature.name not in known)

    def log_side(self, event: Event, source_id: int) -> Side:
        """What an event of the log says."""
        names = [feature.name for feature in self._features]
        values: dict[str, Plain] = {} if event.deleted else dict(zip(names, event.values, strict=True))
        version = Version(event.event_time_us, SourceKind.TOPIC, source_id, event.sequence)
        return Side(version, event.deleted, values=values)
