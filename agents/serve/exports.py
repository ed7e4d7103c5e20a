"""Every entity's values at one moment, over the wire or into a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pyarrow as pa

from oomstream.agents.serve import oomagent_pb2 as pb
from oomstream.agents.serve.shared_files import SharedFiles
from oomstream.agents.serve.wire_values import to_wire
from oomstream.query.export_file import write_tables
from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.schemas.errors import InvalidTime
from oomstream.schemas.types import MAX_TIME_US, MIN_TIME_US

_ROWS_AT_A_TIME = 1_000


class Exports:
    """Exports to files and streams.

    Args:
        store: Open for as long as the agent answers.
        files: What clients may name.
    """

    def __init__(self, store: AsyncFeatureStore, files: SharedFiles) -> None:
        self._store = store
        self._files = files

    async def export(self, request: pb.ExportRequest) -> pb.ExportResponse:
        """Into a file of the server, which appears when it is complete."""
        output = self._files.output(request.output_file)
        limit = request.limit if request.HasField("limit") else None
        made = self._store.export_tables(list(request.features), at=at_us(request.unix_milli), limit=limit)
        async with aclosing(made) as tables:
            await write_tables(tables, output)
        return pb.ExportResponse()

    async def channel_export(self, request: pb.ChannelExportRequest) -> AsyncIterator[pb.ChannelExportResponse]:
        """As a stream of rows, in order of the entity key; a piece of them is in memory at a time."""
        limit = request.limit if request.HasField("limit") else None
        header: list[str] = []
        rows_sent = 0
        made = self._store.export_tables(list(request.features), at=at_us(request.unix_milli), limit=limit)
        async with aclosing(made) as tables:
            async for table in tables:
                header = list(table.column_names)
                for start in range(0, table.num_rows, _ROWS_AT_A_TIME):
                    for row in await asyncio.to_thread(_rows, table.slice(start, _ROWS_AT_A_TIME)):
                        yield pb.ChannelExportResponse(header=() if rows_sent else header, row=map(to_wire, row))
                        rows_sent += 1
        if not rows_sent:  # oomstore's clients take a stream without any message for an error
            yield pb.ChannelExportResponse(header=header)


def at_us(unix_milli: int) -> int:
    """The moment of an export, UTC microseconds.

    Raises:
        InvalidTime: It is outside the calendar.
    """
    if not MIN_TIME_US <= unix_milli * 1000 <= MAX_TIME_US:
        raise InvalidTime("unix_milli is outside the years 1 to 9999")
    return unix_milli * 1000


def _rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))
