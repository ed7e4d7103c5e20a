"""Proof that online equals history in stream groups: every entity's online row is its row of greatest version.

It runs beside workers. They write history before online, and store a source's `online_sequence` after online. So with
nothing wrong an online row's version is always one that history has, with the same values, and a history row whose
sequence lies before its source's `online_sequence` has reached online.

What is proven is said at a vector of positions, the `online_sequence` of every source when a group was begun: of the
events before them, each entity's online row is that of the greatest version, or is newer and in history too. An entity
for which the two differ at first is looked at again until they agree, or until the same difference is seen twice. One
that never stops moving is judged at its source's position of the last look, and counted as moving.

Source:
    design.md, section 5 (order of the steps) and section 7 (online equals history).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.events import Plain
from oomstream.schemas.online_value import decode_value
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.base import HistoryRow, HistoryStore, OnlineStore
from oomstream.streams.entities import PageSize, key_of, newest_pages, newest_rows, pairs, stored_key
from oomstream.streams.judging import Finding, Judge, NewestTerms, kinds_of
from oomstream.streams.sampling import Sample
from oomstream.streams.verification import LOOK_AGAIN_S, LOOKS, MOST_DOUBTFUL, Progress
from oomstream.streams.verification import Difference as Difference
from oomstream.streams.verification import Verification as Verification


class _Seen(NamedTuple):
    """One look at one entity: positions were read first, then online, then history."""

    online: bytes | None
    row: HistoryRow | None
    finding: Finding
    pending: bool

    @property
    def evidence(self) -> int:
        """What must be the same in two looks for a difference to count; small, as there may be many."""
        row = self.row
        return hash((self.online, self.finding, self.pending, row and (row.event_time_us, row.source_id, row.sequence)))


class Verifier:
    """Compares online rows of stream groups with history, group by group, in bounded memory.

    Args:
        history: Open history store.
        online: Open online store.
        keep: How many differences to keep per group.
        sample: How many entities of each group's history to look at; None = all of them, and all rows that are online.
        seed: Chooses the sample.
        progress: Told now and then how many entities of the group are done.
        sleep: Waits that many seconds.
    """

    def __init__(
        self,
        history: HistoryStore,
        online: OnlineStore,
        *,
        keep: int = 10,
        sample: int | None = None,
        seed: int = 0,
        progress: Progress = lambda done: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._history = history
        self._online = online
        self._keep = keep
        self._sample = sample
        self._seed = seed
        self._progress = progress
        self._sleep = sleep

    async def verify(self, registered: RegisteredGroup) -> Verification:
        """Verify one group.

        Raises:
            StoreUnavailable: A store could not be read.
        """
        terms = NewestTerms(self._history, registered)
        result = Verification(registered.group.name, await self._history.sources())
        doubtful: list[bytes] = []
        async for page in self._doubtful_pages(terms.judge, result):
            doubtful += page
            if len(doubtful) >= MOST_DOUBTFUL:
                await self._settle(terms, doubtful, result)
                doubtful = []
            self._progress(result.entities)
        await self._settle(terms, doubtful, result)
        self._progress(result.entities)
        return result

    async def _doubtful_pages(self, judge: Judge, result: Verification) -> AsyncIterator[list[bytes]]:
        """Online keys of the entities that differ at first sight; counts those looked at."""
        if self._sample is not None:
            chosen = Sample(self._sample, self._seed)
            walked = 0
            async for rows in newest_pages(self._history, judge.group):
                chosen.offer(stored_key(judge.group, row.key) for row in rows)
                walked += len(rows)
                self._progress(walked)
            keys = chosen.keys()
            result.entities = len(keys)
            yield keys
            return
        kinds = kinds_of(list(result.sources))
        async for page in pairs(self._history, self._online, judge.group):
            result.entities += len(page)
            if any(pair.row is not None and pair.row.source_id not in kinds for pair in page):
                kinds = kinds_of(await self._history.sources())
            # History was read before online, so equality says that nothing before the positions is missing.
            yield [pair.stored_key for pair in page if judge.finding(pair.online, pair.row, kinds) is not None]

    async def _settle(self, terms: NewestTerms, keys: Sequence[bytes], result: Verification) -> None:
        """Look at doubtful entities until each is right, or wrong for good."""
        left: dict[bytes, int | None] = dict.fromkeys(keys)
        size = PageSize()
        for number in range(LOOKS):
            if not left:
                return
            if number:
                await self._sleep(LOOK_AGAIN_S)
            still: dict[bytes, int | None] = {}
            for page in size.pages(list(left)):
                seen, kinds = await self._look(terms, page, size)
                for key, each in seen.items():
                    if not each.pending and each.evidence == left[key]:
                        self._report(terms.judge, key, each, kinds, result)
                    else:
                        still[key] = each.evidence
            left = still
        for key in left:
            await self._judge_at_positions(terms.judge, key, result)

    async def _look(
        self, terms: NewestTerms, keys: Sequence[bytes], size: PageSize
    ) -> tuple[dict[bytes, _Seen], Mapping[int, SourceKind]]:
        """One look at some entities; those that are as they should be are left out."""
        seen, kinds = await self._look_once(terms.judge, keys, size)
        while seen and await terms.changed():
            seen, kinds = await self._look_once(terms.judge, keys, size)
        return seen, kinds

    async def _look_once(
        self, judge: Judge, keys: Sequence[bytes], size: PageSize
    ) -> tuple[dict[bytes, _Seen], Mapping[int, SourceKind]]:
        positions = {each.id: each.online_sequence for each in await self._history.sources()}
        online = await self._online.read(keys)
        rows = await newest_rows(self._history, judge.group, keys)
        kinds = kinds_of(await self._history.sources())  # after the rows: a source of theirs may be new
        size.learn([row for row in rows if row is not None])
        found = {}
        for key, value, row in zip(keys, online, rows, strict=True):
            finding = judge.finding(value, row, kinds)
            if finding is not None:
                behind = row is not None and row.sequence >= positions.get(row.source_id, 0)
                pending = behind and finding in {Finding.MISSING, Finding.OLDER}
                found[key] = _Seen(value, row, finding, pending)
        return found, kinds

    def _report(
        self, judge: Judge, key: bytes, seen: _Seen, kinds: Mapping[int, SourceKind], result: Verification
    ) -> None:
        def difference() -> Difference:
            plain = key_of(judge.group, key) or (key,)
            online, history = judge.online_side(seen.online), judge.history_side(seen.row, kinds)
            return Difference(judge.group.name, plain, seen.finding, online, history)

        result.count(seen.finding, self._keep, difference)

    async def _judge_at_positions(self, judge: Judge, stored: bytes, result: Verification) -> None:
        """Judge an entity that never stands still by what must be online at the positions of this moment.

        History goes on while it is read. So not the newest row is asked for, but whether the online row is one that
        history has, and whether a newer one lies before its source's position.
        """
        positions = {each.id: each.online_sequence for each in await self._history.sources()}
        [value] = await self._online.read([stored])
        [row] = await newest_rows(self._history, judge.group, [stored])
        kinds = kinds_of(await self._history.sources())
        finding = judge.finding(value, row, kinds)
        if finding in {Finding.MISSING, Finding.OLDER} and row is not None:
            version = None if value is None else decode_value(value).version
            if await self._has_reached(judge, row.key, version, positions):
                pass  # a newer row had to be online by then
            elif value is None or version is None:
                finding = None
            else:
                row = await self._row_of(judge, row.key, version) or row
                finding = judge.finding(value, row, kinds)
                finding = Finding.UNKNOWN if finding is Finding.OLDER else finding
            result.moving += finding is None
        if finding is not None:
            self._report(judge, stored, _Seen(value, row, finding, pending=False), kinds, result)

    async def _has_reached(
        self, judge: Judge, key: tuple[Plain, ...], version: Version | None, positions: Mapping[int, int]
    ) -> bool:
        """Whether a row newer than a version lies before its source's position."""
        since = None if version is None else version.event_time_us
        async with self._history.cut() as cut:
            async for table in cut.scan(judge.group, [], keys=[key], min_event_time_us=since):
                columns = [table.column(name).to_pylist() for name in ("_event_time", "_source", "_sequence")]
                for event_time_us, source_id, sequence in zip(*columns, strict=True):
                    newer = version is None or (
                        Version(event_time_us, cut.kinds[source_id], source_id, sequence) > version
                    )
                    if newer and sequence < positions.get(source_id, 0):
                        return True
        return False

    async def _row_of(self, judge: Judge, key: tuple[Plain, ...], version: Version) -> HistoryRow | None:
        """An entity's row of a version."""
        rows = await self._history.rows_of_source(
            judge.group, version.source_id, version.sequence, version.sequence + 1
        )
        return next((row for row in rows if row.key == key and row.event_time_us == version.event_time_us), None)
