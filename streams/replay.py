"""Dead letters taken in again, after a fix: each as the event that it was, under its original source and sequence.

A letter becomes the row of history that it would have been, with the same version, and its online row is derived from
that row; so replaying twice changes nothing, and a newer value that came meanwhile stays. The row is ingested now: a
training set as of a time before the replay does not have it. Workers may run meanwhile. Dead-letter topics are only
appended to: a letter is known to be replayed by its identity being in history.

Source:
    design.md, section 4 (identity) and section 5 (history first, then online).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.errors import DefinitionChanged, InvalidEvent
from oomstream.schemas.events import Event, RawRecord
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import HistoryRow, HistoryStore, OnlineStore, Source, SourceName
from oomstream.stores.crash_points import reach
from oomstream.stores.rebuild import rebuild_rows
from oomstream.streams.dead_letters import DeadLetter
from oomstream.streams.decoding import Decoding
from oomstream.streams.letters import by_source, chunks
from oomstream.streams.retention import is_over

AT_ONCE = 500
"""Most letters in one transaction, which holds up the source's worker."""

FORGOTTEN = "forgotten"
"""The event's entity was forgotten after it."""

BEFORE_HORIZON = "before_horizon"
"""The event is older than what the group's history keeps: it may have been replayed, and removed since."""


@dataclass(slots=True)
class ReplayCounts:
    """What became of a topic's dead letters, each counted once.

    Attributes:
        topic: The topic.
        letters: All of them.
        replayed: Events that were written to history now; in a dry run, those that would be.
        present: Events that were in history before.
        waiting: Valid ones whose place the source's worker has not passed yet: it decides them.
        refused: Those that still are no valid events, by reason; and valid ones that are left out, as `FORGOTTEN` or
            `BEFORE_HORIZON`.
        unknown: Letters, by source, of which history knows no such source of this topic; nothing was done with them.
    """

    topic: str
    letters: int = 0
    replayed: int = 0
    present: int = 0
    waiting: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    unknown: Counter[SourceName] = field(default_factory=Counter)


class Replay:
    """Replays dead letters of one group's topic; for one task at a time.

    Args:
        history: Open history store.
        online: Open online store, paired with it.
        decoding: Decodes in the terms of the newest definition.
        group: The group.
        dry_run: Only count what would happen. What the database would reject for its data is not known then.
    """

    def __init__(
        self,
        history: HistoryStore,
        online: OnlineStore,
        decoding: Decoding,
        group: FeatureGroup,
        *,
        dry_run: bool = False,
    ) -> None:
        self.counts = ReplayCounts(group.topic)
        self._history = history
        self._online = online
        self._decoding = decoding
        self._group = group
        self._dry_run = dry_run

    async def take(
        self, letters: Iterable[DeadLetter], on_progress: Callable[[ReplayCounts], None] = lambda _: None
    ) -> ReplayCounts:
        """Replay letters, in bounded memory; those that are still invalid stay what they are.

        Done again, after a failure or a kill at any moment, it completes what was begun: online rows are also derived
        from events that are in history already.

        Args:
            letters: Each identity once, in any order; read in a thread.
            on_progress: Called with the counts so far, now and then.

        Raises:
            StoreUnavailable: A store, the registry or the broker failed; what was replayed stays.
        """
        read = chunks(letters)
        while chunk := await asyncio.to_thread(next, read, None):
            for name, of_source in by_source(chunk):
                self.counts.letters += len(of_source)
                source = await self._history.find_source(name) if name.name == self._group.topic else None
                if source is None:
                    self.counts.unknown[name] += len(of_source)
                    continue
                for at in range(0, len(of_source), AT_ONCE):
                    await self._take(source, of_source[at : at + AT_ONCE])
                    on_progress(self.counts)
        return self.counts

    async def _take(self, source: Source, letters: Sequence[DeadLetter]) -> None:
        """Replay a few letters of one source, in order of offset."""
        offsets = [letter.offset for letter in letters]
        present = await self._history.identities_in_history(self._group, source.id, offsets)
        records = [
            RawRecord(letter.offset, letter.key, letter.value, letter.timestamp, letter.headers)
            for letter in letters
            if letter.offset not in present
        ]
        outcome = _Outcome()
        while True:
            decoded, registered = await self._decoding.decode(records, self._group.name)
            events = [event for event in decoded.events if event.event_time_us >= registered.horizon_us]
            try:
                rows = await self._write(source, registered.group, events, outcome)
            except DefinitionChanged:
                await self._decoding.renew()
            else:
                break
        if not self._dry_run:
            rows += await self._history.rows_at(registered.group, source.id, present)
            await self._derive(registered, rows, source.name.kind)
        self.counts.replayed += len(outcome.written)
        self.counts.present += len(present | outcome.found)
        self.counts.waiting += len(events) - sum(map(len, (outcome.written, outcome.found, outcome.refused)))
        self.counts.refused.update(str(each.error.reason) for each in decoded.rejected)
        self.counts.refused.update(outcome.refused.values())
        self.counts.refused += Counter(
            {FORGOTTEN: len(decoded.forgotten), BEFORE_HORIZON: len(decoded.events) - len(events)}
        )

    async def _write(
        self, source: Source, group: FeatureGroup, events: Sequence[Event], outcome: _Outcome
    ) -> list[HistoryRow]:
        """Write events to history; gives all rows that are there under their identities.

        Raises:
            DefinitionChanged: There is a newer definition; some of the events may have been written.
        """
        if self._dry_run:
            outcome.written.update(event.sequence for event in events if event.sequence < source.next_sequence)
        if self._dry_run or not events:
            return []
        try:
            done = await self._history.append_replayed(source.id, group, events)
        except InvalidEvent as exc:
            if len(events) == 1:
                outcome.refused[events[0].sequence] = str(exc.reason)
                return []
            middle = len(events) // 2
            first = await self._write(source, group, events[:middle], outcome)
            return first + await self._write(source, group, events[middle:], outcome)
        reach("after_history")
        outcome.written |= done.written
        outcome.found |= {row.sequence for row in done.rows} - outcome.written
        return done.rows

    async def _derive(self, registered: RegisteredGroup, rows: list[HistoryRow], kind: SourceKind) -> None:
        kept = [row for row in rows if not is_over(registered.group, row, registered.horizon_us)]
        if kept:
            kept.sort(key=attrgetter("sequence"))
            await rebuild_rows(self._online, BodyCodec(registered), kept, kind)
            reach("after_online")


@dataclass(slots=True)
class _Outcome:
    """What became of the valid letters of one part, however often it is tried, by their sequences."""

    written: set[int] = field(default_factory=set)
    found: set[int] = field(default_factory=set)
    refused: dict[int, str] = field(default_factory=dict)
