"""Online rows made again from history: after a crash between the two, and for sync and repair.

Source:
    design.md, section 5 (on assignment) and section 6 (stored form).
"""

from __future__ import annotations

from collections.abc import Sequence

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.groups import Category
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import OnlineRow, encode_key, encode_value
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.base import HistoryRow, HistoryStore, OnlineStore, Source

_PAGE = 5_000
_FINISH_LEASE_S = 300.0


def online_row(codec: BodyCodec, row: HistoryRow, kind: SourceKind) -> OnlineRow:
    """The online row that a history row stands for.

    Args:
        codec: Of the row's group, under the newest definition.
        row: The history row.
        kind: Kind of the row's source.
    """
    group = codec.group
    version = Version(row.event_time_us, kind, row.source_id, row.sequence).pack()
    body = b"" if row.deleted else codec.encode(row.key, row.event_time_us, row.values)
    return OnlineRow(
        encode_key(group.id, encode_entity(row.key)),
        encode_value(version, row.ingest_time_us, group.fingerprint, row.deleted, body),
    )


async def rebuild_source(
    history: HistoryStore, online: OnlineStore, registered: RegisteredGroup, source: Source, start: int, end: int
) -> int:
    """Write the online rows of one group for `start` <= sequence < `end` of a source from its history rows.

    Doing it again, or beside running writers, is harmless: versions only rise.

    Returns:
        How many online rows were written; none of a batch group, which takes nothing from sources.

    Raises:
        StoreUnavailable: Some rows may have been written; do it again.
    """
    if registered.group.category is not Category.STREAM:
        return 0
    codec = BodyCodec(registered)
    written = 0
    while start < end:
        rows = await history.rows_of_source(registered.group, source.id, start, end, limit=_PAGE)
        if not rows:
            break
        written += await rebuild_rows(online, codec, rows, source.name.kind)
        start = rows[-1].sequence + 1
    return written


async def rebuild_rows(online: OnlineStore, codec: BodyCodec, rows: Sequence[HistoryRow], kind: SourceKind) -> int:
    """Write the online rows that some history rows of one source stand for, where they are newer than what is stored.

    Args:
        online: Open online store.
        codec: Of the rows' group, under the newest definition.
        rows: In order of sequence.
        kind: Kind of their source.

    Returns:
        How many online rows were written.

    Raises:
        StoreUnavailable: Some rows may have been written; do it again.
    """
    # One source: event time, then sequence, decide.
    newest: dict[tuple[object, ...], HistoryRow] = {}
    for row in rows:
        kept = newest.get(row.key)
        if kept is None or row.event_time_us >= kept.event_time_us:
            newest[row.key] = row
    return await online.upsert_newer([online_row(codec, row, kind) for row in newest.values()])


async def finish_pushes(history: HistoryStore, online: OnlineStore) -> int:
    """Finish what killed push writers left between history and online; whoever opens the stores calls it.

    Returns:
        How many sources were finished.

    Raises:
        StoreUnavailable: Call it again.
    """
    finished = 0
    while await history.unfinished_push_sources():
        source = await history.lease_push_source(_FINISH_LEASE_S)
        if source.online_sequence < source.next_sequence:
            for registered in (await history.load_catalog()).groups.values():
                await rebuild_source(history, online, registered, source, source.online_sequence, source.next_sequence)
            await history.mark_online(source, source.next_sequence)
            finished += 1
        await history.renew_lease(source, 0)
    return finished
