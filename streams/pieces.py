"""Batches within the limits of rows and bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from oomstream.schemas.events import Record


def record_bytes(record: Record) -> int:
    """Bytes of a record's key and value."""
    return len(record.key or b"") + len(record.value or b"")


def pieces(records: Sequence[Record], *, max_rows: int, max_bytes: int) -> Iterator[Sequence[Record]]:
    """Split records into runs within both limits; a record larger than `max_bytes` stands alone."""
    begin = size = 0
    for at, record in enumerate(records):
        more = record_bytes(record)
        if at > begin and (at - begin >= max_rows or size + more > max_bytes):
            yield records[begin:at]
            begin, size = at, 0
        size += more
    if begin < len(records):
        yield records[begin:]
