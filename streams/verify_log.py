"""Proof that history and dead letters are what the log says: every record, read again and decoded by the same rules.

It runs beside workers. Of each partition it compares what lies before the source's `next_sequence`, read first: by
then every event before it is in history, and the letter of every refused one is in the dead-letter topic. The log and
the rows of a source both come in order of sequence, and are merged a stretch at a time, so that memory is bounded;
of dead letters, which come in no order, only the offsets are held.

What was dead or alive, and with which values, was decided when an event was first taken. So an event that was refused
then and would be valid by today's definition is no loss while its letter is there, and a feature that the definition
did not have then may hold its default.

Source:
    design.md, section 4 (identity) and section 5 (order of the steps).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.events import RawRecord
from oomstream.schemas.types import us_from_text
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import HistoryStore, Source
from oomstream.stores.catalog_cache import CatalogCache
from oomstream.stores.settings import Settings
from oomstream.streams.broker import Broker
from oomstream.streams.dead_letters import DeadLetter
from oomstream.streams.decoding import Decoding, WriterSchemas
from oomstream.streams.dlq_topic import dlq_topic
from oomstream.streams.log_compare import Kept, PartitionComparison
from oomstream.streams.log_result import LogCheck
from oomstream.streams.offset_set import OffsetSet
from oomstream.streams.topic_log import TopicLog, in_thread
from oomstream.streams.topics import Incarnations, is_compacted


class LogVerifier:
    """Compares history with the log, group by group.

    Args:
        history: Open history store.
        broker: Where the topics are.
        settings: Those of the workers: event times that are accepted, and where a source never seen begins.
        registry: Schema Registry, if one is set.
        keep: How many differences to keep per group.
        progress: Told now and then how many records of the group are done.
    """

    def __init__(
        self,
        history: HistoryStore,
        broker: Broker,
        settings: Settings,
        *,
        registry: WriterSchemas | None = None,
        keep: int = 10,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self._history = history
        self._broker = broker
        self._settings = settings
        self._registry = registry
        self._keep = keep
        self._progress = progress
        self._timeout_s = settings.call_timeout_us / 1e6

    async def verify(self, registered: RegisteredGroup) -> LogCheck:
        """Compare one group's history with its topic's log.

        Raises:
            StoreUnavailable: The history database, the broker or the registry does not answer.
            InvalidSetting: The broker refuses this user.
        """
        group = registered.group
        result = LogCheck(group.name, group.topic)
        sources = [
            each
            for each in await self._history.sources()
            if each.name.kind is SourceKind.TOPIC and each.name.name == group.topic
        ]
        log = TopicLog(self._broker, group.topic, timeout_s=self._timeout_s)
        letters = TopicLog(self._broker, dlq_topic(group.topic), timeout_s=self._timeout_s)
        try:
            live = await self._live(log, sources, result)
            refused = await self._letters(letters, live, result)
            # Made after the positions were read: no event before them was decoded with a newer definition.
            decoding = Decoding(CatalogCache(self._history), self._settings, self._registry)
            kept = Kept(result.compacted, letters_dropped=result.letters_dropped > 0)
            for source in live:
                await self._compare(
                    log,
                    PartitionComparison(
                        self._history, decoding, group.name, source, refused[source.name.partition], kept
                    ),
                    result,
                )
        finally:
            for each in (log, letters):
                await asyncio.to_thread(each.close)
        return result

    async def _live(self, log: TopicLog, sources: Sequence[Source], result: LogCheck) -> list[Source]:
        """Sources of the topic's present incarnation, by partition."""
        incarnation = ""
        result.exists = await asyncio.to_thread(log.partitions) > 0
        if result.exists:
            incarnations = Incarnations(self._broker, timeout_s=self._timeout_s)
            incarnation = (await asyncio.to_thread(incarnations.of, [log.topic])).get(log.topic, "")
            result.compacted = await asyncio.to_thread(is_compacted, self._broker, log.topic, timeout_s=self._timeout_s)
        live = [each for each in sources if each.name.incarnation == incarnation]
        result.earlier = len(sources) - len(live)
        return sorted(live, key=lambda each: each.name.partition)

    async def _letters(self, log: TopicLog, live: Sequence[Source], result: LogCheck) -> Mapping[int, OffsetSet]:
        """Offsets before the positions that have a dead letter, by partition."""
        found = {each.name.partition: OffsetSet() for each in live}
        if not live:
            return found
        ends = {(each.name.incarnation, each.name.partition): each.next_sequence for each in live}
        for partition in range(await asyncio.to_thread(log.partitions)):
            first, end = await asyncio.to_thread(log.bounds, partition)
            result.letters_dropped += first
            async with aclosing(in_thread(log.read(partition, first, end))) as stretches:
                async for stretch in stretches:
                    result.letters_dropped += stretch.end - stretch.start if stretch.dropped else 0
                    for letter in map(_letter, stretch.records):
                        if letter is not None and letter.offset < ends.get((letter.incarnation, letter.partition), 0):
                            found[letter.partition].add(letter.offset)
        return found

    async def _compare(self, log: TopicLog, comparison: PartitionComparison, result: LogCheck) -> None:
        """Compare one partition."""
        check = comparison.check
        done = sum(each.records for each in result.partitions)
        result.partitions.append(check)
        begin = await self._begin(log, comparison)
        async with aclosing(in_thread(log.read(check.partition, begin, check.position))) as stretches:
            async for stretch in stretches:
                async for difference in comparison.differences(stretch):
                    if len(result.first) < self._keep:
                        result.first.append(difference)
                self._progress(done + check.records)

    async def _begin(self, log: TopicLog, comparison: PartitionComparison) -> int:
        """Where the source began, as far as the setting `start` tells."""
        check, start = comparison.check, self._settings.start
        if start == "earliest":
            return 0
        first, _ = await asyncio.to_thread(log.bounds, check.partition)
        if start == "latest" or self._broker.embedded:  # whose log cannot be asked for times
            begin = await comparison.first_known()
        else:
            time_ms = us_from_text(start if len(start) > 10 else f"{start}T00:00:00+00:00") // 1000
            begin = await asyncio.to_thread(log.offset_at, check.partition, time_ms)
        begin = min(begin, check.position)
        check.before_start = max(0, begin - first)
        return begin


def _letter(record: RawRecord) -> DeadLetter | None:
    return DeadLetter.from_message(record.key, record.value, record.headers)
