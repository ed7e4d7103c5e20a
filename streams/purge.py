"""Removing copies of revisions that nobody reads any more from the online store.

A copy's seal goes first: a reader that still uses the copy finds no seal and asks for newer metadata, instead of taking
rows that are gone for entities that never were.

Source:
    oomcli.md (sync: --purge-delay).
"""

from __future__ import annotations

from oomstream.schemas.groups import Category, FeatureGroup
from oomstream.schemas.online_value import group_prefix, key_prefix, seal_key, sync_id_of
from oomstream.stores.base import HistoryStore, OnlineStore
from oomstream.stores.crash_points import reach
from oomstream.streams.entities import PageSize

_PAST_ENTITIES = b"\xff"
"""Greater than what any encoded entity key begins with."""


async def purge_due(history: HistoryStore, online: OnlineStore) -> int:
    """Remove the copies that are due: retired long enough ago, or given up while they were written. Never a live one.

    Any number of processes may do it at once, and what a killed one left is due again.

    Returns:
        How many copies were removed.

    Raises:
        StoreUnavailable: Do it again.
    """
    purged = 0
    for copy in await history.due_purges():
        if await history.claim_purge(copy):
            await purge_copy(online, copy.group_id, copy.id)
            await history.forget_sync(copy)
            purged += 1
    return purged


async def purge_strays(history: HistoryStore, online: OnlineStore, group: FeatureGroup) -> int:
    """Remove rows of copies that the metadata does not know: a writer may thaw after its copy was purged.

    Returns:
        How many copies had rows left.

    Raises:
        StoreUnavailable: Do it again.
    """
    if group.category is not Category.BATCH:
        return 0
    found: list[int] = []
    after: bytes | None = None
    while rows := await online.scan(group_prefix(group.id), after=after, limit=1):
        found.append(sync_id_of(rows[0].key))
        after = key_prefix(group.id, found[-1]) + _PAST_ENTITIES
    # Read after the rows: a copy has its line in the metadata before its first row is online.
    known = {each.id for each in await history.syncs()}
    strays = [each for each in found if each not in known]
    for sync_id in strays:
        await purge_copy(online, group.id, sync_id)
    return len(strays)


async def purge_copy(online: OnlineStore, group_id: int, sync_id: int) -> None:
    """Remove all rows of a copy, its seal first, a few at a time.

    Raises:
        StoreUnavailable: Some rows may be gone; do it again.
    """
    await online.delete([seal_key(group_id, sync_id)])
    prefix, size = key_prefix(group_id, sync_id), PageSize()
    after: bytes | None = None
    while rows := await online.scan(prefix, after=after, limit=size.rows):
        size.learn(rows)
        await online.delete([row.key for row in rows])
        reach("in_purge")
        after = rows[-1].key
