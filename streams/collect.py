"""Collecting what batch groups leave behind: copies online, drafts, and, on request, old revisions.

Source:
    oomcli.md (import, sync); issue 7 (gc of revisions).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise

from oomstream.schemas.errors import InvalidRequest
from oomstream.schemas.groups import Category
from oomstream.stores.base import HistoryStore, OnlineStore
from oomstream.stores.revisions import Revision, RevisionInUse, SyncState
from oomstream.streams.purge import purge_due, purge_strays


@dataclass(slots=True)
class Collected:
    """What was removed.

    Attributes:
        copies: Copies of revisions, from the online store.
        drafts: Drafts that their import had left.
        revisions: Revisions, by group.
    """

    copies: int = 0
    drafts: int = 0
    revisions: dict[str, list[int]] = field(default_factory=dict)


async def collect(
    history: HistoryStore,
    online: OnlineStore,
    *,
    revisions_older_than_s: float | None = None,
    keep: int = 1,
) -> Collected:
    """Remove copies that are due, drafts whose lease is over, and old revisions; beside imports, syncs and readers.

    A revision goes if another took its place more than `revisions_older_than_s` ago: labels younger than that find
    every revision that they need. The newest ones, that which is online or being synced, and a group's dummy revision
    stay. Of a linked revision only what we know of it goes: the table is the user's.

    Args:
        history: Open history store, with the right to drop tables.
        online: Open online store, paired with it.
        revisions_older_than_s: Age, seconds; None = keep all revisions.
        keep: How many of each group's newest revisions stay whatever their age; at least 1.

    Raises:
        InvalidRequest: `keep` is less than 1, or the age is negative.
        StoreUnavailable: Some may be gone; do it again.
    """
    if keep < 1:
        raise InvalidRequest(f"keep is {keep}: a group's newest revision always stays")
    if revisions_older_than_s is not None and revisions_older_than_s < 0:
        raise InvalidRequest("the age of revisions cannot be negative")
    done = Collected(copies=await purge_due(history, online), drafts=await history.collect_drafts())
    groups = [each.group for each in (await history.load_catalog()).groups.values()]
    for group in groups:
        if group.category is not Category.BATCH:
            continue
        done.copies += await purge_strays(history, online, group)
        if revisions_older_than_s is None:
            continue
        async with history.cut() as cut:
            before_us = cut.now_us - int(revisions_older_than_s * 1e6)
            old = superseded(await cut.revisions(group), before_us, keep)
        used = {each.revision_id for each in await history.syncs() if each.state is not SyncState.RETIRED}
        for revision in old:
            if revision.id not in used:
                with suppress(RevisionInUse):  # a sync of it has just begun
                    await history.drop_revision(revision)
                    done.revisions.setdefault(group.name, []).append(revision.id)
    return done


def superseded(revisions: Sequence[Revision], before_us: int, keep: int) -> list[Revision]:
    """Those of a group's revisions that were there by a moment, and that another had taken the place of by then.

    Args:
        revisions: In any order.
        before_us: The moment, UTC microseconds.
        keep: How many of the newest stay whatever their age.
    """
    ordered = sorted((each for each in revisions if not each.is_dummy), key=lambda each: (each.time_us, each.id))
    replaced = [older for older, newer in pairwise(ordered) if max(newer.time_us, older.create_time_us) <= before_us]
    newest = {each.id for each in ordered[-keep:]}
    return [each for each in replaced if each.id not in newest]
