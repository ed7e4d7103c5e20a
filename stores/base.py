"""The two interfaces behind which feature data rests, and what passes through them.

Constructors do no I/O; ``async with store:`` opens and closes. Methods take batches. Driver exceptions never leave a
store: they become `StoreUnavailable` (retry), `InvalidEvent` (a row the database rejects for its data) or `Fatal`.
Conformance suites for both interfaces are in `oomstream.stores.testing`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from oomstream.schemas.catalog import Catalog
from oomstream.schemas.events import Event, Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.online_value import OnlineRow
from oomstream.schemas.versions import SourceKind
from oomstream.stores.cut import Cut as Cut
from oomstream.stores.forgetting import ForgettingStore
from oomstream.stores.lost_records import LostRecords
from oomstream.stores.retention import RetentionStore
from oomstream.stores.revisions import RevisionStore

if TYPE_CHECKING:
    from oomstream.schemas.plan import Plan


class SourceName(NamedTuple):
    """What identifies a source from outside.

    Attributes:
        kind: file, push or topic.
        name: Topic, file name, or ``local`` for pushes.
        incarnation: Kafka topic id, SHA-256 of the file, or a UUID.
        partition: Partition of a topic; 0 otherwise.
    """

    kind: SourceKind
    name: str
    incarnation: str
    partition: int = 0


class DlqCounts(NamedTuple):
    """What the dead-letter limit remembers of a source, kept beside its position so that a restart does not forget.

    Attributes:
        consecutive: Dead letters since the last valid event.
        window_records: Records in the current window.
        window_letters: Dead letters among them.
    """

    consecutive: int = 0
    window_records: int = 0
    window_letters: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """A source and its position, as one moment of the history database has them.

    Attributes:
        id: Small id, in order of first sight.
        name: What identifies it.
        owner: Fence: raised by every claim; writes with an older one are refused.
        next_sequence: First sequence that is not in history (or dead-lettered) yet.
        online_sequence: First sequence whose online row may not be written yet; at most `next_sequence`.
        last_ingest_time_us: Ingest time of its newest batch, which later ones never fall behind.
        dlq: What the dead-letter limit remembers.
    """

    id: int
    name: SourceName
    owner: int
    next_sequence: int
    online_sequence: int
    last_ingest_time_us: int
    dlq: DlqCounts = DlqCounts()


@dataclass(frozen=True, slots=True)
class HistoryBatch:
    """What one history transaction writes: rows of one group and the position after them.

    Attributes:
        group: The definition version that the events were decoded with.
        events: In order of sequence; may be empty (only the position moves).
        next_sequence: Position after the batch, dead letters included.
        online_sequence: Up to where online rows are known to be written.
        dlq: What the dead-letter limit remembers after the batch.
        lost: What lies between the position and `next_sequence` was never read, and that is recorded.
    """

    group: FeatureGroup
    events: Sequence[Event]
    next_sequence: int
    online_sequence: int
    dlq: DlqCounts = DlqCounts()
    lost: bool = False


class HistoryRow(NamedTuple):
    """One row of history in plain form.

    Attributes:
        key: Entity key, in the order of the group's key fields.
        event_time_us: UTC microseconds.
        source_id: Its source.
        sequence: Its place in the source.
        ingest_time_us: The history database's clock in the transaction that wrote it.
        deleted: Whether it is a delete.
        values: Active features in the order of `FeatureGroup.features` (all None for a delete).
    """

    key: tuple[Plain, ...]
    event_time_us: int
    source_id: int
    sequence: int
    ingest_time_us: int
    deleted: bool
    values: tuple[Plain, ...]


class Replayed(NamedTuple):
    """What a replay left in history.

    Attributes:
        rows: What history holds under the identities of the replayed events, by sequence: written now or before. An
            event without a row is the source's owner's to take: its sequence is not below the position yet.
        written: Sequences of the rows that were written now.
    """

    rows: list[HistoryRow]
    written: frozenset[int]


class _Opened(ABC):
    """What both stores share: a URL, opening and closing."""

    url: str
    """The store's URL with its password masked, for messages."""

    one_writer: bool = False
    """Whether only one transaction can write at a time, so that a client which freezes in one stops all writers."""

    @abstractmethod
    async def open(self) -> None:
        """Connect.

        Raises:
            StoreUnavailable: The store cannot be reached within its deadline; names the URL and what to do.
        """

    @abstractmethod
    async def close(self) -> None:
        """Give back every connection; harmless when called twice or never opened."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class OnlineRead(NamedTuple):
    """What `OnlineStore.read_aged` found, and of when it is.

    Attributes:
        values: Stored values, one per key in the order asked; None where there is none.
        age_us: How long before the read the store was in that state, microseconds; 0 = at the read.
    """

    values: list[bytes | None]
    age_us: int = 0


class OnlineChange(NamedTuple):
    """What is to become of one row, if it still is as it was found.

    Attributes:
        key: Stored key.
        found: The value that was found; the row is changed only while it has exactly these bytes.
        value: What to store in its place, whatever its version; None removes the row.
    """

    key: bytes
    found: bytes
    value: bytes | None


class OnlineStore(_Opened):
    """The newest value per entity, as encoded rows (see `oomstream.schemas.online_value`)."""

    @abstractmethod
    async def init(self) -> None:
        """Make what the store needs (tables); again does no harm."""

    @abstractmethod
    async def pairing_id(self) -> str | None:
        """UUID of the history database this store belongs to; None before `pair`."""

    @abstractmethod
    async def pair(self, pairing_id: str) -> None:
        """Remember the history database this store belongs to."""

    @abstractmethod
    async def upsert_newer(self, rows: Sequence[OnlineRow], *, or_equal: bool = False) -> int:
        """Write each row whose version is greater than that of the stored row of its key, or whose key is new.

        Atomic per row: a concurrent writer's newer row is never overwritten. Not atomic over rows.

        Args:
            rows: At most one per key, in any order.
            or_equal: Also overwrite a row of equal version (repair).

        Returns:
            How many rows were written.

        Raises:
            StoreUnavailable: Some rows may have been written; doing it again is harmless.
        """

    @abstractmethod
    async def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Stored values, one per key in the order asked; None where there is none. All of one moment."""

    async def read_aged(self, keys: Sequence[bytes]) -> OnlineRead:
        """What `read` does, for serving: answers at once, if need be with what the store held a little earlier.

        In a store of transactions, a writer that was killed can leave rows that nobody may read for a few seconds;
        `read` waits for them. A store in which that cannot happen need not override this.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        return OnlineRead(await self.read(keys))

    @abstractmethod
    async def scan(self, prefix: bytes, *, after: bytes | None = None, limit: int = 1000) -> list[OnlineRow]:
        """Rows whose key begins with `prefix`, in key order, from the first key greater than `after`."""

    @abstractmethod
    async def replace(self, changes: Sequence[OnlineChange]) -> int:
        """Change or remove each row whose stored bytes are still exactly those that were found (repair).

        Atomic per row: what a concurrent writer has written since is never touched. Not atomic over rows.

        Args:
            changes: At most one per key, in any order.

        Returns:
            How many rows were changed or removed.

        Raises:
            StoreUnavailable: Some rows may have been changed; doing it again is harmless.
        """

    @abstractmethod
    async def delete(self, keys: Sequence[bytes]) -> None:
        """Remove rows altogether (purge); a delete event is an `upsert_newer` of a row that says so."""

    async def gc(self, older_than_s: float = 600.0) -> bool:
        """Let the store forget values that were replaced long ago, where it keeps them and nobody else tells it to.

        Args:
            older_than_s: Values replaced within the last so many seconds are kept for reads under way; at least 600.

        Returns:
            Whether the store may forget more than before; False in a store that keeps no replaced values.

        Raises:
            InvalidSetting: `older_than_s` is less than 600.
            StoreUnavailable: Do it again.
        """
        return False


class HistoryStore(_Opened, RevisionStore, ForgettingStore, RetentionStore):
    """Every row of every group, the catalog, and the sources with their positions."""

    transaction_limit_s: float
    """No transaction lasts longer: rows with an ingest time older than this are all visible (see `as_of`)."""

    @abstractmethod
    async def init(self) -> str:
        """Make the metadata tables and the pairing UUID; again does no harm. Needs DDL rights.

        Returns:
            The pairing UUID.
        """

    @abstractmethod
    async def pairing_id(self) -> str | None:
        """The pairing UUID; None before `init`."""

    @abstractmethod
    async def load_catalog(self) -> Catalog:
        """All registered definitions at one moment."""

    @abstractmethod
    async def apply(self, plan: Plan) -> Catalog:
        """Carry out a plan: alter tables first (repeatable), then publish in one transaction. Needs DDL rights.

        Raises:
            InvalidDefinition: The catalog is no longer the one that the plan was made from.
        """

    @abstractmethod
    async def sources(self) -> list[Source]:
        """All sources, by id."""

    @abstractmethod
    async def find_source(self, name: SourceName) -> Source | None:
        """A source by name, without claiming it."""

    @abstractmethod
    async def claim(self, name: SourceName, *, start: int = 0) -> Source:
        """Become the source's only owner: raise its fence by one. A source never seen begins at `start`."""

    @abstractmethod
    async def lease_push_source(self, lease_s: float) -> Source:
        """Claim a push source whose lease has run out (oldest unfinished first), or make a new one."""

    @abstractmethod
    async def renew_lease(self, source: Source, lease_s: float) -> None:
        """Prolong a lease; 0 gives it back.

        Raises:
            Fenced: Somebody else has taken the source.
        """

    @abstractmethod
    async def unfinished_push_sources(self) -> list[Source]:
        """Push sources with no live lease whose online rows may lag behind history (a writer was killed)."""

    @abstractmethod
    async def append(self, source: Source, batch: HistoryBatch) -> int:
        """Write a batch and the position after it in one transaction, behind the fence.

        An event whose identity (source, sequence) is stored already is left as it is.

        Returns:
            The batch's ingest time, UTC microseconds by the history database's clock.

        Raises:
            Fenced: `source.owner` is not the owner any more; nothing was written.
            DefinitionChanged: `batch.group.version` is not the newest; nothing was written.
            InvalidEvent: The database rejects a row for its data; nothing was written: halve the batch.
            StoreUnavailable: The outcome may be unknown: claim again, which tells.
        """

    @abstractmethod
    async def append_replayed(self, source_id: int, group: FeatureGroup, events: Sequence[Event]) -> Replayed:
        """Write events of a source that were dead letters and are valid by now, in one transaction.

        Anybody may do it, beside the source's owner and beside others who replay the same: owner, position and what
        the dead-letter limit remembers stay as they are. An event whose identity is stored already is left as it is,
        and one whose sequence is not below the position is not written. Rows have the ingest time of this transaction,
        which is never before that of an earlier row of the source.

        Args:
            source_id: The source.
            group: The definition version that the events were decoded with.
            events: In order of sequence; a few hundred, so that the source's owner is not held up.

        Raises:
            InvalidRequest: There is no such source.
            DefinitionChanged: `group.version` is not the newest; nothing was written.
            InvalidEvent: The database rejects a row for its data; nothing was written: halve the batch.
            StoreUnavailable: The outcome may be unknown; do it again.
        """

    @abstractmethod
    async def lost_records(self) -> list[LostRecords]:
        """What batches marked as `lost` have skipped, by source and start."""

    @abstractmethod
    async def mark_online(self, source: Source, online_sequence: int) -> None:
        """Store how far online rows are written (at idle, revoke and shutdown).

        Raises:
            Fenced: `source.owner` is not the owner any more.
        """

    @abstractmethod
    async def rows_of_source(
        self, group: FeatureGroup, source_id: int, start: int, end: int, *, limit: int = 10_000
    ) -> list[HistoryRow]:
        """Rows with `start` <= sequence < `end` of one source, by sequence, at most `limit`."""

    @abstractmethod
    async def rows_at(self, group: FeatureGroup, source_id: int, sequences: Collection[int]) -> list[HistoryRow]:
        """Rows of one source at those of the sequences that have one, by sequence."""

    @abstractmethod
    async def identities_in_history(self, group: FeatureGroup, source_id: int, sequences: Collection[int]) -> set[int]:
        """Those of the sequences of one source that have a row in the group's history.

        A dead letter whose identity is in history has been replayed (or was taken in the end by a worker).

        Args:
            group: The group of the source's topic.
            source_id: The source.
            sequences: Any number, in any order.

        Raises:
            StoreUnavailable: Do it again.
        """

    @abstractmethod
    async def newest(self, group: FeatureGroup, keys: Sequence[tuple[Plain, ...]]) -> list[HistoryRow | None]:
        """The row of greatest version of each entity, in the order asked; None where there is none."""

    @abstractmethod
    async def scan_newest(
        self, group: FeatureGroup, *, after: tuple[Plain, ...] | None = None, limit: int = 10_000
    ) -> list[HistoryRow]:
        """The row of greatest version of every entity, in key order, from the first key greater than `after`."""

    @abstractmethod
    def cut(self) -> AbstractAsyncContextManager[Cut]:
        """Take one consistent view of history for as long as the context lasts."""
