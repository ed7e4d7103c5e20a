"""Whether one entity's online row is its row of greatest version, and if not, how the two differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.errors import InvalidEvent
from oomstream.schemas.events import Plain
from oomstream.schemas.online_value import OnlineRow, OnlineValue, decode_value
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.base import HistoryRow, HistoryStore, Source
from oomstream.stores.rebuild import online_row
from oomstream.streams.retention import is_over


class Finding(StrEnum):
    """How an entity's online row differs from history."""

    MISSING = "missing online"
    OLDER = "older than history"
    UNKNOWN = "not in history"
    DIFFERENT = "same version, other values"
    UNREADABLE = "unreadable online"
    UNREADABLE_HISTORY = "unreadable in history"
    UNSEALED = "no reader can use its copy, which has no seal"


@dataclass(frozen=True, slots=True)
class Side:
    """What one of two sides has of an event.

    Attributes:
        version: Its version.
        deleted: Whether it is a delete.
        ingest_time_us: When its history row was written; None where the side does not say.
        values: Values of active features by name in plain form; empty for a delete, None if they cannot be read.
    """

    version: Version
    deleted: bool
    ingest_time_us: int | None = None
    values: Mapping[str, Plain] | None = field(default=None, hash=False)


class Judge:
    """Compares rows of one group.

    Args:
        registered: The group as the catalog holds it.
    """

    def __init__(self, registered: RegisteredGroup) -> None:
        self.group = registered.group
        self._horizon_us = registered.horizon_us
        self._codec = BodyCodec(registered)
        self._names = [each.name for each in registered.group.features]

    def finding(self, value: bytes | None, row: HistoryRow | None, kinds: Mapping[int, SourceKind]) -> Finding | None:
        """How the bytes stored online differ from what the newest row stands for; None if they do not.

        Bytes of an older definition are right if they read as the same values.

        Args:
            value: What is stored online.
            row: The entity's newest row.
            kinds: Kind of every source by id, that of the row included.
        """
        if row is None:
            return None if value is None or _stands_for_forgotten(value) else Finding.UNKNOWN
        if value is None:
            return None if is_over(self.group, row, self._horizon_us) else Finding.MISSING
        try:
            stored = decode_value(value)
        except ValueError:
            return Finding.UNREADABLE
        version = version_of(row, kinds)
        if stored.version != version:
            return Finding.UNKNOWN if stored.version > version else Finding.OLDER
        return self.of_equal_versions(stored, row, kinds)

    def of_equal_versions(
        self, stored: OnlineValue, row: HistoryRow, kinds: Mapping[int, SourceKind]
    ) -> Finding | None:
        """What differs between an online value and the row of the same version."""
        if stored.deleted is not row.deleted or stored.ingest_time_us != row.ingest_time_us:
            return Finding.DIFFERENT
        wanted = self.wanted(row, kinds)
        if wanted is None:
            return Finding.UNREADABLE_HISTORY
        right = decode_value(wanted.value)
        if (stored.fingerprint, stored.body) == (right.fingerprint, right.body):
            return None
        if row.deleted:
            return Finding.DIFFERENT if stored.body else None
        try:
            same = self._codec.read(stored.fingerprint, stored.body) == self._codec.read(right.fingerprint, right.body)
        except InvalidEvent:
            return Finding.UNREADABLE
        # Bytes under the newest definition are exact, those under an older one must say the same.
        return None if same and stored.fingerprint != right.fingerprint else Finding.DIFFERENT

    def wanted(self, row: HistoryRow, kinds: Mapping[int, SourceKind]) -> OnlineRow | None:
        """The online row that a history row stands for; None if the row holds what the group's types do not."""
        try:
            return online_row(self._codec, row, kinds[row.source_id])
        except Exception:  # fastavro raises whatever it meets
            return None

    def canonical(self, row: HistoryRow) -> bytes | None:
        """The body that a history row stands for; None if the row holds what the group's types do not."""
        try:
            return b"" if row.deleted else self._codec.encode(row.key, row.event_time_us, row.values)
        except Exception:  # fastavro raises whatever it meets
            return None

    def values(self, body: bytes) -> tuple[Plain, ...]:
        """Values in a body under the newest definition, in plain form."""
        return self._codec.read(self.group.fingerprint, body)

    def online_side(self, value: bytes | None) -> Side | None:
        """What is online; None where nothing is, or nothing that can be read."""
        try:
            stored = None if value is None else decode_value(value)
        except ValueError:
            return None
        if stored is None:
            return None
        try:
            values = () if stored.deleted else self._codec.read(stored.fingerprint, stored.body)
        except InvalidEvent:
            return Side(stored.version, stored.deleted, stored.ingest_time_us)
        named = dict(zip(self._names, values, strict=False))
        return Side(stored.version, stored.deleted, stored.ingest_time_us, named)

    def history_side(self, row: HistoryRow | None, kinds: Mapping[int, SourceKind]) -> Side | None:
        """What is in history; None where nothing is."""
        if row is None:
            return None
        named = {} if row.deleted else dict(zip(self._names, row.values, strict=True))
        return Side(version_of(row, kinds), row.deleted, row.ingest_time_us, named)


class NewestTerms:
    """The terms of a group's newest definition, for work that goes on while definitions change.

    A row written under a definition comes after its publication. So whoever reads rows, and then finds that the
    definition is still the one known, has read all that they say.

    Args:
        history: Open history store.
        registered: The group as the catalog held it.
    """

    def __init__(self, history: HistoryStore, registered: RegisteredGroup) -> None:
        self.judge = Judge(registered)
        self._history = history

    async def changed(self) -> bool:
        """Look at the catalog; whether `judge` is another now, so that what was read before must be read again.

        Raises:
            StoreUnavailable: The history database could not be read.
        """
        group = self.judge.group
        registered = (await self._history.load_catalog()).groups[group.name]
        if registered.group.version == group.version:
            return False
        self.judge = Judge(registered)
        return True


def version_of(row: HistoryRow, kinds: Mapping[int, SourceKind]) -> Version:
    """Version of a history row."""
    return Version(row.event_time_us, kinds[row.source_id], row.source_id, row.sequence)


def kinds_of(sources: list[Source]) -> dict[int, SourceKind]:
    """Kind of every source by id."""
    return {each.id: each.name.kind for each in sources}


def _stands_for_forgotten(value: bytes) -> bool:
    try:
        return decode_value(value).forgotten
    except ValueError:
        return False
