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

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.events import Plain
from oomstream.schemas.online_value import decode_value
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.base import HistoryRow
from oomstream.streams.entities import PageSize, key_of, newest_pages, newest_rows, pairs, stored_key
from oomstream.streams.judging import Finding, Judge, NewestTerms, kinds_of
from oomstream.streams.looking import Looking
from oomstream.streams.verification import Difference as Difference
from oomstream.streams.verification import Verification as Verification


class _Seen(NamedTuple):
    """One look at one entity: positions were read first, then online, then history."""

    online: bytes | None
    row: HistoryRow | None
    finding: Finding
    waits: bool
    kinds: Mapping[int, SourceKind]

    @property
    def evidence(self) -> int:
        """See `Seen.evidence`."""
        row = self.row
        return hash((self.online, self.finding, self.waits, row and (row.event_time_us, row.source_id, row.sequence)))


class Verifier(Looking):
    """Compares online rows of stream groups with history."""

    async def verify(self, registered: RegisteredGroup) -> Verification:
        """Verify one group.

        Raises:
            StoreUnavailable: A store could not be read.
        """
        terms = NewestTerms(self._history, registered)
        result = Verification(registered.group.name, await self._history.sources())
        pages = self._doubtful_pages(terms.judge, result)
        await self._settle_all(pages, lambda keys: self._settle(terms, keys, result), result)
        return result

    async def _doubtful_pages(self, judge: Judge, result: Verification) -> AsyncIterator[list[bytes]]:
        """Online keys of the entities that differ at first sight; counts those looked at."""
        if self._sample is not None:
            pages = newest_pages(self._history, judge.group)
            stored = ([stored_key(judge.group, row.key) for row in rows] async for rows in pages)
            keys = await self._sampled(self._sample, stored)
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
        report = partial(self._report, terms.judge, result=result)
        left = await self._look_until_settled(keys, partial(self._look, terms), report, last_counts=False)
        for key in left:
            await self._judge_at_positions(terms.judge, key, result)

    async def _look(self, terms: NewestTerms, keys: Sequence[bytes], size: PageSize) -> dict[bytes, _Seen]:
        """One look at some entities; those that are as they should be are left out."""
        seen = await self._look_once(terms.judge, keys, size)
        while seen and await terms.changed():
            seen = await self._look_once(terms.judge, keys, size)
        return seen

    async def _look_once(self, judge: Judge, keys: Sequence[bytes], size: PageSize) -> dict[bytes, _Seen]:
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
                waits = behind and finding in {Finding.MISSING, Finding.OLDER}
                found[key] = _Seen(value, row, finding, waits, kinds)
        return found

    def _report(self, judge: Judge, key: bytes, seen: _Seen, result: Verification) -> None:
        def difference() -> Difference:
            plain = key_of(judge.group, key) or (key,)
            online, history = judge.online_side(seen.online), judge.history_side(seen.row, seen.kinds)
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
            self._report(judge, stored, _Seen(value, row, finding, False, kinds), result)

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
