"""Entities that were forgotten on request: what is kept of them, and how ingest knows them.

Forgetting writes a *mark* first: a keyed hash of the entity key, and a time. From then on no event of the entity with
an event time up to that time becomes a row, whoever brings it: a topic read again, a late producer, an import, a
replayed dead letter. Then what is stored is erased. The number of marks is checked inside every transaction that
writes rows, as definition versions are, so that nobody writes by an older list.

The hash keeps keys out of the list, not out of reach: who has the database and can guess a key can look it up.

Source:
    design.md, section 5 (step 2); the pairing UUID keys the hash, so that lists of two installations do not compare.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from oomstream.schemas.events import Event, Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.stores.revisions import Revision

HASH_BYTES = 20


class Mark(NamedTuple):
    """One forgotten entity.

    Attributes:
        number: Counts the marks that were ever made, from 1; a mark that is renewed gets a new one.
        entity: Name of the kind of entity.
        key_hash: What `key_hash` made of its key.
        time_us: Events up to this event time (inclusive) are forgotten, UTC microseconds.
    """

    number: int
    entity: str
    key_hash: bytes
    time_us: int


class HeldKey(NamedTuple):
    """Key of a forgotten entity, kept until its place in the online store is free.

    Attributes:
        entity: Name of the kind of entity.
        key: The key, encoded.
        until_us: Until when it is kept at least, UTC microseconds.
    """

    entity: str
    key: bytes
    until_us: int


def key_hash(pairing_id: str, entity: str, encoded_key: bytes) -> bytes:
    """Keyed hash of an entity key.

    Args:
        pairing_id: The installation's UUID.
        entity: Name of the kind of entity.
        encoded_key: The key as `oomstream.schemas.keys` encodes it.
    """
    hashed = hashlib.blake2b(encoded_key, digest_size=HASH_BYTES, key=pairing_id.encode(), person=b"oomstream forget")
    hashed.update(entity.encode())
    return hashed.digest()


class Marks:
    """All marks of an installation, for looking events up.

    Args:
        pairing_id: The installation's UUID.
    """

    def __init__(self, pairing_id: str) -> None:
        self.number = 0
        self._pairing_id = pairing_id
        self._times: dict[str, dict[bytes, int]] = {}

    def add(self, marks: Iterable[Mark]) -> None:
        """Take in marks that were made since `number`, in order of their numbers."""
        for mark in marks:
            self._times.setdefault(mark.entity, {})[mark.key_hash] = mark.time_us
            self.number = max(self.number, mark.number)

    def concern(self, entity: str, since_us: int = 0) -> bool:
        """Whether any mark of a kind of entity covers events of a time, or of later ones."""
        return any(time_us >= since_us for time_us in self._times.get(entity, {}).values())

    def cover(self, entity: str, encoded_key: bytes, event_time_us: int) -> bool:
        """Whether an event of that time is forgotten."""
        times = self._times.get(entity)
        if times is None:
            return False
        time_us = times.get(key_hash(self._pairing_id, entity, encoded_key))
        return time_us is not None and event_time_us <= time_us

    def kept(self, group: FeatureGroup, events: list[Event]) -> list[Event]:
        """Those of a group's events that are not forgotten."""
        if group.entity not in self._times:
            return events
        return [each for each in events if not self.cover(group.entity, each.entity, each.event_time_us)]


class ForgettingStore(ABC):
    """What a history store does to forget entities."""

    @abstractmethod
    async def forget(self, entity: str, keys: Sequence[bytes], *, not_before_us: int = 0, hold_s: float = 0.0) -> int:
        """Mark entities as forgotten, in one transaction.

        Their keys themselves are kept for `held_keys` until their place in the online store may be freed: writers that
        were under way when the mark was made could else bring a row back.

        Args:
            entity: Name of the kind of entity.
            keys: Encoded entity keys.
            not_before_us: The marks' time is now, or this time if it is later.
            hold_s: For how long to keep the keys.

        Returns:
            The marks' time, UTC microseconds.
        """

    @abstractmethod
    async def held_keys(self, *, due: bool = True) -> list[HeldKey]:
        """Keys that are still kept; `due`: only those that were kept long enough."""

    @abstractmethod
    async def release_keys(self, keys: Sequence[HeldKey]) -> None:
        """Keep keys no longer; a key that was forgotten anew meanwhile stays."""

    @abstractmethod
    async def marks(self, after: int = 0) -> list[Mark]:
        """Marks with a greater number, in order of their numbers."""

    @abstractmethod
    async def settle(self) -> None:
        """Wait until every transaction that was writing rows when this was called has ended.

        Afterwards nobody writes rows who did not know the marks that were there before.
        """

    @abstractmethod
    async def erase(self, group: FeatureGroup, key: tuple[Plain, ...], until_us: int) -> int:
        """Remove an entity's rows of a stream group with event times up to `until_us` (inclusive).

        In several transactions; again does no harm.

        Returns:
            How many rows were removed.
        """

    @abstractmethod
    async def erase_from_revision(
        self, group: FeatureGroup, revision: Revision, keys: Sequence[tuple[Plain, ...]]
    ) -> int:
        """Remove entities' rows from a revision's table, unless it is linked.

        Returns:
            How many rows were removed.
        """
