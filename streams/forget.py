"""Forgetting entities everywhere: serving stops, late events stay out, and what is stored is erased.

The steps, in this order; done again after a failure or a kill, they complete what was begun:

1. marks in history: from now on nobody writes rows of the entities with event times up to the marks' (`Marks`);
2. online, a value that says "deleted" and beats every such event takes the place of each row: reads find nothing;
3. writers who began before the marks have ended (`settle`);
4. rows of history and of revisions are erased, and rows of revisions online;
5. some time later, when no writer of before can still be on its way to the online store, the places of 2 are freed.

Linked tables are the user's own, topics end with their retention, and dead letters are hidden.

Source:
    design.md, section 5; stores/forgetting.py (marks).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from oomstream.schemas.catalog import Catalog
from oomstream.schemas.errors import InvalidRequest, StoreUnavailable
from oomstream.schemas.events import Plain
from oomstream.schemas.groups import Category, FeatureGroup
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import OnlineRow, decode_value, encode_key, forgotten_value
from oomstream.stores.base import HistoryStore, OnlineChange, OnlineStore
from oomstream.stores.revisions import Sync, SyncState

HOLD_S = 900.0
"""How long places online are held: as long as a writer may try again by default (the outage budget)."""

_SYNC_TIMEOUT_S = 60.0
_POLL_S = 0.2
_KEYS_AT_ONCE = 500


@dataclass(slots=True)
class Forgotten:
    """What was done.

    Attributes:
        entity: Name of the kind of entity.
        keys: How many entities.
        time_us: Events up to this event time stay out, UTC microseconds.
        rows: Rows of history erased, by group.
        revision_rows: Rows of revisions erased, by group.
        linked: Linked tables, by group, that may hold the entities and are the user's to change.
    """

    entity: str
    keys: int = 0
    time_us: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    revision_rows: dict[str, int] = field(default_factory=dict)
    linked: dict[str, list[str]] = field(default_factory=dict)


async def forget(
    history: HistoryStore,
    online: OnlineStore,
    catalog: Catalog,
    entity: str,
    keys: Sequence[tuple[Plain, ...]],
    *,
    hold_s: float = HOLD_S,
) -> Forgotten:
    """Forget entities in every group.

    Args:
        history: Open history store.
        online: Open online store, paired with it.
        catalog: Registered definitions.
        entity: Name of the kind of entity.
        keys: Entity keys in plain form, checked.
        hold_s: How long their places online are held.

    Raises:
        InvalidRequest: There is no such kind of entity, or no key.
        StoreUnavailable: Do it again.
    """
    groups = [each.group for each in catalog.groups.values() if each.group.entity == entity]
    if entity not in catalog.entities:
        known = ", ".join(sorted(catalog.entities)) or "none"
        raise InvalidRequest(f"no entity named {entity!r} (registered: {known})")
    if not keys:
        raise InvalidRequest("no key to forget")
    keys = list(dict.fromkeys(keys))
    streams = [group for group in groups if group.category is Category.STREAM]
    encoded = [encode_entity(key) for key in keys]
    done = Forgotten(entity, len(keys))
    newest = [row for group in streams for row in await history.newest(group, keys) if row is not None]
    latest_us = max((row.event_time_us for row in newest), default=0)
    done.time_us = await history.forget(entity, encoded, not_before_us=latest_us, hold_s=hold_s)
    for group in streams:
        await online.upsert_newer(_places(group, encoded, done.time_us))
    await history.settle()
    for group in groups:
        if group.category is Category.STREAM:
            done.rows[group.name] = sum([await history.erase(group, key, done.time_us) for key in keys])
        else:
            await _erase_revisions(history, online, group, keys, done)
    return done


def _places(group: FeatureGroup, encoded: Sequence[bytes], time_us: int) -> list[OnlineRow]:
    value = forgotten_value(time_us, group.fingerprint)
    return [OnlineRow(encode_key(group.id, key), value) for key in encoded]


async def _erase_revisions(
    history: HistoryStore, online: OnlineStore, group: FeatureGroup, keys: Sequence[tuple[Plain, ...]], done: Forgotten
) -> None:
    erased = 0
    for revision in await history.revisions(group):
        if revision.linked:
            done.linked.setdefault(group.name, []).append(revision.table)
        elif not revision.is_dummy:
            erased += await history.erase_from_revision(group, revision, keys)
    done.revision_rows[group.name] = erased
    # A copy that is being written may have read the rows before they were erased.
    deadline = time.monotonic() + _SYNC_TIMEOUT_S
    under_way = {each.id for each in await _copies(history, group) if each.state is SyncState.WRITING}
    while copies := await _copies(history, group):
        if not any(each.id in under_way and each.state is SyncState.WRITING for each in copies):
            break
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"a sync of group {group.name} is under way: forget the entities again after it")
        await asyncio.sleep(_POLL_S)
    for copy in copies:
        await online.delete([encode_key(group.id, encode_entity(key), copy.id) for key in keys])


async def _copies(history: HistoryStore, group: FeatureGroup) -> list[Sync]:
    return [each for each in await history.syncs() if each.group_id == group.id]


async def free_places(history: HistoryStore, online: OnlineStore) -> int:
    """Free the places online that were held long enough; gc does it.

    Returns:
        How many entities' places were freed.

    Raises:
        StoreUnavailable: Do it again.
    """
    held = await history.held_keys()
    if not held:
        return 0
    groups = [each.group for each in (await history.load_catalog()).groups.values()]
    streams = [group for group in groups if group.category is Category.STREAM]
    for at in range(0, len(held), _KEYS_AT_ONCE):
        some = held[at : at + _KEYS_AT_ONCE]
        places = [encode_key(group.id, each.key) for each in some for group in streams if group.entity == each.entity]
        values = await online.read(places)
        await online.replace(
            [
                OnlineChange(key, value, None)
                for key, value in zip(places, values, strict=True)
                if value is not None and _is_place(value)
            ]
        )
        await history.release_keys(some)
    return len(held)


def _is_place(value: bytes) -> bool:
    try:
        return decode_value(value).forgotten
    except ValueError:
        return False
