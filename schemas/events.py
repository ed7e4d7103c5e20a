"""What goes into the pipeline and what decoding makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from oomstream.schemas.errors import InvalidEvent

Plain = bool | int | float | str | bytes | None
"""Canonical in-memory form of a value, which is also its stored form in SQL (see `types`)."""

MAX_EVENT_BYTES = 1 << 20
"""Longest value of a message that is accepted, unless a limit says otherwise."""


class Record(Protocol):
    """One raw record of a log: what aiokafka's and our own record classes have in common."""

    @property
    def offset(self) -> int:
        """Its place in its source; the sequence of the event's version."""

    @property
    def key(self) -> bytes | None:
        """Raw message key."""

    @property
    def value(self) -> bytes | None:
        """Raw message value; None is a tombstone."""

    @property
    def timestamp(self) -> int:
        """Kafka timestamp, UTC milliseconds."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Message headers in order."""


class RawRecord(NamedTuple):
    """A plain `Record`, for sources that are not Kafka."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Sequence[tuple[str, bytes | None]] = ()


class Event(NamedTuple):
    """A valid event in the terms of one definition version of its group.

    Attributes:
        sequence: Its place in its source.
        key: Entity key in plain form, in the order of the group's key fields.
        entity: The same key, encoded (see `keys`).
        event_time_us: UTC microseconds.
        deleted: Whether it is a tombstone.
        values: Plain form of every active feature, in the order of `FeatureGroup.features`; empty for a tombstone.
        body: Canonical Avro body under the definition's schema; empty for a tombstone.
    """

    sequence: int
    key: tuple[Plain, ...]
    entity: bytes
    event_time_us: int
    deleted: bool
    values: tuple[Plain, ...]
    body: bytes


class Rejected(NamedTuple):
    """A record that is not a valid event, and why."""

    record: Record
    error: InvalidEvent


class Decoded(NamedTuple):
    """Result of decoding one batch.

    `events` and `rejected` together hold every record exactly once, each in log order. The `unknown_*` fields say
    what could not be judged with what the decoder knows: the caller fetches it once and decodes again; records
    that stay unknown are then in `rejected`.

    Attributes:
        events: The valid ones.
        rejected: The others.
        ignored_fields: How many unknown JSON fields were ignored.
        unknown_fingerprints: Avro fingerprints of no known definition version.
        unknown_fields: JSON field names that the definition does not have.
        unknown_schema_ids: Schema Registry ids not fetched yet.
        forgotten: Sequences of events of forgotten entities, which are in neither of the two (see `Decoding`).
    """

    events: list[Event]
    rejected: list[Rejected]
    ignored_fields: int
    unknown_fingerprints: frozenset[bytes]
    unknown_fields: frozenset[str]
    unknown_schema_ids: frozenset[int]
    forgotten: frozenset[int] = frozenset()
