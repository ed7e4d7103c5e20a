"""An export into a file, piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

from oomstream.query.training_set import appearing, csv_table
from oomstream.schemas.errors import InvalidRequest


class _Writer(Protocol):
    """What pyarrow's writers of all formats have."""

    def write_table(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


def _same(table: pa.Table) -> pa.Table:
    return table


def _parquet(file: BinaryIO, schema: pa.Schema) -> _Writer:
    from pyarrow import parquet

    writer: _Writer = parquet.ParquetWriter(file, schema)
    return writer


def _feather(file: Any, schema: pa.Schema) -> _Writer:
    # As TrainingSet.to_feather compresses it.
    writer: _Writer = pa.ipc.new_file(file, schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))
    return writer


def _csv(file: BinaryIO, schema: pa.Schema) -> _Writer:
    from pyarrow import csv

    writer: _Writer = csv.CSVWriter(file, schema)
    return writer


_FORMATS: dict[str, tuple[Callable[[BinaryIO, pa.Schema], _Writer], Callable[[pa.Table], pa.Table]]] = {
    ".csv": (_csv, csv_table),
    ".parquet": (_parquet, _same),
    ".arrow": (_feather, _same),
    ".feather": (_feather, _same),
}


async def write_tables(tables: AsyncIterator[pa.Table], path: Path) -> int:
    """Write tables of the same columns into one file, which appears at its path when it is complete.

    Args:
        tables: At least one; a piece at a time is in memory.
        path: Its suffix names the format: .csv, .parquet, .arrow or .feather; each as `TrainingSet` writes it.

    Returns:
        How many rows were written.

    Raises:
        InvalidRequest: Another suffix, or the file cannot be written; names it.
    """
    if path.suffix.lower() not in _FORMATS:
        raise InvalidRequest(f"cannot write {path}: its suffix is none of {', '.join(sorted(_FORMATS))}")
    begin, form = _FORMATS[path.suffix.lower()]
    rows = 0
    writer: Any = None
    with appearing(path) as file:
        try:
            async for table in tables:
                piece = form(table)
                if writer is None:
                    writer = begin(file, piece.schema)
                await asyncio.to_thread(writer.write_table, piece)
                rows += piece.num_rows
        finally:
            if writer is not None:
                writer.close()
    return rows
