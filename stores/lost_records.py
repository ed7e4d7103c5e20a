"""What is remembered of records that nobody can read any more."""

from __future__ import annotations

from typing import NamedTuple


class LostRecords(NamedTuple):
    """Records of a source that left the log before they were read, and were skipped because a setting said so.

    Attributes:
        source_id: The source.
        start: The first of them.
        end: One behind the last.
        time_us: When they were skipped, by the history database's clock.
    """

    source_id: int
    start: int
    end: int
    time_us: int
