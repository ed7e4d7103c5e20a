"""What passes from the consumer's thread to a partition's runner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from oomstream.schemas.events import Record


@dataclass(frozen=True, slots=True)
class FetchedBatch:
    """Records of one partition that were fetched together, and the stretch of the log that they cover.

    A stretch may hold no record at all (transaction markers, compacted batches); `end` still counts it as read.

    Attributes:
        start: Offset at which the fetch began.
        end: Offset at which the next fetch begins.
        records: In order of offset, all in [start, end).
        size: Bytes of their keys and values.
        error: Why the partition could not be read on; then there are no records.
    """

    start: int
    end: int
    records: Sequence[Record] = ()
    size: int = 0
    error: Exception | None = None


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
