"""A file's rows into a stream group, beside its stream: events of a source of their own.

The source is the file, by the SHA-256 of its bytes, and a row's place in it is the number of the row. So the same bytes
again change nothing, whatever the file is called by then, and an import that was killed goes on where it was. At equal
event time an event of the stream wins, since files rank below topics and pushes.

1. The SHA-256 is taken, every row is read, judged and encoded, and a digest of each batch is kept; if the SHA-256 is
   still the same, the file is valid as a whole, and nothing has been written yet.
2. The source is claimed, every row that it does not hold is read and encoded again, and a batch whose digest is the one
   kept goes through the ingest pipeline.

Source:
    design.md, section 4 (sources and versions) and section 5 (ingest).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.errors import Fenced, InvalidImport
from oomstream.schemas.event_builder import EventLimits
from oomstream.schemas.events import RawRecord
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import HistoryStore, OnlineStore, SourceName
from oomstream.stores.catalog_cache import CatalogCache
from oomstream.stores.settings import Settings
from oomstream.streams.csv_rows import RowBatch
from oomstream.streams.dead_letters import DeadLetter, DeadLetterSink
from oomstream.streams.import_files import file_sha256, row_batches
from oomstream.streams.import_report import ImportProgress, ImportReport, Show, Stage
from oomstream.streams.import_rows import EventReader
from oomstream.streams.ingest import SourceIngest
from oomstream.streams.pieces import pieces

_MAX_FILE_NAME = 200
"""Most characters of a file's name that its source bears."""


class _Refused(DeadLetterSink):
    """Rows are judged before any is written: one that is refused all the same ends the import."""

    def __init__(self, where: str) -> None:
        self._where = where

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        letter = letters[0]
        raise InvalidImport(
            f"{self._where}: row {letter.offset + 1} (the header not counted) is refused by the database, and the rows "
            f"before it are written: {letter.message}"
        )


class Backfill:
    """Imports of one file into one stream group.

    Args:
        history: Open history store.
        online: Open online store, paired with it.
        catalog: The process's catalog.
        group: Name of the group.
        settings: Limits and budgets.
        where: Names the file, for messages and in the list of sources.
        delimiter: What separates the cells of a CSV file.
        show: Is told how far it has come.
        clock: Wall clock, seconds since 1970-01-01 UTC.
    """

    def __init__(
        self,
        history: HistoryStore,
        online: OnlineStore,
        catalog: CatalogCache,
        group: str,
        settings: Settings,
        *,
        where: str,
        delimiter: str = ",",
        show: Show | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._history = history
        self._online = online
        self._catalog = catalog
        self._group = group
        self._settings = settings
        self._where = where
        self._delimiter = delimiter
        self._show = show
        self._limits = EventLimits(min_event_time_us=settings.min_event_time_us, max_future_us=settings.max_future_us)
        self._now_ms = int(clock() * 1000)
        self._reader: EventReader | None = None

    async def run(self, path: Path) -> ImportReport:
        """Import a file.

        Raises:
            InvalidImport: The header or a row is wrong, or the file changed meanwhile; names line and column.
            Fenced: Another process imports the same file.
            Fatal: A store stayed down past the outage budget.
        """
        sha256 = await file_sha256(path)
        name = await self._source_name(sha256)
        rows, digests = await self._check(path, name)
        if await file_sha256(path) != sha256:
            raise InvalidImport(f"{self._where}: the file changed while it was read; nothing was written")
        ingest = SourceIngest(
            history=self._history,
            online=self._online,
            catalog=self._catalog,
            dead_letters=_Refused(self._where),
            name=name,
            settings=self._settings,
        )
        known = await ingest.start(0, rows, begin=0)
        try:
            await self._write(path, ingest, digests)
        except Fenced as exc:
            raise Fenced(f"{self._where}: another process imports this file into group {self._group} now") from exc
        finally:
            await ingest.flush()
        return ImportReport(self._group, rows, known_rows=known)

    async def _source_name(self, sha256: str) -> SourceName:
        """The file's source in the group: the one it was imported under before, or a new one."""
        prefix = f"{self._group}/"
        for each in await self._history.sources():
            name = each.name
            if name.kind is SourceKind.FILE and name.incarnation == sha256 and name.name.startswith(prefix):
                return name
        return SourceName(SourceKind.FILE, prefix + self._where[-_MAX_FILE_NAME:], sha256)

    async def _check(self, path: Path, name: SourceName) -> tuple[int, list[bytes]]:
        """Judge the whole file; gives its number of rows and a digest of each batch."""
        source = await self._history.find_source(name)
        begun = source is not None and source.next_sequence > 0
        registered = (await self._catalog.reload()).groups[self._group]
        rows = done_bytes = 0
        digests: list[bytes] = []
        async with aclosing(row_batches(path, self._delimiter)) as batches:
            async for batch in batches:
                if self._reader is None:
                    self._reader = self._event_reader(registered, batch, begun=begun)
                digests.append(_digest(await asyncio.to_thread(self._reader.records, batch)))
                rows += batch.num_rows
                done_bytes += batch.num_bytes
                self._tell(Stage.CHECKING, rows, done_bytes)
        return rows, digests

    def _event_reader(self, registered: RegisteredGroup, batch: RowBatch, *, begun: bool) -> EventReader:
        return EventReader(registered.group, batch, self._limits, self._now_ms, where=self._where, begun=begun)

    async def _write(self, path: Path, ingest: SourceIngest, digests: Sequence[bytes]) -> None:
        """Ingest every row that the source does not hold yet."""
        assert self._reader is not None
        limits = self._settings
        rows = done_bytes = number = 0
        async with aclosing(row_batches(path, self._delimiter)) as batches:
            async for batch in batches:
                rows = batch.first + batch.num_rows
                if rows > ingest.next_offset:
                    records = await asyncio.to_thread(self._reader.records, batch)
                    if number >= len(digests) or _digest(records) != digests[number]:
                        raise InvalidImport(
                            f"{self._where}: the file changed after it was checked; the rows before "
                            f"{batch.place(0)} are written, and none behind"
                        )
                    for piece in pieces(records, max_rows=limits.batch_rows, max_bytes=limits.batch_bytes):
                        await ingest.ingest(piece, self._group)
                number += 1
                done_bytes += batch.num_bytes
                self._tell(Stage.WRITING, rows, done_bytes)

    def _tell(self, stage: Stage, rows: int, done_bytes: int) -> None:
        if self._show is not None:
            self._show(ImportProgress(stage, rows, done_bytes))


def _digest(records: Sequence[RawRecord]) -> bytes:
    """What tells whether a batch is the one that was judged: its rows in canonical form, one after the other."""
    found = hashlib.sha256()
    for record in records:
        value = record.value or b""
        found.update(len(value).to_bytes(4, "big"))
        found.update(value)
    return found.digest()
