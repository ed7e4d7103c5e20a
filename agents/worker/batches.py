"""What passes from the consumer's thread to a partition's runner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oomstream.schemas.events import Record
from oomstream.streams.pieces import pieces as pieces
from oomstream.streams.pieces import record_bytes as record_bytes


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
