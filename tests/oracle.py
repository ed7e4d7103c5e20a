"""What is right, in obvious Python: a list of events, looked through from end to end for every question.

Nothing here is fast, and nothing here is shared with the code under test except the names of the types of sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Key = tuple[Any, ...]
Values = dict[str, Any]


@dataclass(frozen=True)
class OracleEvent:
    """One event as it stands in the log.

    Attributes:
        group: Its group.
        key: Entity key.
        event_time_us: When it happened.
        kind: Rank of its source's kind.
        source_id: Its source.
        sequence: Its place in the source.
        ingest_time_us: When it was written into history.
        deleted: Whether it is a delete.
        values: Value of each feature, None for null; empty for a delete.
    """

    group: str
    key: Key
    event_time_us: int
    kind: int
    source_id: int
    sequence: int
    ingest_time_us: int
    deleted: bool = False
    values: Values = field(default_factory=dict, hash=False)

    @property
    def version(self) -> tuple[int, int, int, int]:
        """What decides which of two events of an entity is the newer one."""
        return (self.event_time_us, self.kind, self.source_id, self.sequence)


@dataclass(frozen=True)
class OracleAnswer:
    """What an online read must answer for one entity of one group.

    Attributes:
        status: NOT_FOUND, OUTSIDE_MAX_AGE or PRESENT; NULL_VALUE is PRESENT with None as the value.
        event_time_us: Event time of the newest event; None if there is none.
        values: Values of the features, all None unless PRESENT.
    """

    status: str
    event_time_us: int | None
    values: Values | None


class Oracle:
    """Every event of every group, each identity (source, sequence) once: the first one counts."""

    def __init__(self, events: Iterable[OracleEvent]) -> None:
        seen: dict[tuple[int, int], OracleEvent] = {}
        for event in events:
            seen.setdefault((event.source_id, event.sequence), event)
        self.events = sorted(seen.values(), key=lambda event: (event.group, event.version))

    def newest(self, group: str, key: Key) -> OracleEvent | None:
        """The event of greatest version of an entity."""
        found = None
        for event in self.events:
            if event.group == group and event.key == key:
                found = event
        return found

    def online(self, group: str, key: Key, now_us: int, ttl_us: int | None = None) -> OracleAnswer:
        """What an online read at `now_us` must answer."""
        event = self.newest(group, key)
        if event is None or event.deleted:
            return OracleAnswer("NOT_FOUND", event.event_time_us if event else None, None)
        if ttl_us is not None and now_us - event.event_time_us > ttl_us:
            return OracleAnswer("OUTSIDE_MAX_AGE", event.event_time_us, None)
        return OracleAnswer("PRESENT", event.event_time_us, event.values)

    def at(
        self,
        group: str,
        key: Key,
        label_time_us: int,
        *,
        ttl_us: int | None = None,
        as_of_us: int | None = None,
        available: bool = False,
    ) -> Values | None:
        """The values that a training set must have for one label; None where all are null."""
        found = None
        for event in self.events:
            if event.group != group or event.key != key or event.event_time_us > label_time_us:
                continue
            if as_of_us is not None and event.ingest_time_us > as_of_us:
                continue
            if available and event.ingest_time_us > label_time_us:
                continue
            found = event
        if found is None or found.deleted:
            return None
        if ttl_us is not None and label_time_us - found.event_time_us > ttl_us:
            return None
        return found.values

    def training_rows(
        self,
        labels: Sequence[tuple[Key | None, int]],
        group: str,
        features: Sequence[str],
        *,
        ttl_us: int | None = None,
        as_of_us: int | None = None,
        available: bool = False,
    ) -> list[list[Any]]:
        """Feature values per label (key, label time), in order; a label with no key has nulls."""
        rows: list[list[Any]] = []
        for key, time_us in labels:
            values = None
            if key is not None and None not in key:
                values = self.at(group, key, time_us, ttl_us=ttl_us, as_of_us=as_of_us, available=available)
            rows.append([values[name] if values is not None else None for name in features])
        return rows
