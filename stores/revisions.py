"""Revisions of batch groups, and their copies online.

A revision is a whole table: one row per entity, holding from the revision's time until the next one's. An import makes
a *draft*, fills it, and publishes it in one transaction; a draft that was never published is nobody's. A *sync* copies
a revision online under a prefix of its own (the sync id), and one update of the metadata flips readers from the old
copy to the new one. The old copy is purged later, when no reader can still be using the metadata of before the flip.

Source:
    design.md, section 6 (batch groups); oomcli.md (import, sync).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from oomstream.schemas.errors import InvalidEvent, InvalidRequest, Reason
from oomstream.schemas.events import Plain
from oomstream.schemas.groups import FeatureGroup


@dataclass(frozen=True, slots=True)
class Revision:
    """One state of a batch group.

    Attributes:
        id: Registered id, from 1 over all groups.
        group_id: Its group.
        time_us: From when on it is the group's state, UTC microseconds; 0 for the dummy revision.
        anchored: Whether `time_us` is fixed. It is not for a revision that was imported without a time and never
            synced: the first sync moves its time to the moment of that sync.
        table: Its table. That of a linked revision is the user's, and is never changed or dropped.
        linked: Whether the table is the user's.
        doc: Description.
        version: Definition version of the group whose features the table holds.
        create_time_us: When it was published, by the history database's clock: rows of it are not in a training set
            as of an earlier time.
        modify_time_us: When its row was last changed.
        moved: Whether its first sync gave it its time, which before was that of its publication.
    """

    id: int
    group_id: int
    time_us: int
    anchored: bool
    table: str
    linked: bool = False
    doc: str = ""
    version: int = 0
    create_time_us: int = 0
    modify_time_us: int = 0
    moved: bool = False

    @property
    def known_us(self) -> int:
        """When what it says was known at the latest, UTC microseconds: who was forgotten after that is not in it.

        Not its time alone: that may lie in the future, or be that of a later sync.
        """
        return min(self.time_us, self.create_time_us)

    def time_at(self, as_of_us: int) -> int:
        """From when on it was the group's state, as one would have said at `as_of_us`; UTC microseconds."""
        return self.create_time_us if self.moved and as_of_us < self.time_us else self.time_us

    @property
    def is_dummy(self) -> bool:
        """Whether it is the empty revision that a group's first import makes."""
        return self.time_us == 0


class RevisionRow(NamedTuple):
    """One row of a revision in plain form.

    Attributes:
        key: Entity key, in the order of the group's key fields.
        values: Active features in the order of `FeatureGroup.features`; None for a feature that the revision's
            table does not have and whose default is null, else its default.
    """

    key: tuple[Plain, ...]
    values: tuple[Plain, ...]


class SyncState(IntEnum):
    """Where an online copy is in its life."""

    WRITING = 1
    LIVE = 2
    RETIRED = 3


@dataclass(frozen=True, slots=True)
class Sync:
    """One online copy of a revision.

    Attributes:
        id: Fresh for every sync: part of the online keys, so that no copy ever overwrites another.
        group_id: Its group.
        revision_id: What it is a copy of.
        state: Where it is in its life.
        until_us: WRITING: when its lease ends; RETIRED: when it may be purged; by the history database's clock.
    """

    id: int
    group_id: int
    revision_id: int
    state: SyncState
    until_us: int = 0


class DuplicateKey(InvalidEvent):
    """A revision has one row per entity, and was given a second one.

    Attributes:
        at: Index, in the rows given, of the row whose key was there already.
    """

    def __init__(self, at: int, message: str) -> None:
        super().__init__(Reason.REJECTED_BY_STORE, message)
        self.at = at


class RevisionInUse(InvalidRequest):
    """A revision cannot be dropped: it is online, or is being written online, or is its group's dummy revision."""


class RevisionStore(ABC):
    """What a history store does for batch groups."""

    @abstractmethod
    async def revisions(self, group: FeatureGroup | None = None) -> list[Revision]:
        """Published revisions of a group (None = of all groups), by id; the dummy revision is one of them."""

    @abstractmethod
    async def begin_revision(self, group: FeatureGroup, *, doc: str = "", lease_s: float = 600.0) -> Revision:
        """Make a draft: an id and an empty table, which nobody reads before it is published. Needs DDL rights.

        A group's first draft leaves the id before its own to the dummy revision.

        Args:
            group: A batch group, as registered.
            doc: Description.
            lease_s: How long the draft stays without a `load_revision`; each prolongs it.

        Raises:
            DefinitionChanged: `group.version` is not the newest.
        """

    @abstractmethod
    async def load_revision(self, group: FeatureGroup, draft: Revision, rows: Sequence[RevisionRow]) -> None:
        """Add rows to a draft, in one transaction.

        Raises:
            DuplicateKey: A row's key is there already, in the table or earlier in `rows`; nothing was written.
            InvalidEvent: The database rejects a row for its data; nothing was written.
            Fenced: The draft is gone: its lease was over and somebody collected it.
        """

    @abstractmethod
    async def publish_revision(self, group: FeatureGroup, draft: Revision, *, time_us: int | None = None) -> Revision:
        """Make a draft a revision, in one transaction; publishes the dummy revision before a group's first one.

        Of a draft that was published already it changes nothing, so that it can be called again after a lost answer.

        Args:
            group: Its group, with the marks of forgotten entities that its rows obey (`FeatureGroup.forgets`).
            draft: What `begin_revision` gave.
            time_us: Anchor it to this time, UTC microseconds (> 0); None = now, until its first sync.

        Raises:
            Fenced: The draft is gone.
            DefinitionChanged: Entities were forgotten since the group was read, and may be in the draft: erase them.
        """

    @abstractmethod
    async def discard_revision(self, draft: Revision) -> None:
        """Drop a draft and give its ids back where nobody took later ones.

        Harmless when it is gone already, and when it was published after all (a COMMIT whose answer was lost).
        """

    @abstractmethod
    async def link_revision(
        self, group: FeatureGroup, table: str, *, time_us: int | None = None, doc: str = ""
    ) -> Revision:
        """Publish a table of the user's own, in the history database, as a revision.

        Raises:
            InvalidRequest: There is no such table, a column is missing or of a type that cannot hold its feature, a
                key is null or there twice; names the table and the column.
        """

    @abstractmethod
    async def scan_revision(
        self, group: FeatureGroup, revision: Revision, *, after: tuple[Plain, ...] | None = None, limit: int = 10_000
    ) -> list[RevisionRow]:
        """Rows of a revision in key order, from the first key greater than `after`."""

    @abstractmethod
    async def drop_revision(self, revision: Revision) -> None:
        """Forget a revision, and drop its table unless it is linked (gc). Needs DDL rights.

        Raises:
            RevisionInUse: It is online, or is being written online, or is the dummy revision.
        """

    @abstractmethod
    async def collect_drafts(self) -> int:
        """Drop drafts whose lease is over, and what a killed drop left; returns how many. Needs DDL rights."""

    @abstractmethod
    async def begin_sync(self, group: FeatureGroup, revision: Revision, *, lease_s: float) -> Sync:
        """A fresh sync id to write a revision under; nobody reads it before `flip`.

        Raises:
            UnknownRevision: The group has no such revision (any more).
        """

    @abstractmethod
    async def renew_sync(self, sync: Sync, *, lease_s: float) -> None:
        """Prolong the lease of a sync that is being written.

        Raises:
            Fenced: It was given up: its lease was over and somebody purged it.
        """

    @abstractmethod
    async def flip(
        self, group: FeatureGroup, sync: Sync, *, purge_delay_s: float, instead_of: int | None = None
    ) -> Revision:
        """Let readers see a written sync in place of the one they see now, in one update of the metadata.

        Moves the revision's time to now if it is not anchored, and anchors it. The copy that was live may be purged
        `purge_delay_s` from now. Of a sync that is live already it changes nothing.

        Args:
            group: Its group.
            sync: A written sync.
            purge_delay_s: How long the copy of before stays at least.
            instead_of: Only in place of the copy of this sync id; None = of whichever readers see.

        Returns:
            The revision as it is now.

        Raises:
            Fenced: The sync was given up, or readers see another copy than `instead_of` by now; nothing was changed.
        """

    @abstractmethod
    async def syncs(self) -> list[Sync]:
        """Every copy of which anything may be online, by id."""

    @abstractmethod
    async def live_syncs(self) -> list[Sync]:
        """The copy that readers of each group see, by group id; a group that was never synced has none."""

    @abstractmethod
    async def due_purges(self) -> list[Sync]:
        """Copies whose online rows nobody can need any more: retired and due, or given up while being written."""

    @abstractmethod
    async def claim_purge(self, sync: Sync) -> bool:
        """Give up a copy for good, so that it can be purged; False if it is live or not due (any more)."""

    @abstractmethod
    async def forget_sync(self, sync: Sync) -> None:
        """Remove the row of a copy whose online rows are gone."""
