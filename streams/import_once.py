"""Importing from a program that has no stores open: `oomstream.import_file`."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

from oomstream.schemas.errors import InvalidRequest
from oomstream.schemas.types import us_from_time
from oomstream.stores.opening import open_stores
from oomstream.stores.settings import Settings, load_settings
from oomstream.streams import importing
from oomstream.streams.import_report import ImportReport


def import_file(
    group: str,
    path: Path | str,
    *,
    revision: datetime | None = None,
    delimiter: str = ",",
    description: str = "",
    settings: Settings | None = None,
) -> ImportReport:
    """Import a file into a group of the stores that the settings name, as `oomstream import` does.

    A batch group gets a revision of all rows, or, where anything is wrong, nothing. In a stream group every row is an
    event, written once however often the file is imported.

    Args:
        group: Name of the group.
        path: A .csv, .parquet, .arrow, .arrows or .feather file; anything else is read as CSV.
        revision: For a batch group, the time from which on the revision is its state (naive = UTC); None = now, until
            its first sync.
        delimiter: What separates the cells of a CSV file.
        description: Description of the revision.
        settings: Where the stores are; None = as OOMSTREAM_… variables say.

    Returns:
        How many rows there were, and the new revision of a batch group.

    Raises:
        UnknownGroup: No such group.
        InvalidImport: The file cannot be read, or its header or a row is wrong; names line and column. Nothing is kept.
        InvalidRequest: A revision was asked for in a stream group, or this is a coroutine's thread: await
            `oomstream.streams.importing.import_file` on open stores there.
        StoreUnavailable: A store cannot be reached; names it.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_import(group, path, revision, delimiter, description, settings or load_settings()))
    raise InvalidRequest(
        "import_file was called where an event loop runs: await oomstream.streams.importing.import_file there"
    )


async def _import(
    group: str, path: Path | str, revision: datetime | None, delimiter: str, description: str, settings: Settings
) -> ImportReport:
    async with open_stores(settings) as (history, online):
        return await importing.import_file(
            history,
            online,
            group,
            path,
            revision_us=None if revision is None else us_from_time(revision),
            delimiter=delimiter,
            doc=description,
            settings=settings,
        )
