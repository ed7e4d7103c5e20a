"""Rows of a file to a revision of a batch group: all of them or none.

The rows go into a draft, which nobody reads, and one transaction makes it a revision. Whatever happens before that, the
draft is dropped and its ids are given back; that of a killed process when its lease is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from functools import partial

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.errors import DefinitionChanged, InvalidEvent, OomstreamError
from oomstream.schemas.events import Plain
from oomstream.schemas.keys import encode_entity
from oomstream.stores.base import HistoryStore
from oomstream.stores.catalog_cache import CatalogCache
from oomstream.stores.revisions import DuplicateKey, Revision, RevisionRow
from oomstream.streams.backoff import Backoff
from oomstream.streams.csv_rows import RowBatch
from oomstream.streams.import_report import ImportProgress, ImportReport, Show, Stage
from oomstream.streams.import_rows import RevisionReader

log = logging.getLogger(__name__)

LEASE_S = 300.0
"""How long a draft outlives the last word of its import: a killed one leaves its table until then."""

ROWS_PER_LOAD = 5_000


class RevisionImport:
    """Imports of one file into one batch group; an import that failed may be run again.

    Args:
        history: Open history store, with the right to make tables.
        catalog: The process's catalog.
        group: Name of the group.
        where: Names the file, for messages.
        budget_s: How long the database may be down when the whole draft is there and waits to be published, seconds.
        time_us: From when on the revision is the group's state, UTC microseconds; None = now, until its first sync.
        doc: Description.
        show: Is told how far it has come.
    """

    def __init__(
        self,
        history: HistoryStore,
        catalog: CatalogCache,
        group: str,
        *,
        where: str,
        budget_s: float,
        time_us: int | None = None,
        doc: str = "",
        show: Show | None = None,
    ) -> None:
        self._history = history
        self._catalog = catalog
        self._group = group
        self._where = where
        self._budget_s = budget_s
        self._time_us = time_us
        self._doc = doc
        self._show = show

    async def run(self, batches: AsyncIterator[RowBatch]) -> ImportReport:
        """Make a revision of the rows.

        Args:
            batches: The whole file, in order; what it raises ends the import.

        Raises:
            InvalidImport: A row is wrong; names line and column. Nothing is kept.
            StoreUnavailable: The database failed; nothing is kept: do it again from the file's beginning.
            Fenced: The import stood still for so long that its draft was collected.
        """
        await self._history.collect_drafts()
        first = await anext(batches)
        registered, reader, draft = await self._begin(first)
        rows = done_bytes = 0
        try:
            batch: RowBatch | None = first
            while batch is not None:
                await self._load(registered, draft, reader, batch)
                rows += batch.num_rows
                done_bytes += batch.num_bytes
                if self._show is not None:
                    self._show(ImportProgress(Stage.WRITING, rows, done_bytes))
                batch = await anext(batches, None)
            revision = await self._publish(registered, draft)
        except BaseException:
            await self._discard(draft)
            raise
        return ImportReport(self._group, rows, revision=revision)

    async def _begin(self, first: RowBatch) -> tuple[RegisteredGroup, RevisionReader, Revision]:
        registered = (await self._catalog.get()).groups[self._group]
        while True:
            reader = RevisionReader(registered, first, where=self._where)
            try:
                draft = await self._history.begin_revision(registered.group, doc=self._doc, lease_s=LEASE_S)
            except DefinitionChanged:
                registered = (await self._catalog.reload()).groups[self._group]
            else:
                return registered, reader, draft

    async def _load(
        self, registered: RegisteredGroup, draft: Revision, reader: RevisionReader, batch: RowBatch
    ) -> None:
        found = await asyncio.to_thread(reader.rows, batch)
        places = self._kept(registered, draft, found)
        for start in range(0, len(places), ROWS_PER_LOAD):
            piece = [found[at] for at in places[start : start + ROWS_PER_LOAD]]
            try:
                await self._history.load_revision(registered.group, draft, piece)
            except DuplicateKey as exc:
                raise reader.error(batch, places[start + exc.at], "has the key of an earlier row") from None
            except InvalidEvent:
                at, error = await self._guilty(registered, draft, piece)
                raise reader.error(batch, places[start + at], f"is refused by the database: {error}") from None

    def _kept(self, registered: RegisteredGroup, draft: Revision, rows: Sequence[RevisionRow]) -> Sequence[int]:
        """Numbers of the rows of entities that are not forgotten: a revision known before that has none of them."""
        marks, entity, known_us = self._catalog.marks, registered.group.entity, self._known_us(draft)
        if marks is None or not marks.concern(entity, known_us):
            return range(len(rows))
        return [at for at, row in enumerate(rows) if not marks.cover(entity, encode_entity(row.key), known_us)]

    def _known_us(self, draft: Revision) -> int:
        return draft.create_time_us if self._time_us is None else min(self._time_us, draft.create_time_us)

    async def _guilty(
        self, registered: RegisteredGroup, draft: Revision, rows: Sequence[RevisionRow]
    ) -> tuple[int, InvalidEvent]:
        """Which row the database rejects for its data, found by halves; the draft is not wanted any more."""
        start = 0
        while True:
            middle = (len(rows) + 1) // 2
            try:
                await self._history.load_revision(registered.group, draft, rows[:middle])
            except InvalidEvent as exc:
                if middle == len(rows):
                    return start, exc
                rows = rows[:middle]
            else:
                start, rows = start + middle, rows[middle:]

    async def _publish(self, registered: RegisteredGroup, draft: Revision) -> Revision:
        # The same draft again changes nothing, so a lost answer does not cost the whole import.
        outage = Backoff(self._budget_s, where=f"import of {self._where}")
        while True:
            publish = partial(self._history.publish_revision, registered.group, draft, time_us=self._time_us)
            try:
                return await outage.call(publish)
            except DefinitionChanged:
                registered = await self._without_forgotten(registered, draft)

    async def _without_forgotten(self, registered: RegisteredGroup, draft: Revision) -> RegisteredGroup:
        """Erase rows of entities that were forgotten while rows came in; gives the group that knows of them."""
        newest = (await self._catalog.reload()).groups[self._group]
        after: tuple[Plain, ...] | None = None
        while page := await self._history.scan_revision(registered.group, draft, after=after, limit=ROWS_PER_LOAD):
            kept = set(self._kept(newest, draft, page))
            gone = [row.key for at, row in enumerate(page) if at not in kept]
            if gone:
                await self._history.erase_from_revision(registered.group, draft, gone)
            after = page[-1].key
        return newest

    async def _discard(self, draft: Revision) -> None:
        try:
            await self._history.discard_revision(draft)
        except OomstreamError as exc:
            log.warning(
                "import of %s: draft %d stays until its lease is over, in %d s: %s", self._where, draft.id, LEASE_S, exc
            )
