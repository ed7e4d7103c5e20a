"""Retention: history and online rows that are older than anybody asks for, removed beside running workers.

What goes: rows of history before the horizon, except each entity's newest; delete marks before the horizon, online and
in history; and online rows that had expired (the group's ttl) by the horizon. What a worker writes meanwhile stays. An
event that comes later than a removed delete mark, and is older than it, brings its entity back: the horizon is how
late events may be.

Source:
    design.md, section 6 (history); stores/retention.py (horizon).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import decode_value, encode_key
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.base import HistoryRow, HistoryStore, OnlineChange, OnlineStore

_PAGE = 500


@dataclass(slots=True)
class Retired:
    """What was removed of one group.

    Attributes:
        group: Its name.
        horizon_us: Rows before it are gone, except each entity's newest; UTC microseconds.
        entities: Entities looked at.
        rows: Rows of history removed.
        online: Online rows removed.
    """

    group: str
    horizon_us: int = 0
    entities: int = 0
    rows: int = 0
    online: int = 0


def is_over(group: FeatureGroup, row: HistoryRow, horizon_us: int) -> bool:
    """Whether an entity's newest row said nothing any more at the horizon, so that it need not be online."""
    if row.deleted:
        return row.event_time_us < horizon_us
    return group.ttl_us is not None and row.event_time_us + group.ttl_us < horizon_us


async def retire(
    history: HistoryStore,
    online: OnlineStore,
    registered: RegisteredGroup,
    age_us: int,
    *,
    progress: Callable[[int], None] = lambda entities: None,
) -> Retired:
    """Remove what is older than an age of one stream group.

    Args:
        history: Open history store.
        online: Open online store, paired with it.
        registered: The group as the catalog holds it.
        age_us: Microseconds, by the history database's clock.
        progress: Told now and then how many entities are done.

    Raises:
        StoreUnavailable: Some rows may be gone; do it again.
    """
    group = registered.group
    done = Retired(group.name, await history.raise_horizon(group, age_us))
    after = None
    while rows := await history.scan_newest(group, after=after, limit=_PAGE):
        over = [row for row in rows if is_over(group, row, done.horizon_us)]
        # Online first: a row that is in history and not online is no fault before the horizon, the reverse is one.
        done.online += await _remove(online, group, over, {each.id: each.name.kind for each in await history.sources()})
        done.rows += await history.prune(group, rows, done.horizon_us)
        done.entities += len(rows)
        after = rows[-1].key
        progress(done.entities)
    return done


async def _remove(
    online: OnlineStore, group: FeatureGroup, over: Sequence[HistoryRow], kinds: Mapping[int, SourceKind]
) -> int:
    """Remove the online rows of these very versions."""
    keys = [encode_key(group.id, encode_entity(row.key)) for row in over]
    changes = []
    for key, value, row in zip(keys, await online.read(keys) if keys else [], over, strict=True):
        version = Version(row.event_time_us, kinds[row.source_id], row.source_id, row.sequence)
        if value is not None and _version_of(value) == version:
            changes.append(OnlineChange(key, value, None))
    return await online.replace(changes) if changes else 0


def _version_of(value: bytes) -> Version | None:
    try:
        return decode_value(value).version
    except ValueError:
        return None  # not ours to remove: verify names it
