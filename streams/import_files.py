"""Files to import, by their suffix: CSV, parquet and Arrow, read in bounded batches.

Reading goes on in threads, so that a process that also serves does not stand still meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import IO, Any, NamedTuple

import pyarrow as pa

from oomstream.schemas.arrow import pc
from oomstream.schemas.errors import InvalidImport
from oomstream.streams.csv_rows import CsvRows, RowBatch

MAX_BATCH_ROWS = 8_000
"""Most rows of one batch of a parquet or Arrow file."""

BLOCK_BYTES = 1 << 20
"""How many bytes of a file are read at a time."""

_BUFFER_BYTES = 1 << 16
_BATCH_BYTES = 4 << 20
_IPC_MAGIC = b"ARROW1"
_PARQUET = frozenset({".parquet", ".pq"})
_ARROW = frozenset({".arrow", ".arrows", ".feather"})


async def row_batches(path: Path, delimiter: str = ",") -> AsyncGenerator[RowBatch, None]:
    """Rows of a file in order, in bounded batches; one batch of none if it has none.

    Args:
        path: A ``.parquet`` or ``.pq`` file, an ``.arrow``, ``.arrows`` or ``.feather`` file (IPC file or stream), or
            CSV under any other name.
        delimiter: What separates the cells of a CSV file.

    Raises:
        InvalidImport: It cannot be read, or is not such a file; names it, and the line.
    """
    batches = _read(path, delimiter)
    reading = Lock()

    def read_next() -> RowBatch | None:
        with reading:
            return next(batches, None)

    def close() -> None:
        with reading:  # whoever was cancelled has left a thread that still reads
            batches.close()

    try:
        while (batch := await asyncio.to_thread(read_next)) is not None:
            yield batch
    finally:
        await asyncio.to_thread(close)


async def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        InvalidImport: It cannot be read.
    """
    return await asyncio.to_thread(_sha256, path)


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with opened(path) as file:
        while block := file.read(BLOCK_BYTES):
            found.update(block)
    return found.hexdigest()


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file for reading.

    Raises:
        InvalidImport: It cannot be read; names it.
    """
    try:
        with path.open("rb") as file:
            yield file
    except OSError as exc:
        raise InvalidImport(f"cannot read {path}: {exc.strerror or type(exc).__name__}") from exc


def _read(path: Path, delimiter: str) -> Generator[RowBatch, None, None]:
    suffix = path.suffix.lower()
    if suffix in _PARQUET:
        return _typed(path, _parquet_batches)
    if suffix in _ARROW:
        return _typed(path, _arrow_batches)
    return _csv(path, delimiter)


def _csv(path: Path, delimiter: str) -> Generator[RowBatch, None, None]:
    rows = CsvRows(path.name, delimiter)
    with opened(path) as file:
        while block := file.read(BLOCK_BYTES):
            yield from rows.feed(block)
        yield from rows.end()


def _typed(path: Path, read: Callable[[IO[bytes], int], Iterator[_Found]]) -> Generator[RowBatch, None, None]:
    row = before = 0
    with opened(path) as file:
        try:
            for found in read(file, os.fstat(file.fileno()).st_size):
                pieces = list(_bounded(found.batch))
                for piece in pieces:
                    yield _row_batch(piece, row, (found.done - before) // len(pieces), path.name)
                    row += piece.num_rows
                before = found.done
        except (pa.ArrowException, OSError) as exc:
            what = exc.strerror if isinstance(exc, OSError) and exc.strerror else f"not a readable {path.suffix} file"
            raise InvalidImport(f"cannot read {path}: {what}") from exc


class _Found(NamedTuple):
    """A batch as a file's reader gives it, and up to which byte the file has been read by then, about."""

    batch: pa.RecordBatch
    done: int


def _parquet_batches(file: IO[bytes], size: int) -> Iterator[_Found]:
    from pyarrow import parquet

    # Without the buffer a whole column of a row group would be read at once.
    opened = parquet.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)
    metadata = opened.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    row_bytes = max((each.total_byte_size // max(each.num_rows, 1) for each in groups), default=0)
    rows = 0
    for batch in opened.iter_batches(batch_size=_bounded_rows(row_bytes), use_threads=False):
        rows += batch.num_rows
        yield _Found(batch, size * rows // metadata.num_rows)
    if not rows:
        yield _Found(pa.RecordBatch.from_pylist([], schema=opened.schema_arrow), size)


def _arrow_batches(file: IO[bytes], size: int) -> Iterator[_Found]:
    from pyarrow import ipc

    raw: Any = file  # the stubs know no files but Python's own classes
    is_file = raw.read(len(_IPC_MAGIC)) == _IPC_MAGIC
    raw.seek(0)
    rows = 0
    if is_file:
        opened = ipc.open_file(raw)
        schema = opened.schema
        numbered = ((number, opened.get_batch(number)) for number in range(opened.num_record_batches))
        found = (_Found(batch, size * (number + 1) // opened.num_record_batches) for number, batch in numbered)
    else:
        stream = ipc.open_stream(raw)
        schema = stream.schema
        found = (_Found(batch, raw.tell()) for batch in stream)
    for each in found:
        rows += each.batch.num_rows
        if each.batch.num_rows:
            yield each
    if not rows:
        yield _Found(pa.RecordBatch.from_pylist([], schema=schema), size)


def _bounded(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    columns: Any = batch.columns
    unpacked = sum(_longest_entry(column.dictionary) for column in columns if pa.types.is_dictionary(column.type))
    rows = _bounded_rows(batch.nbytes // max(batch.num_rows, 1) + unpacked)
    for start in range(0, max(batch.num_rows, 1), rows):
        yield batch.slice(start, rows)


def _longest_entry(dictionary: Any) -> int:
    """How many bytes a row can get out of a dictionary, which holds each text once however often it is there."""
    if not len(dictionary) or not (pa.types.is_string(dictionary.type) or pa.types.is_binary(dictionary.type)):
        return 0
    return int(pc.max(pc.binary_length(dictionary)).as_py() or 0)


def _bounded_rows(row_bytes: int) -> int:
    return max(1, min(MAX_BATCH_ROWS, _BATCH_BYTES // max(row_bytes, 1)))


def _row_batch(batch: pa.RecordBatch, first: int, num_bytes: int, where: str) -> RowBatch:
    names = tuple(batch.schema.names)
    columns: Any = batch.columns
    for name, column in zip(names, columns, strict=True):
        try:
            # What is in a file need not be what its header says; without this, Python could read beyond a buffer.
            _without_encoding(column).validate(full=True)
        except pa.ArrowInvalid as exc:
            raise InvalidImport(f"{where}: column {name!r} is damaged at row {first + 1} or one of the next") from exc
    chunked = [pa.chunked_array([column]) for column in columns]
    return RowBatch(names, first, chunked, batch.num_rows, num_bytes, False, lambda row: f"row {first + row + 1}")


def _without_encoding(column: Any) -> Any:
    """Text as bytes: which row is not UTF-8 is found out, and said, when it is read."""
    if pa.types.is_string(column.type):
        return column.cast(pa.binary())
    return column.cast(pa.large_binary()) if pa.types.is_large_string(column.type) else column
