"""The ingest pipeline of one source: events in order become history and online rows, exactly once in effect.

One batch goes through these steps, in this order:

1. decode and validate; what is invalid goes to the dead-letter topic, and is awaited there;
2. history: the fence and the position, then the rows, in one transaction;
3. online: the newest event of each entity, written only where it is newer than what is stored;
4. done: the caller acknowledges the batch to the log.

The online rows of one batch may be written while the next one is decoded and written to history (`advance`); they are
there before those of the next are begun, so that at most one batch is behind, and acknowledged only when they are.

Whatever breaks between two steps, the next owner of the source finishes: the position says what is in history, and
`online_sequence` from where online rows must be derived from history again.

Source:
    design.md, section 5.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.errors import (
    DefinitionChanged,
    DlqLimitReached,
    Fatal,
    Fenced,
    InvalidEvent,
    LostRange,
    Reason,
    StoreUnavailable,
)
from oomstream.schemas.events import Event, Record, Rejected
from oomstream.schemas.online_value import OnlineRow, encode_values, key_prefix, online_rows
from oomstream.stores.base import DlqCounts, HistoryBatch, HistoryStore, OnlineStore, Source, SourceName
from oomstream.stores.catalog_cache import CatalogCache
from oomstream.stores.crash_points import reach
from oomstream.stores.rebuild import rebuild_source
from oomstream.stores.settings import Settings
from oomstream.streams.backoff import Backoff
from oomstream.streams.dead_letters import DeadLetter, DeadLetterSink, DlqLimit
from oomstream.streams.decoding import Decoding, T, WriterSchemas
from oomstream.streams.refused import RefusedLog, reasons_text

log = logging.getLogger(__name__)


@dataclass(slots=True)
class IngestCounts:
    """What a pipeline has done since it was made.

    Attributes:
        events: Valid events written to history.
        dead_letters: Records sent to the dead-letter topic.
        ignored_fields: Unknown JSON fields that were ignored.
        batches: Batches finished.
    """

    events: int = 0
    dead_letters: int = 0
    ignored_fields: int = 0
    batches: int = 0


class SourceIngest:
    """The pipeline of one source; for one task at a time.

    Args:
        history: Open history store.
        online: Open online store, paired with it.
        catalog: The process's catalog.
        dead_letters: Where invalid events go.
        name: The source. A topic's group is found by its name.
        settings: Limits and budgets.
        registry: Schema Registry, if one is set.
    """

    def __init__(
        self,
        *,
        history: HistoryStore,
        online: OnlineStore,
        catalog: CatalogCache,
        dead_letters: DeadLetterSink,
        name: SourceName,
        settings: Settings,
        registry: WriterSchemas | None = None,
    ) -> None:
        self.counts = IngestCounts()
        self._history = history
        self._online = online
        self._catalog = catalog
        self._dead_letters = dead_letters
        self._name = name
        self._where = f"{name.name}[{name.partition}]"
        self._settings = settings
        self._decoding = Decoding(catalog, settings, registry, attempt=self._until_done)
        self._dlq_limit = DlqLimit(settings.dlq_max_consecutive, settings.dlq_max_ratio, settings.dlq_window)
        self._source: Source | None = None
        self._stored_online_sequence = 0
        self._passed = 0
        self._interrupted = False
        self._following: asyncio.Task[None] | None = None
        # Between two batches a worker on such stores holds no lock: frozen there, it stops nobody.
        self._one_at_a_time = history.one_writer or online.one_writer
        self._refused = RefusedLog(self._where)

    @property
    def next_offset(self) -> int:
        """Sequence of the next record to read."""
        return self._held.next_sequence

    @property
    def source(self) -> Source:
        """The source as this pipeline holds it: its fence and its position."""
        return self._held

    @property
    def _held(self) -> Source:
        if self._source is None:
            raise Fatal(f"{self._where}: ingest before start()")
        return self._source

    def _backoff(self) -> Backoff:
        return Backoff(self._settings.outage_budget_us / 1e6, where=self._where)

    async def _until_done(self, operation: Callable[[], Awaitable[T]]) -> T:
        return await self._backoff().call(operation)

    async def start(self, first: int, last: int, *, begin: int) -> int:
        """Claim the source, and finish what its last owner left between history and online.

        Args:
            first: First offset that the log still holds.
            last: The log's end (offset of the next record to come).
            begin: Where a source never seen begins.

        Returns:
            Offset of the next record to read.

        Raises:
            LostRange: The log does not hold that offset, and the setting on_lost_range is not `skip`.
            Fatal: A store stayed down past the outage budget.
        """
        source = await self._backoff().call(lambda: self._history.claim(self._name, start=begin))
        reach("while_claiming")
        await self.adopt(source)
        position = source.next_sequence
        if first <= position <= last:
            return position
        lost = (
            f"{self._where}: the log no longer holds offsets {position} to {first - 1} (it begins at {first}); "
            "they were never ingested"
            if position < first
            else f"{self._where}: the position is {position}, but the log ends at {last}: it was truncated"
        )
        if self._settings.on_lost_range != "skip":
            raise LostRange(f"{lost}; set OOMSTREAM_ON_LOST_RANGE=skip to go on without them")
        if position > last:
            raise LostRange(f"{lost}; positions never move back: make the topic again (a new incarnation)")
        log.error("%s; skipped, as OOMSTREAM_ON_LOST_RANGE=skip says", lost)
        await self._move_to(first)
        return first

    async def adopt(self, source: Source) -> None:
        """Take over a source that was claimed for us, and finish its online rows."""
        self._source = source
        self._stored_online_sequence = source.online_sequence
        await self._backoff().call(self._finish_online)

    async def _finish_online(self) -> None:
        source = self._held
        if source.online_sequence < source.next_sequence:
            for registered in (await self._catalog.reload()).groups.values():
                await rebuild_source(
                    self._history, self._online, registered, source, source.online_sequence, source.next_sequence
                )
            self._source = replace(source, online_sequence=source.next_sequence)

    async def ingest(self, records: Sequence[Record], group: str | None = None) -> None:
        """Take one batch through all steps; when it returns, the log may forget the records.

        Args:
            records: As for `advance`.
            group: As for `advance`.

        Raises:
            OomstreamError: As for `advance`.
        """
        await self.advance(records, group)
        await self.settle()

    async def settle(self) -> None:
        """Wait until everything that was taken is online: from then on the log may forget it.

        Raises:
            Fatal: The online store stayed down past the outage budget.
        """
        task, self._following = self._following, None
        if task is not None:
            await task  # being cancelled, it is left between history and online

    async def advance(self, records: Sequence[Record], group: str | None = None) -> None:
        """Take one batch as far as history; its online rows follow, while the caller may come with the next batch.

        When it returns, everything before this batch is online; when `settle` does, the batch too. Records before the
        position are left out: what they did is done. If it raises, nothing goes on behind it.

        Args:
            records: In order of offset; bounded in rows and bytes by the caller.
            group: Name of the group; None = the group of the source's topic.

        Raises:
            Fenced: The source has another owner now; nothing more of the batch was written.
            DlqLimitReached: Too many dead letters; the batch was taken up to the record that passes the limit.
            Fatal: A store stayed down past the outage budget.
        """
        try:
            await self._advance(records, group)
        except BaseException:
            await self._leave()
            raise

    async def _advance(self, records: Sequence[Record], group: str | None) -> None:
        # For the batch as a whole: what works in between must not prolong an outage for ever.
        outage = self._backoff()
        if self._is_left_behind:
            # The last batch was left (cancelled, or given up) between history and online: finish it first.
            await self._backoff().call(self._take_again)
        reach("after_poll")
        if not self._undone(records):
            await self.settle()
        while left := self._undone(records):
            try:
                await self._take(left, group or await self._group_of_topic())
            except DefinitionChanged:
                await self._decoding.renew()
            except StoreUnavailable as exc:
                await outage.wait(exc)
                await self._backoff().call(self._take_again)
        if self._one_at_a_time:
            await self.settle()
        self.counts.batches += 1

    @property
    def _is_left_behind(self) -> bool:
        """Whether something was left between history and online, or it is not known whether it is in history."""
        behind = self._held.online_sequence < self._held.next_sequence
        return self._interrupted or (behind and self._following is None)

    async def _leave(self) -> None:
        """Give up the online rows that are being written; they will be derived from history again."""
        task, self._following = self._following, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()

    def _undone(self, records: Sequence[Record]) -> Sequence[Record]:
        """Those of the records that are at or behind the position."""
        position = self.next_offset
        if not records or records[0].offset >= position:
            return records
        return [record for record in records if record.offset >= position]

    async def _group_of_topic(self) -> str:
        topic = self._name.name
        group = (await self._catalog.get()).by_topic(topic) or (await self._catalog.reload()).by_topic(topic)
        if group is None:
            raise Fatal(f"{self._where}: no registered group has this topic")
        return group.name

    async def _take(self, records: Sequence[Record], group: str) -> None:
        decoded, registered = await self._decoding.decode(records, group)
        dead = frozenset(each.record.offset for each in decoded.rejected)
        events, rejected = decoded.events, decoded.rejected
        limit: DlqLimitReached | None = None
        try:
            self._judge(records, dead)
        except DlqLimitReached as exc:
            limit = DlqLimitReached(f"{exc}; in this batch: {reasons_text(rejected)}")
            records = records[: exc.allowed]
            before = records[-1].offset if records else -1
            events = [event for event in events if event.sequence <= before]
            rejected = [each for each in rejected if each.record.offset <= before]
        if records:
            await self._send(rejected, "decode")
            self.counts.ignored_fields += decoded.ignored_fields
            await self._write(registered, events, records, dead)
        if limit is not None:
            await self.settle()
            raise limit

    def _judge(self, records: Sequence[Record], dead: frozenset[int]) -> DlqCounts:
        """What the dead-letter limit remembers after `records`, of which those at the offsets `dead` are letters."""
        if not dead and self._held.dlq == DlqCounts():
            return self._held.dlq
        return self._dlq_limit.after(self._held.dlq, [record.offset in dead for record in records], where=self._where)

    async def _send(self, rejected: Sequence[Rejected], stage: str) -> None:
        if not rejected:
            return
        letters = [
            DeadLetter(
                topic=self._name.name,
                incarnation=self._name.incarnation,
                partition=self._name.partition,
                offset=each.record.offset,
                timestamp=each.record.timestamp,
                stage=stage,
                reason=each.error.reason,
                message=str(each.error),
                key=each.record.key,
                value=each.record.value,
                headers=tuple(each.record.headers),
            )
            for each in rejected
        ]
        await self._backoff().call(lambda: self._dead_letters.send(letters))
        self.counts.dead_letters += len(letters)
        self._refused.add(rejected)
        reach("after_dlq")

    async def _write(
        self,
        registered: RegisteredGroup,
        events: Sequence[Event],
        records: Sequence[Record],
        dead: frozenset[int],
    ) -> None:
        """Write events and move the position to just behind `records`, of which those at `dead` are letters.

        A row that the database rejects for its data is found by halving; it alone becomes a dead letter.
        """
        end = records[-1].offset + 1
        held = self._held
        counts = self._judge(records, dead)
        self._interrupted = True
        batch = HistoryBatch(registered.group, events, end, held.online_sequence, counts)
        try:
            ingest_time_us = await self._history.append(held, batch)
        except InvalidEvent as exc:
            if len(events) > 1:
                middle = len(events) // 2
                split = next(at for at, record in enumerate(records) if record.offset == events[middle].sequence)
                await self._write(registered, events[:middle], records[:split], dead)
                await self._write(registered, events[middle:], records[split:], dead)
                return
            if not events:
                raise Fatal(f"{self._where}: the history database rejects the position itself: {exc}") from exc
            dead |= {events[0].sequence}
            self._judge(records, dead)
            await self._dead_letter_of_store(events[0], records, exc)
            await self._write(registered, (), records, dead)
            return
        # The online position may have moved since `held` was taken.
        self._source = replace(self._held, next_sequence=end, last_ingest_time_us=ingest_time_us, dlq=counts)
        self._interrupted = False
        reach("after_history")
        rows = self._newest_rows(registered, events, ingest_time_us)
        await self.settle()
        self._following = asyncio.create_task(self._write_online(rows, len(events), end), name=f"online-{self._where}")
        await asyncio.sleep(0)  # so that it begins before the next batch is decoded

    async def _write_online(self, rows: Sequence[OnlineRow], events: int, end: int) -> None:
        if rows:
            await self._backoff().call(lambda: self._online.upsert_newer(rows))
        self.counts.events += events
        self._source = replace(self._held, online_sequence=end)
        reach("after_online")

    async def _dead_letter_of_store(self, event: Event, records: Sequence[Record], error: InvalidEvent) -> None:
        record = next(record for record in records if record.offset == event.sequence)
        reason = InvalidEvent(Reason.REJECTED_BY_STORE, str(error))
        await self._send([Rejected(record, reason)], "store")

    def _newest_rows(
        self, registered: RegisteredGroup, events: Sequence[Event], ingest_time_us: int
    ) -> list[OnlineRow]:
        """One online row per entity of a batch: that of its greatest version."""
        newest: dict[bytes, Event] = {}
        for event in events:
            entity = event.entity
            # Events come in order of sequence, so at equal event time the later one is the greater version.
            if entity not in newest or event.event_time_us >= newest[entity].event_time_us:
                newest[entity] = event
        group = registered.group
        prefix = key_prefix(group.id)
        values = encode_values(newest.values(), self._name.kind, self._held.id, ingest_time_us, group.fingerprint)
        return online_rows(map(prefix.__add__, newest), values)

    async def _take_again(self) -> None:
        """After an outage whose outcome may be unknown: claim again, which waits for our lost transaction to end."""
        await self.settle()
        held = self._held
        current = await self._history.find_source(self._name)
        if current is None or current.owner != held.owner:
            raise Fenced(f"{self._where}: another owner has claimed the source")
        self._source = await self._history.claim(self._name)
        await self._finish_online()
        self._interrupted = False

    async def _move_to(self, sequence: int) -> None:
        """Move the position with no events, past a range that is lost, and have that recorded."""
        name = await self._backoff().call(self._group_of_topic)
        group = (await self._backoff().call(self._catalog.reload)).group(name)
        held = self._held
        batch = HistoryBatch(group, (), sequence, sequence, held.dlq, lost=True)
        await self._backoff().call(lambda: self._history.append(held, batch))
        self._source = replace(held, next_sequence=sequence, online_sequence=sequence)

    def passed(self, end: int) -> None:
        """Say that the log holds nothing more before `end`: behind the records come transaction markers, or a gap.

        The position follows at the next `flush`, so that lag reaches zero, and so that nothing is taken for lost when
        the log forgets the markers.
        """
        self._passed = end

    async def flush(self) -> None:
        """Store how far online rows are written; what cannot be stored now is derived again by the next owner."""
        self._refused.say()
        source = self._source
        if source is None or self._following is not None or self._is_left_behind:
            return
        try:
            if source.next_sequence < self._passed:
                await self._pass_over(source)
            elif source.online_sequence != self._stored_online_sequence:
                await self._history.mark_online(source, source.online_sequence)
        except (DefinitionChanged, Fenced, StoreUnavailable) as exc:
            log.info("%s: position of online rows not stored: %s", self._where, exc)
        else:
            self._stored_online_sequence = self._held.online_sequence

    async def _pass_over(self, source: Source) -> None:
        """Move the position over what is no record."""
        name, end = await self._group_of_topic(), self._passed
        batch = HistoryBatch((await self._catalog.reload()).group(name), (), end, end, source.dlq)
        ingest_time_us = await self._history.append(source, batch)
        self._source = replace(source, next_sequence=end, online_sequence=end, last_ingest_time_us=ingest_time_us)
