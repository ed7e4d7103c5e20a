"""Online rows derived from history again, beside running workers.

Source:
    design.md, section 5; what `verify` finds, `repair` mends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.events import Plain
from oomstream.schemas.online_value import packed_version
from oomstream.stores.base import HistoryRow, HistoryStore, OnlineStore
from oomstream.stores.rebuild import online_row
from oomstream.streams.verify import PAGE, key_of_row, online_pages


@dataclass(slots=True)
class Repaired:
    """What `repair` did to one group.

    Attributes:
        group: The group.
        entities: Entities looked at.
        written: Online rows that were missing, older, or of equal version with other bytes.
        removed: Online rows whose version history does not have.
    """

    group: str
    entities: int = 0
    written: int = 0
    removed: int = 0


async def repair(history: HistoryStore, online: OnlineStore, registered: RegisteredGroup) -> Repaired:
    """Derive a group's online rows from history again, beside running workers; no row moves backwards.

    Raises:
        StoreUnavailable: Some rows may be repaired; do it again.
    """
    codec = BodyCodec(registered)
    result = Repaired(registered.group.name)
    after: tuple[Plain, ...] | None = None
    while page := await history.scan_newest(registered.group, after=after, limit=PAGE):
        after = page[-1].key
        result.entities += len(page)
        result.written += await _write_again(history, online, codec, page)
    async for rows in online_pages(online, registered.group):
        keys = [key_of_row(row, registered.group) for row in rows]
        newest = await history.newest(registered.group, keys)
        kinds = {each.id: each.name.kind for each in await history.sources()}
        unknown = {
            row.key: key
            for row, key, kept in zip(rows, keys, newest, strict=True)
            if kept is None
            or packed_version(row.value) > packed_version(online_row(codec, kept, kinds[kept.source_id]).value)
        }
        if unknown:
            await online.delete(list(unknown))
            result.removed += len(unknown)
            # A worker may have written the entity in the meantime, or history has an older row of it.
            left = [row for row in await history.newest(registered.group, list(unknown.values())) if row is not None]
            await _write_again(history, online, codec, left)
    return result


async def _write_again(history: HistoryStore, online: OnlineStore, codec: BodyCodec, rows: Sequence[HistoryRow]) -> int:
    kinds = {each.id: each.name.kind for each in await history.sources()}
    wanted = [online_row(codec, row, kinds[row.source_id]) for row in rows]
    stored = await online.read([row.key for row in wanted])
    differing = [row for row, value in zip(wanted, stored, strict=True) if value != row.value]
    return await online.upsert_newer(differing, or_equal=True) if differing else 0
