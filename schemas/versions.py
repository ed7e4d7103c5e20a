"""The order of rows: which of two values of one entity is the newer one."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple, Self

_PACKED = struct.Struct(">QBIQ")
SIGN = 1 << 63
"""Added to a signed 64-bit integer, it makes the big-endian bytes sort as the integer does."""

VERSION_BYTES = _PACKED.size
"""Length in bytes of a packed version."""


class SourceKind(IntEnum):
    """What kind of sequence a row came from; at equal event time the greater kind wins."""

    FILE = 1
    PUSH = 2
    TOPIC = 3


class Version(NamedTuple):
    """Version of a row, compared field by field in this order; the greatest wins everywhere.

    Attributes:
        event_time_us: When it happened, UTC microseconds.
        kind: Kind of the source (file < push < topic).
        source_id: Small id of the source, in order of first sight.
        sequence: Position within the source (for a topic: the Kafka offset).

    Source:
        design.md, section 4.
    """

    event_time_us: int
    kind: int
    source_id: int
    sequence: int

    def pack(self) -> bytes:
        """The version as 21 bytes whose order under memcmp is the order of versions."""
        return _PACKED.pack(self.event_time_us + SIGN, self.kind, self.source_id, self.sequence)

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """Read what `pack` wrote."""
        time, kind, source_id, sequence = _PACKED.unpack(packed)
        return cls(time - SIGN, kind, source_id, sequence)
