"""Online rows derived from history again, beside running workers.

A row is changed only while it has the very bytes from which that was decided, and online was read before history: what
a worker writes in the meantime stays, and a row counts as unknown to history only if history, read after it, lacks its
version, which workers write first. So no row that history has moves backwards, and none is ever missing in between.
In place of a row of unknown version comes the newest that history has; then the entity is looked at once more.

Source:
    design.md, section 5; what `verify` finds, `repair` mends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.events import Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.online_value import OnlineRow, decode_value
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import HistoryRow, HistoryStore, OnlineChange, OnlineStore
from oomstream.streams.entities import OnlineRows, PageSize, Pair, key_of, newest_rows, pairs, stored_key
from oomstream.streams.judging import Finding, Judge, NewestTerms, kinds_of
from oomstream.streams.verification import LiveCopy

TRIES = 10
"""How often entities are looked at that workers go on writing while they are repaired."""

_KEYS_PER_TABLE = 10_000
_SURE = frozenset({Finding.MISSING, Finding.OLDER, Finding.DIFFERENT})
_SURPASSING = frozenset({Finding.UNKNOWN, Finding.UNREADABLE})


@dataclass(frozen=True, slots=True)
class Scope:
    """Which entities of a group to repair; with nothing said, all of them.

    Attributes:
        keys: These, in plain form.
        since_us: Those with a row, in history or online, whose event time is not before this; UTC microseconds.
        until_us: Those with a row whose event time is before this; the same row, where both times are given.
    """

    keys: Sequence[tuple[Plain, ...]] | None = None
    since_us: int | None = None
    until_us: int | None = None

    @property
    def in_time(self) -> bool:
        """Whether a time span is given."""
        return self.since_us is not None or self.until_us is not None

    def covers(self, event_time_us: int) -> bool:
        """Whether an event time lies in the span."""
        return (self.since_us is None or event_time_us >= self.since_us) and (
            self.until_us is None or event_time_us < self.until_us
        )


WHOLE = Scope()


class Mended(NamedTuple):
    """One entity that was, or would be, mended.

    Attributes:
        key: Its key in plain form; the stored bytes alone where they are no key of the group.
        finding: What was wrong.
        removed: Whether nothing is left online, as history has nothing of it.
    """

    key: tuple[Plain, ...]
    finding: Finding
    removed: bool


@dataclass(slots=True)
class Repaired:
    """What `repair` did to one group, or would do.

    Attributes:
        group: The group.
        entities: Entities looked at.
        found: Online rows that were mended, by what was wrong with them.
        unreadable: Entities that could not be mended, as their history rows hold what the group's types do not.
        first: The first few entities that were found wrong.
        copy: Of a batch group that was synced, the copy that was looked at (see `oomstream.streams.repair_copy`).
        synced: How the revision of that copy was brought online again, if it was.
    """

    group: str
    entities: int = 0
    found: Counter[Finding] = field(default_factory=Counter)
    unreadable: int = 0
    first: list[Mended] = field(default_factory=list)
    copy: LiveCopy | None = None
    synced: Synced | None = None

    @property
    def written(self) -> int:
        """Online rows that were missing, older, of equal version with other bytes, or unreadable."""
        return self.found.total() - self.removed

    @property
    def removed(self) -> int:
        """Online rows whose version history does not have; the newest that it has took their place, if there is one."""
        return self.found[Finding.UNKNOWN]


class Synced(NamedTuple):
    """What a repair of a batch group brought online.

    Attributes:
        revision_id: A copy of which revision, whole.
        entities: Entities in it.
        purge_delay_s: How long the copy of before stays for readers, seconds.
    """

    revision_id: int
    entities: int
    purge_delay_s: float


class _Wrong(NamedTuple):
    """One entity to mend: what is stored, and what is to be."""

    stored_key: bytes
    finding: Finding
    found: bytes | None
    value: bytes | None


class Repairer:
    """Mends stream groups, in bounded memory.

    Args:
        history: Open history store.
        online: Open online store.
        dry_run: Only say what would be done.
        keep: How many of the entities found wrong to keep per group.
        progress: Told now and then how many entities of the group are done.
    """

    def __init__(
        self,
        history: HistoryStore,
        online: OnlineStore,
        *,
        dry_run: bool = False,
        keep: int = 10,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self._history = history
        self._online = online
        self._dry_run = dry_run
        self._keep = keep
        self._progress = progress

    async def repair(self, registered: RegisteredGroup, scope: Scope = WHOLE) -> Repaired:
        """Mend one group, or some entities of it.

        Raises:
            StoreUnavailable: Some rows may be mended; do it again.
        """
        terms, result, size = NewestTerms(self._history, registered), Repaired(registered.group.name), PageSize()
        async for keys in self._doubtful_pages(terms, scope, result):
            for page in size.pages(keys):
                await self._mend(terms, page, result, size)
            self._progress(result.entities)
        return result

    async def _doubtful_pages(
        self, terms: NewestTerms, scope: Scope, result: Repaired
    ) -> AsyncIterator[Sequence[bytes]]:
        """Online keys of entities in the scope that need a look; counts all, and mends some already."""
        judge, group = terms.judge, terms.judge.group
        if scope.keys is not None:
            keys = list(dict.fromkeys(stored_key(group, key) for key in scope.keys))
            result.entities += len(keys)
            yield keys
        elif scope.in_time:
            async for keys in self._with_rows_in(group, scope):
                result.entities += len(keys)
                yield keys
            async for keys in self._strays_in(judge, scope):
                result.entities += len(keys)
                yield keys
        else:
            kinds: dict[int, SourceKind] = {}
            async for page in pairs(self._history, self._online, group):
                result.entities += len(page)
                if any(pair.row is not None and pair.row.source_id not in kinds for pair in page):
                    kinds = kinds_of(await self._history.sources())
                yield await self._mend_at_sight(terms, judge, page, kinds, result)

    async def _mend_at_sight(
        self,
        terms: NewestTerms,
        judge: Judge,
        page: Sequence[Pair],
        kinds: Mapping[int, SourceKind],
        result: Repaired,
    ) -> list[bytes]:
        """Mend what history, read before online, is enough to judge; gives back the keys that need another look.

        To write a row that history has in place of none, of an older one or of other bytes of the same version is
        right, however old the look at history is. Whether history lacks a version, only a later look can tell.
        """
        wrong, unsure = [], []
        for key, value, row in page:
            finding = self._wrong(judge, value, row, kinds)
            wanted = None if row is None or finding is None else judge.wanted(row, kinds)
            if wanted is not None and finding in _SURE:
                wrong.append(_Wrong(key, finding, value, wanted.value))
            elif finding is not None:
                unsure.append(key)
        if wrong and (await terms.changed() or terms.judge is not judge):
            return unsure + [each.stored_key for each in wrong]  # the rows were read in the terms of the past
        return unsure + await self._write(judge, wrong, result)

    async def _with_rows_in(self, group: FeatureGroup, scope: Scope) -> AsyncIterator[list[bytes]]:
        """Entities with a history row in a span of event time."""
        last: tuple[Plain, ...] | None = None
        until_us = None if scope.until_us is None else scope.until_us - 1
        async with self._history.cut() as cut:
            async for table in cut.scan(
                group,
                [],
                min_event_time_us=scope.since_us,
                max_event_time_us=until_us,
                batch_rows=_KEYS_PER_TABLE,
            ):
                keys = []
                for key in zip(*(table.column(name).to_pylist() for name in group.key_names), strict=True):
                    if key != last:  # rows of one entity follow each other
                        keys.append(stored_key(group, key))
                        last = key
                yield keys

    async def _strays_in(self, judge: Judge, scope: Scope) -> AsyncIterator[list[bytes]]:
        """Entities with an online row in a span of event time that history, read after it, does not have."""
        async for page in OnlineRows(self._online, judge.group).up_to(None):
            inside = [row for row in page if _is_inside(row, scope)]
            rows = await newest_rows(self._history, judge.group, [row.key for row in inside])
            kinds = kinds_of(await self._history.sources())
            found = [(row.key, judge.finding(row.value, kept, kinds)) for row, kept in zip(inside, rows, strict=True)]
            yield [key for key, finding in found if finding in {Finding.UNKNOWN, Finding.UNREADABLE}]

    async def _mend(self, terms: NewestTerms, keys: Sequence[bytes], result: Repaired, size: PageSize) -> None:
        """Look at entities, online before history, and put right what is wrong, until it is."""
        for _ in range(TRIES):
            judge = terms.judge
            online = await self._online.read(keys)
            rows = await newest_rows(self._history, judge.group, keys)
            kinds = kinds_of(await self._history.sources())
            size.learn([row for row in rows if row is not None])
            findings = [self._wrong(judge, value, row, kinds) for value, row in zip(online, rows, strict=True)]
            if any(findings) and await terms.changed():
                continue
            wrong = []
            for key, value, row, finding in zip(keys, online, rows, findings, strict=True):
                if finding is Finding.UNREADABLE_HISTORY:
                    result.unreadable += 1
                elif finding is not None:
                    wanted = None if row is None else judge.wanted(row, kinds)
                    wrong.append(_Wrong(key, finding, value, None if wanted is None else wanted.value))
            keys = await self._write(judge, wrong, result)
            if not keys:
                return

    def _wrong(
        self, judge: Judge, value: bytes | None, row: HistoryRow | None, kinds: Mapping[int, SourceKind]
    ) -> Finding | None:
        """As `Judge.finding`, but of an equal version the very bytes count."""
        wanted = None if row is None else judge.wanted(row, kinds)
        if wanted is not None and wanted.value == value:
            return None
        if row is not None and wanted is None:
            return Finding.UNREADABLE_HISTORY
        return judge.finding(value, row, kinds) or (None if value is None else Finding.DIFFERENT)

    async def _write(self, judge: Judge, wrong: Sequence[_Wrong], result: Repaired) -> list[bytes]:
        """Write what is to be; gives back the keys of those that must be looked at again."""
        again: list[bytes] = []
        for finding in Finding:
            some = [each for each in wrong if each.finding is finding]
            if not some:
                continue
            done = len(some) if self._dry_run else await self._change(some)
            result.found[finding] += done
            # Somebody else has written meanwhile; or, while a row stood there that no version surpasses, a worker's
            # newer row may have been turned away.
            if done < len(some) or finding in _SURPASSING:
                again += [each.stored_key for each in some]
            for each in some[: self._keep - len(result.first)]:
                plain = key_of(judge.group, each.stored_key) or (each.stored_key,)
                if all(plain != known.key for known in result.first):  # not tried before
                    result.first.append(Mended(plain, finding, each.value is None))
        return [] if self._dry_run else again

    async def _change(self, some: Sequence[_Wrong]) -> int:
        missing = [OnlineRow(each.stored_key, each.value) for each in some if each.found is None and each.value]
        changes = [OnlineChange(each.stored_key, each.found, each.value) for each in some if each.found is not None]
        done = await self._online.upsert_newer(missing) if missing else 0
        return done + (await self._online.replace(changes) if changes else 0)


def _is_inside(row: OnlineRow, scope: Scope) -> bool:
    try:
        return scope.covers(decode_value(row.value).version.event_time_us)
    except ValueError:
        return True  # nobody can say: looked at all the same


async def repair(
    history: HistoryStore, online: OnlineStore, registered: RegisteredGroup, scope: Scope = WHOLE
) -> Repaired:
    """Derive a group's online rows from history again; see `Repairer`.

    Raises:
        StoreUnavailable: Some rows may be repaired; do it again.
    """
    return await Repairer(history, online).repair(registered, scope)
