"""What `verify` found: counts of one group, and the first entities that are not as they should be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from oomstream.schemas.events import Plain
from oomstream.stores.base import Source
from oomstream.stores.revisions import Revision, Sync
from oomstream.streams.judging import Finding, Side

Progress = Callable[[int], None]
"""Called now and then with the number of entities done."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One entity that is not as it should be.

    Attributes:
        group: Its group.
        key: Its key in plain form; the stored bytes alone where they are no key of the group; empty where it is about
            a revision's copy as a whole.
        finding: What is wrong.
        online: What is online, where that can be read.
        history: Its newest row in history, or its row in the revision, if there is one.
    """

    group: str
    key: tuple[Plain, ...]
    finding: Finding
    online: Side | None = None
    history: Side | None = None


class LiveCopy(NamedTuple):
    """What readers of a batch group see."""

    sync: Sync
    revision: Revision


@dataclass(slots=True)
class Verification:
    """Result of verifying one group.

    Attributes:
        group: The group.
        sources: Every source when it began; the comparison holds at their `online_sequence`. None of a batch group.
        entities: Entities looked at.
        differing: How many are not as they should be.
        moving: How many never stood still, and were right at the positions all the same.
        first: The first few that differ.
        found: How many differ, by what is wrong with them.
        copy: Of a batch group, what was compared; None of a stream group, and where nothing was ever synced.
    """

    group: str
    sources: Sequence[Source]
    entities: int = 0
    differing: int = 0
    moving: int = 0
    first: list[Difference] = field(default_factory=list)
    found: Counter[Finding] = field(default_factory=Counter)
    copy: LiveCopy | None = None

    @property
    def positions(self) -> Mapping[int, int]:
        """Position at which the comparison holds, by source id."""
        return {each.id: each.online_sequence for each in self.sources}

    def count(self, finding: Finding, keep: int, difference: Callable[[], Difference], *, entities: int = 1) -> None:
        """Count a difference; what is known of it is put together for the first `keep` only."""
        self.differing += entities
        self.found[finding] += entities
        if len(self.first) < keep:
            self.first.append(difference())
