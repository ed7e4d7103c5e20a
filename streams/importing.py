"""Files into groups: a batch group gets a revision, whole or not at all; a stream group is filled in beside its stream.

Source:
    oomcli.md (import); design.md, section 6 (batch groups) and section 4 (a file is a source of its own).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

from oomstream.schemas.errors import InvalidRequest, StoreUnavailable
from oomstream.schemas.groups import Category
from oomstream.stores.base import HistoryStore, OnlineStore
from oomstream.stores.catalog_cache import CatalogCache
from oomstream.stores.revisions import Revision
from oomstream.stores.settings import Settings, load_settings
from oomstream.streams.backfill import Backfill
from oomstream.streams.backoff import Backoff
from oomstream.streams.csv_rows import CsvRows, RowBatch
from oomstream.streams.import_files import BLOCK_BYTES, opened, row_batches
from oomstream.streams.import_report import ImportReport, Show
from oomstream.streams.revision_import import RevisionImport


async def import_file(
    history: HistoryStore,
    online: OnlineStore,
    group: str,
    path: Path | str,
    *,
    revision_us: int | None = None,
    delimiter: str = ",",
    doc: str = "",
    progress: Show | None = None,
    settings: Settings | None = None,
    clock: Callable[[], float] = time.time,
) -> ImportReport:
    """Import a file into a group.

    Into a batch group it makes a revision of all rows, or, where anything is wrong, nothing. Into a stream group every
    row goes through the same pipeline as an event of the stream, after the whole file was found to be valid; rows that
    an earlier import of the same bytes wrote are left as they are.

    Args:
        history: Open history store; a batch group needs the right to make tables.
        online: Open online store, paired with it.
        group: Name of the group.
        path: A .csv, .parquet, .arrow, .arrows or .feather file; anything else is read as CSV.
        revision_us: For a batch group, the time from which on the revision is its state, UTC microseconds; None = now,
            until its first sync.
        delimiter: What separates the cells of a CSV file.
        doc: Description of the revision; a stream group has none to keep it, but oomstore's clients send one.
        progress: Called now and then with how far it has come.
        settings: Limits and budgets; None = those of the environment.
        clock: Wall clock, seconds since 1970-01-01 UTC.

    Raises:
        UnknownGroup: No such group.
        InvalidImport: The file cannot be read, or its header or a row is wrong; names both. Nothing is kept.
        InvalidRequest: A revision was asked for in a stream group.
        Fenced: Another process imports the same file.
        Fatal: A store stayed down past the outage budget.
    """
    path = Path(path)
    target = await _target(history, group, revision_us, doc, settings)
    if target.category is Category.STREAM:
        backfill = Backfill(
            history,
            online,
            target.catalog,
            group,
            target.settings,
            where=path.name,
            delimiter=delimiter,
            show=progress,
            clock=clock,
        )
        if path.is_file():
            return await backfill.run(path)
        async with _spooled(_blocks(path), path.suffix) as copy:
            return await backfill.run(copy)
    revisions = _revision_import(history, target, path.name, progress)
    outage = Backoff(target.settings.outage_budget_us / 1e6, where=f"import of {path.name}")
    while True:
        try:
            async with aclosing(row_batches(path, delimiter)) as batches:
                return await revisions.run(batches)
        except StoreUnavailable as exc:
            if not path.is_file():  # a pipe cannot be read again
                raise
            await outage.wait(exc)


async def import_chunks(
    history: HistoryStore,
    online: OnlineStore,
    group: str,
    chunks: AsyncIterable[bytes],
    *,
    name: str = "stream",
    revision_us: int | None = None,
    delimiter: str = ",",
    doc: str = "",
    settings: Settings | None = None,
    clock: Callable[[], float] = time.time,
) -> ImportReport:
    """Import CSV bytes as they come; as `import_file`, and where `chunks` raises, nothing is imported.

    Args:
        history: Open history store.
        online: Open online store, paired with it.
        group: Name of the group.
        chunks: The bytes of a CSV file, cut anywhere. For a stream group they are spooled to a temporary file first.
        name: Names them in messages.
        revision_us: As for `import_file`.
        delimiter: What separates cells.
        doc: Description of the revision.
        settings: Limits and budgets; None = those of the environment.
        clock: Wall clock, seconds since 1970-01-01 UTC.

    Raises:
        UnknownGroup: No such group.
        InvalidImport: The header or a row is wrong; names line and column. Nothing is kept.
        StoreUnavailable: The database failed; nothing was kept. (Into a stream group it is tried again.)
    """
    target = await _target(history, group, revision_us, doc, settings)
    if target.category is Category.STREAM:
        backfill = Backfill(
            history, online, target.catalog, group, target.settings, where=name, delimiter=delimiter, clock=clock
        )
        async with _spooled(chunks, ".csv") as copy:
            return await backfill.run(copy)
    async with aclosing(_rows_of_chunks(chunks, name, delimiter)) as batches:
        return await _revision_import(history, target, name, None).run(batches)


async def link_table(
    history: HistoryStore, group: str, table: str, *, revision_us: int | None = None, doc: str = ""
) -> Revision:
    """Make a table that is in the history database a revision of a batch group; the table stays the user's own.

    Raises:
        UnknownGroup: No such group.
        InvalidRequest: It is a stream group, or the table cannot be one of its revisions; names table and column.
    """
    registered = (await history.load_catalog()).group(group)
    if registered.category is Category.STREAM:
        raise InvalidRequest(f"group {group} is a stream group: a table can only be linked to a batch group")
    return await history.link_revision(registered, table, time_us=revision_us, doc=doc)


class _Target(NamedTuple):
    """Where an import goes: a registered group, and what every import needs beside it."""

    group: str
    category: Category
    catalog: CatalogCache
    settings: Settings
    revision_us: int | None
    doc: str


async def _target(
    history: HistoryStore, group: str, revision_us: int | None, doc: str, settings: Settings | None
) -> _Target:
    catalog = CatalogCache(history)
    category = (await catalog.get()).group(group).category
    if category is Category.STREAM and revision_us is not None:
        raise InvalidRequest(
            f"group {group} is a stream group: its rows have event times of their own, so there is no revision to give "
            "a time"
        )
    return _Target(group, category, catalog, load_settings() if settings is None else settings, revision_us, doc)


def _revision_import(history: HistoryStore, target: _Target, where: str, show: Show | None) -> RevisionImport:
    return RevisionImport(
        history,
        target.catalog,
        target.group,
        where=where,
        budget_s=target.settings.outage_budget_us / 1e6,
        time_us=target.revision_us,
        doc=target.doc,
        show=show,
    )


async def _rows_of_chunks(chunks: AsyncIterable[bytes], where: str, delimiter: str) -> AsyncGenerator[RowBatch, None]:
    rows = CsvRows(where, delimiter)
    async for chunk in chunks:
        for batch in rows.feed(chunk):
            yield batch
    for batch in rows.end():
        yield batch


async def _blocks(path: Path) -> AsyncIterator[bytes]:
    with opened(path) as file:
        while block := await asyncio.to_thread(file.read, BLOCK_BYTES):
            yield block


@asynccontextmanager
async def _spooled(chunks: AsyncIterable[bytes], suffix: str) -> AsyncIterator[Path]:
    """A temporary file of what can be read only once."""
    with NamedTemporaryFile(prefix="oomstream-import-", suffix=suffix) as file:
        async for chunk in chunks:
            await asyncio.to_thread(file.write, chunk)
        file.flush()
        yield Path(file.name)
