"""Proof that online equals its revision: every row of the copy that readers of a batch group see.

A copy and its revision stand still. What may change them is a sync (another copy is shown, this one is purged later),
`forget` (which erases in the revision first, then online) and, of a linked table, its owner. So entities for which the
two differ are looked at again and count when the same difference is seen twice; those that are being forgotten are
given the time of all looks. Where another copy was shown meanwhile, the work begins again with that one.

Source:
    design.md, section 6 (batch groups).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple, cast

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.errors import StoreUnavailable
from oomstream.schemas.events import Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.online_value import OnlineRow, seal_key
from oomstream.stores.base import Cut
from oomstream.stores.catalog_cache import CatalogCache
from oomstream.streams.copy_judging import CopyJudge
from oomstream.streams.copying import CopyRows, copy_key, rows_at_once
from oomstream.streams.entities import OnlineRows, PageSize, key_of
from oomstream.streams.judging import Finding
from oomstream.streams.looking import Looking
from oomstream.streams.verification import Difference, LiveCopy, Verification

_BEGINNINGS = 10
"""How often it begins again because another copy was shown."""


class _Moved(Exception):
    """Readers see another copy by now."""


@dataclass(frozen=True, slots=True)
class _Terms:
    """What is compared, in the terms of one moment's catalog."""

    registered: RegisteredGroup
    live: LiveCopy
    judge: CopyJudge

    @property
    def group(self) -> FeatureGroup:
        """The group's definition."""
        return self.registered.group

    @property
    def seal(self) -> bytes:
        """Online key of the copy's seal."""
        return seal_key(self.group.id, self.live.sync.id)


class _Seen(NamedTuple):
    """One look at one entity that is not as it should be: online was read before the revision."""

    value: bytes | None
    wanted: bytes | None
    finding: Finding
    waits: bool

    @property
    def evidence(self) -> int:
        """See `Seen.evidence`."""
        return hash((self.value, self.wanted, self.finding, self.waits))


class CopyVerifier(Looking):
    """Compares what is online of batch groups with their revisions."""

    @cached_property
    def _catalog(self) -> CatalogCache:
        return CatalogCache(self._history)

    async def verify(
        self, registered: RegisteredGroup, keys: Sequence[tuple[Plain, ...]] | None = None
    ) -> Verification:
        """Verify one group; one of which nothing was ever synced has nothing that could differ.

        Args:
            registered: A batch group as the catalog holds it.
            keys: Only these entities, in plain form.

        Raises:
            InvalidRequest: A linked table cannot be a revision any more; names table and column.
            StoreUnavailable: A store could not be read, or syncs follow each other too fast: do it again.
        """
        name = registered.group.name
        for _ in range(_BEGINNINGS):
            terms = await self._terms(name)
            result = Verification(name, [], copy=None if terms is None else terms.live)
            if terms is None:
                return result
            try:
                await self._compare(terms, keys, result)
            except _Moved:
                continue
            except StoreUnavailable:
                if await self._is_live(terms):
                    raise
            else:
                return result
        raise StoreUnavailable(f"syncs of group {name} follow each other too fast to look at one: verify it later")

    async def _terms(self, name: str) -> _Terms | None:
        """What readers see now; None if nothing was ever synced."""
        for _ in range(_BEGINNINGS):
            registered = (await self._catalog.reload()).groups[name]
            if not registered.sync_id:
                return None
            syncs = {each.id: each for each in await self._history.live_syncs()}
            revisions = {each.id: each for each in await self._history.revisions(registered.group)}
            sync = syncs.get(registered.sync_id)
            if sync is not None and sync.revision_id in revisions:
                live = LiveCopy(sync, revisions[sync.revision_id])
                return _Terms(registered, live, CopyJudge(registered, live.revision))
        raise StoreUnavailable(f"syncs of group {name} follow each other too fast to look at one: verify it later")

    async def _is_live(self, terms: _Terms) -> bool:
        return terms.live.sync.id in {each.id for each in await self._history.live_syncs()}

    async def _compare(self, terms: _Terms, keys: Sequence[tuple[Plain, ...]] | None, result: Verification) -> None:
        if await self._online.read([terms.seal]) == [None]:
            await self._count_all(terms, keys, result)
            return
        pages = self._doubtful_pages(terms, keys, result)
        await self._settle_all(pages, lambda doubtful: self._settle(terms, doubtful, result), result)

    async def _count_all(self, terms: _Terms, keys: Sequence[tuple[Plain, ...]] | None, result: Verification) -> None:
        """Without its seal no reader can use a copy, whatever rows there are: all entities are as good as missing."""
        if not await self._is_live(terms):
            raise _Moved
        if keys is None:
            async with self._history.cut() as cut, aclosing(self._wanted(terms, cut)) as pages:
                async for rows in pages:
                    result.entities += len(rows)
                    self._progress(result.entities)
            result.entities = min(result.entities, self._sample or result.entities)
        else:
            result.entities = len(set(keys))
        whole = Difference(terms.group.name, (), Finding.UNSEALED)
        result.count(Finding.UNSEALED, self._keep, lambda: whole, entities=max(1, result.entities))

    async def _doubtful_pages(
        self, terms: _Terms, keys: Sequence[tuple[Plain, ...]] | None, result: Verification
    ) -> AsyncIterator[list[bytes]]:
        """Online keys of the entities that differ at first sight, or are to be looked at; counts those looked at."""
        if keys is not None or self._sample is not None:
            group, sync = terms.group, terms.live.sync
            known = [copy_key(group, sync, key) for key in dict.fromkeys(keys or ())]
            chosen = known if self._sample is None or keys is not None else await self._sample_of(terms, self._sample)
            result.entities = len(chosen)
            yield chosen
            return
        async with self._history.cut() as cut:
            async for page in self._pairs(terms, cut):
                result.entities += len(page)
                yield [key for key, value, wanted in page if terms.judge.finding(value, wanted) is not None]

    async def _sample_of(self, terms: _Terms, size: int) -> list[bytes]:
        async with self._history.cut() as cut, aclosing(self._wanted(terms, cut)) as pages:
            return await self._sampled(size, ([row.key for row in rows] async for rows in pages))

    async def _pairs(self, terms: _Terms, cut: Cut) -> AsyncIterator[list[tuple[bytes, bytes | None, bytes | None]]]:
        """Every entity of the revision and of the copy, each about once: its key, what is online, what should be."""
        online_rows = OnlineRows(self._online, terms.group, terms.live.sync.id)
        async with aclosing(self._wanted(terms, cut)) as pages:
            async for wanted in pages:
                left = dict(wanted)
                async for rows in online_rows.up_to(max(left)):
                    yield [(row.key, row.value, left.pop(row.key, None)) for row in rows if row.key != terms.seal]
                yield [(key, None, value) for key, value in left.items()]
        async for rows in online_rows.up_to(None):
            yield [(row.key, row.value, None) for row in rows if row.key != terms.seal]

    async def _wanted(
        self, terms: _Terms, cut: Cut, keys: Sequence[tuple[Plain, ...]] | None = None
    ) -> AsyncGenerator[list[OnlineRow]]:
        """Rows that a sync would write, page by page and in order, none of them empty."""
        group, (sync, revision) = terms.group, terms.live
        rows = CopyRows(BodyCodec(terms.registered), revision, sync, self._catalog.marks)
        features = [feature.name for feature in group.features]
        tables = cut.scan_revision(group, revision, features, keys=keys, batch_rows=rows_at_once(group))
        async with aclosing(cast("AsyncGenerator[object]", tables)):
            async for table in tables:
                page = await asyncio.to_thread(rows.rows, table)
                if page:
                    yield page

    async def _settle(self, terms: _Terms, keys: Sequence[bytes], result: Verification) -> None:
        """Look at doubtful entities until each is right, or wrong for good."""

        async def look(page: Sequence[bytes], size: PageSize) -> Mapping[bytes, _Seen]:
            seen = await self._look(terms, page, size)
            if seen and not await self._is_live(terms):
                raise _Moved
            return seen

        report = partial(self._report, terms, result=result)
        await self._look_until_settled(keys, look, report, last_counts=True)

    async def _look(self, terms: _Terms, keys: Sequence[bytes], size: PageSize) -> dict[bytes, _Seen]:
        """One look at some entities; those that are as they should be are left out."""
        online = await self._online.read(keys)
        size.learn([OnlineRow(key, value) for key, value in zip(keys, online, strict=True) if value is not None])
        plain = [key for each in keys if (key := key_of(terms.group, each)) is not None]
        async with self._history.cut() as cut, aclosing(self._wanted(terms, cut, plain)) as pages:
            wanted = {row.key: row.value async for rows in pages for row in rows} if plain else {}
        findings = {
            key: (value, finding)
            for key, value in zip(keys, online, strict=True)
            if (finding := terms.judge.finding(value, wanted.get(key))) is not None
        }
        leaving = await self._leaving(terms, findings)
        return {
            key: _Seen(value, wanted.get(key), finding, key in leaving) for key, (value, finding) in findings.items()
        }

    async def _leaving(self, terms: _Terms, keys: Iterable[bytes]) -> set[bytes]:
        """Those of some keys whose entities are forgotten: `forget` may be about to remove their rows."""
        keys = list(keys)
        if keys:
            await self._catalog.reload()
        marks, entity = self._catalog.marks, terms.group.entity
        if marks is None or not marks.concern(entity):
            return set()
        start, known_us = len(terms.seal), terms.live.revision.known_us
        return {key for key in keys if marks.cover(entity, key[start:], known_us)}

    def _report(self, terms: _Terms, key: bytes, seen: _Seen, result: Verification) -> None:
        def difference() -> Difference:
            plain = key_of(terms.group, key) or (key,)
            online, wanted = terms.judge.side(seen.value), terms.judge.side(seen.wanted, like=seen.value)
            return Difference(terms.group.name, plain, seen.finding, online, wanted)

        result.count(seen.finding, self._keep, difference)
