"""Sync: a revision of a batch group becomes what readers see, all of it at one moment.

The steps, in this order:

1. copies that are due are purged (`oomstream.streams.purge`);
2. a fresh sync id, under which nobody reads;
3. the revision as one cut has it, row by row online under that id; then the copy's seal;
4. the flip: one update of the metadata, from which on readers use the new copy. The old one stays until every reader
   has had time to learn of it.

Killed before step 4, it leaves a copy that nobody reads, which is due when its lease is over. To go back, an older
revision is synced. Nothing of another group is touched, and two syncs of one group take turns at step 4.

Source:
    oomcli.md (sync).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.errors import EmptyGroup, Fenced, InvalidRequest, OomstreamError, UnknownRevision
from oomstream.schemas.groups import Category, FeatureGroup
from oomstream.schemas.online_value import OnlineRow
from oomstream.stores.base import HistoryStore, OnlineStore
from oomstream.stores.catalog_cache import CatalogCache
from oomstream.stores.crash_points import reach
from oomstream.stores.revisions import Revision, Sync
from oomstream.stores.settings import METADATA_MAX_AGE_US, READERS_NEED
from oomstream.streams.backoff import Backoff
from oomstream.streams.copying import CopyRows, rows_at_once
from oomstream.streams.purge import purge_copy, purge_due
from oomstream.streams.repair import Repairer

LEASE_S = 120.0
"""How long a copy that is being written outlives the last word of its writer."""

_RENEW_S = 20.0
_FLIP_BUDGET_S = 60.0
_BATCH_BYTES = 4 << 20
_BATCH_ROWS = 2_000

Progress = Callable[[int], None]
"""Is told how many entities are done."""


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did.

    Attributes:
        group: Name of the group.
        entities: Entities that were brought online; of a stream group, those that were looked at.
        revision: What is online now; None of a stream group.
        written: Online rows that were written.
        purged: Older copies that were removed first.
        purge_delay_s: How long the copy before this one stays for readers, seconds.
        delay_raised: Whether that is longer than was asked, because readers need it.
    """

    group: str
    entities: int
    revision: Revision | None = None
    written: int = 0
    purged: int = 0
    purge_delay_s: float = 0.0
    delay_raised: bool = False


async def sync_group(
    history: HistoryStore,
    online: OnlineStore,
    registered: RegisteredGroup,
    *,
    revision_id: int | None = None,
    purge_delay_s: float | None = None,
    max_age_s: float = METADATA_MAX_AGE_US / 1e6,
    instead_of: int | None = None,
    progress: Progress = lambda entities: None,
) -> SyncReport:
    """Bring a batch group's revision online; derive a stream group's online rows from history again.

    Args:
        history: Open history store.
        online: Open online store, paired with it.
        registered: The group as the catalog holds it.
        revision_id: Which revision; None = the newest by its time, of one time the later import.
        purge_delay_s: How long the copy that readers see now stays at least; None = a little longer than they need to
            learn of the new one. Less than they need is raised to that.
        max_age_s: How old readers' metadata may be (setting `metadata_max_age`).
        instead_of: Show the copy only in place of that of this sync id; None = of whichever readers see.
        progress: Told now and then how many entities are done.

    Raises:
        EmptyGroup: The group never had data.
        UnknownRevision: The group has no such revision.
        InvalidRequest: A revision of a stream group is asked for, the delay is negative, or a linked table holds what
            its group cannot.
        Fenced: This process stood still for so long that its copy was given up, or readers see another copy than
            `instead_of`: do it again.
        StoreUnavailable: Readers still see what they saw; do it again.
    """
    if purge_delay_s is not None and purge_delay_s < 0:
        raise InvalidRequest(f"the purge delay is {purge_delay_s:g} s: it cannot be negative")
    if registered.group.category is Category.STREAM:
        return await _sync_stream(history, online, registered, revision_id, progress)
    revision = await _chosen(history, registered.group, revision_id)
    purged = await purge_due(history, online)
    needed_s = max_age_s * READERS_NEED
    delay_s = needed_s if purge_delay_s is None else max(purge_delay_s, needed_s)
    copied = await _Copying(history, online, registered, revision, progress).run(delay_s, instead_of)
    return SyncReport(
        group=registered.group.name,
        entities=copied.entities,
        revision=copied.revision,
        written=copied.entities,
        purged=purged,
        purge_delay_s=delay_s,
        delay_raised=purge_delay_s is not None and purge_delay_s < needed_s,
    )


async def _sync_stream(
    history: HistoryStore,
    online: OnlineStore,
    registered: RegisteredGroup,
    revision_id: int | None,
    progress: Progress,
) -> SyncReport:
    group = registered.group
    if revision_id is not None:
        raise InvalidRequest(f"group {group.name} is a stream group: it has no revisions to choose from")
    if not await history.scan_newest(group, limit=1):
        raise _empty(group)
    done = await Repairer(history, online, progress=progress).repair(registered)
    return SyncReport(group.name, done.entities, written=done.written)


async def _chosen(history: HistoryStore, group: FeatureGroup, revision_id: int | None) -> Revision:
    """The revision asked for.

    Raises:
        EmptyGroup: There is none but the dummy revision.
        UnknownRevision: The group has none of that id.
    """
    found = {each.id: each for each in await history.revisions(group) if not each.is_dummy}
    if not found and revision_id is None:
        raise _empty(group)
    if revision_id is None:
        return max(found.values(), key=lambda each: (each.time_us, each.id))
    if revision_id not in found:
        known = ", ".join(map(str, sorted(found))) or "none"
        raise UnknownRevision(f"group {group.name} doesn't have revision {revision_id} (it has: {known})")
    return found[revision_id]


def _empty(group: FeatureGroup) -> EmptyGroup:
    # oomstore's words, which scripts look for.
    return EmptyGroup(f"group {group.name} doesn't have any revision")


@dataclass(frozen=True, slots=True)
class _Copied:
    revision: Revision
    entities: int


class _Copying:
    """One copy on its way online.

    Args:
        history: Open history store.
        online: Open online store.
        registered: The group.
        revision: What to copy.
        progress: Told how many entities are done.
    """

    def __init__(
        self,
        history: HistoryStore,
        online: OnlineStore,
        registered: RegisteredGroup,
        revision: Revision,
        progress: Progress,
    ) -> None:
        self._history = history
        self._online = online
        self._registered = registered
        self._group = registered.group
        self._revision = revision
        self._progress = progress
        self._renew_at = 0.0

    async def run(self, delay_s: float, instead_of: int | None) -> _Copied:
        """Write the copy and flip readers to it; the one before stays for `delay_s` seconds."""
        sync = await self._history.begin_sync(self._group, self._revision, lease_s=LEASE_S)
        try:
            entities = await self._write(sync)
            reach("before_flip")
            flip = Backoff(_FLIP_BUDGET_S, where=f"sync of group {self._group.name}")
            revision = await flip.call(
                lambda: self._history.flip(self._group, sync, purge_delay_s=delay_s, instead_of=instead_of)
            )
        except Fenced:
            # Somebody purged the copy while rows of it were still being written. (Or it was shown, its answer was lost,
            # and another has taken its place since: then readers may need it still.)
            if all(each.id != sync.id or not each.until_us for each in await self._history.syncs()):
                await purge_copy(self._online, self._group.id, sync.id)
            with suppress(OomstreamError):  # fenced as another copy took the place: what was written can go at once
                await self._history.renew_sync(sync, lease_s=0)
            raise
        except BaseException:
            with suppress(OomstreamError):  # then its lease does it; and if the flip was done after all, it stays live
                await self._history.renew_sync(sync, lease_s=0)
            raise
        reach("after_flip")
        return _Copied(revision, entities)

    async def _write(self, sync: Sync) -> int:
        """All rows of the revision, then the seal; returns how many entities there are."""
        catalog = CatalogCache(self._history)
        await catalog.reload()
        rows = CopyRows(BodyCodec(self._registered), self._revision, sync, catalog.marks)
        features = [feature.name for feature in self._group.features]
        entities = 0
        self._renew_at = time.monotonic() + _RENEW_S
        # Not before the sync has begun: from then on `forget` waits for it; what was erased by then is not in the cut.
        async with self._history.cut() as cut:
            scan = cut.scan_revision(self._group, self._revision, features, batch_rows=rows_at_once(self._group))
            try:
                async for table in scan:
                    for batch in _batches(await asyncio.to_thread(rows.rows, table)):
                        await self._online.upsert_newer(batch)
                        reach("in_sync")
                        entities += len(batch)
                        self._progress(entities)
                        await self._renew(sync)
            finally:
                if isinstance(scan, AsyncGenerator):
                    await scan.aclose()
        await self._online.upsert_newer([rows.seal()])
        return entities

    async def _renew(self, sync: Sync) -> None:
        if time.monotonic() >= self._renew_at:
            await self._history.renew_sync(sync, lease_s=LEASE_S)
            self._renew_at = time.monotonic() + _RENEW_S


def _batches(rows: list[OnlineRow]) -> list[list[OnlineRow]]:
    """Rows in parts of bounded number and size."""
    batches: list[list[OnlineRow]] = []
    size = 0
    for row in rows:
        length = len(row.key) + len(row.value)
        if not batches or len(batches[-1]) == _BATCH_ROWS or size + length > _BATCH_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(row)
        size += length
    return batches
