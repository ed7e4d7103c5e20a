"""What comparing a group's history with the log has found."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from oomstream.schemas.events import Plain
from oomstream.streams.judging import Side


class LogFinding(StrEnum):
    """How history, or the dead letters, differ from the log at one offset."""

    LOST = "valid in the log, not in history"
    EXTRA = "in history, not in the log"
    DOUBLED = "more than once in history"
    REFUSED = "in history, but invalid in the log"
    DIFFERENT = "same identity, other values"
    LETTER_MISSING = "invalid in the log, no dead letter"
    LETTER_EXTRA = "dead letter of no record in the log"


@dataclass(frozen=True, slots=True)
class LogDifference:
    """One identity that is not as it should be.

    Attributes:
        topic: Its topic.
        partition: Its partition.
        offset: Its offset, which is its sequence in history.
        finding: What is wrong.
        key: Entity key in plain form, of the event or else of the row; None for what has no key.
        log: What the log has, if that is a valid event.
        history: What history has, if anything.
    """

    topic: str
    partition: int
    offset: int
    finding: LogFinding
    key: tuple[Plain, ...] | None = None
    log: Side | None = None
    history: Side | None = None


@dataclass(slots=True)
class PartitionCheck:
    """What was compared of one partition, and with what outcome.

    Attributes:
        partition: Which.
        source_id: Its source.
        position: The source's `next_sequence`: everything before it was compared.
        dropped: How many offsets before the position the log no longer holds; nothing is said of them.
        before_start: How many offsets lie before the one at which the source was told to begin.
        records: Records in the log before the position.
        events: Those of them that are valid.
        letters: Dead letters of the partition before the position, each identity once.
        taken_in: Letters whose event is in history as well: replayed, or taken in the end.
        waiting: Letters of events that are valid by now: `oomstream dlq replay` would take them in.
        forgotten: Events of entities that were forgotten, which must have no row.
        retired: Events older than the history that is kept, which may have no row.
        unjudged: Rows or letters of which nothing can be said, as compaction or retention took their counterparts.
        lost: Valid events with no row and no letter.
        extra: Rows with no valid event in the log, or more than one row for one identity.
        differing: Rows with other values than their events.
        letters_missing: Invalid records with neither letter nor row.
        letters_extra: Letters of records that the log does not have.
    """

    partition: int
    source_id: int
    position: int
    dropped: int = 0
    before_start: int = 0
    records: int = 0
    events: int = 0
    letters: int = 0
    taken_in: int = 0
    waiting: int = 0
    forgotten: int = 0
    retired: int = 0
    unjudged: int = 0
    lost: int = 0
    extra: int = 0
    differing: int = 0
    letters_missing: int = 0
    letters_extra: int = 0

    @property
    def wrong(self) -> int:
        """How many identities are not as they should be."""
        return self.lost + self.extra + self.differing + self.letters_missing + self.letters_extra

    def count(self, finding: LogFinding) -> None:
        """Count one difference."""
        match finding:
            case LogFinding.LOST:
                self.lost += 1
            case LogFinding.EXTRA | LogFinding.DOUBLED | LogFinding.REFUSED:
                self.extra += 1
            case LogFinding.DIFFERENT:
                self.differing += 1
            case LogFinding.LETTER_MISSING:
                self.letters_missing += 1
            case LogFinding.LETTER_EXTRA:
                self.letters_extra += 1


@dataclass(slots=True)
class LogCheck:
    """Result of comparing one group's history with the log.

    Attributes:
        group: The group.
        topic: Its topic.
        exists: Whether the broker has the topic.
        earlier: How many sources are of earlier incarnations of the topic, whose logs are no more.
        compacted: Whether the topic is compacted, so that a row without its event says nothing.
        letters_dropped: How many offsets the dead-letter topic no longer holds; if any, no letter counts as missing.
        partitions: One entry per partition that was ingested.
        first: The first few differences.
    """

    group: str
    topic: str
    exists: bool = True
    earlier: int = 0
    compacted: bool = False
    letters_dropped: int = 0
    partitions: list[PartitionCheck] = field(default_factory=list)
    first: list[LogDifference] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """How many identities are not as they should be."""
        return sum(each.wrong for each in self.partitions)
