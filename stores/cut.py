"""One consistent view of history: what training sets and exports read from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING

from oomstream.schemas.events import Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.versions import SourceKind
from oomstream.stores.revisions import Revision

if TYPE_CHECKING:
    import pyarrow as pa


_ROWS_AT_ONCE = 100_000


class Cut(ABC):
    """One consistent view of history: everything read through it is of the same moment.

    Attributes:
        now_us: The history database's clock at the cut, UTC microseconds.
        kinds: Kind of every source by id.
    """

    now_us: int
    kinds: Mapping[int, SourceKind]

    @abstractmethod
    def scan(
        self,
        group: FeatureGroup,
        features: Sequence[str],
        *,
        keys: Sequence[tuple[Plain, ...]] | None = None,
        min_event_time_us: int | None = None,
        max_event_time_us: int | None = None,
        max_ingest_time_us: int | None = None,
        batch_rows: int = 100_000,
    ) -> AsyncIterator[pa.Table]:
        """Rows of a group as Arrow tables of at most about `batch_rows`, in order of the primary key.

        Columns: the key fields (string, binary, or int64 for int, long and date), `_event_time`, `_source`,
        `_sequence`, `_ingest_time` (int64), `_deleted` (bool), then `features` in plain form (bool, int64 for
        integers, dates and times, float64, string for text, enums, decimals and arrays, binary). Order: key parts
        ascending by value (text and bytes by their bytes), then event time, source, sequence.

        Args:
            group: Whose history.
            features: Feature names, active ones.
            keys: Only these entities; None = all.
            min_event_time_us: Only rows not before it (inclusive).
            max_event_time_us: Only rows not after it (inclusive).
            max_ingest_time_us: Only rows ingested not after it (inclusive).
            batch_rows: Rows per table, about.
        """

    def scan_in_parts(
        self,
        group: FeatureGroup,
        features: Sequence[str],
        *,
        splits: Sequence[Plain],
        min_event_time_us: int | None = None,
        max_event_time_us: int | None = None,
        max_ingest_time_us: int | None = None,
        batch_rows: int = 100_000,
        versions: bool = True,
    ) -> AsyncIterator[pa.Table]:
        """The same tables as those of `scan`, of all entities, from a store that may read several parts at once.

        Args:
            group: As in `scan`.
            features: As in `scan`.
            splits: Values of the first key field, ascending, between which there are about equally many rows.
            min_event_time_us: As in `scan`.
            max_event_time_us: As in `scan`.
            max_ingest_time_us: As in `scan`.
            batch_rows: As in `scan`; fewer, where that is better.
            versions: False = `_source`, `_sequence` and `_ingest_time` are wanted only to tell which of several rows of
                one entity and event time is the newest. A table may then lack these three columns, all of them, if
                none of its rows has the entity and event time of another row of the scan.
        """
        return self.scan(
            group,
            features,
            min_event_time_us=min_event_time_us,
            max_event_time_us=max_event_time_us,
            max_ingest_time_us=max_ingest_time_us,
            batch_rows=min(batch_rows, _ROWS_AT_ONCE),
        )

    async def seek(
        self,
        group: FeatureGroup,
        features: Sequence[str],
        moments: pa.Table,
        *,
        keys: Sequence[tuple[Plain, ...]] | None = None,
        max_age_us: int | None = None,
        batch_rows: int = 100_000,
    ) -> AsyncIterator[pa.Table] | None:
        """For each moment of an entity the row that was the newest then, each looked up by itself.

        Worth it where there are fewer moments than rows: a scan reads every row. A store that cannot seek, or would
        rather scan, gives None.

        Args:
            group: Whose history.
            features: Feature names, active ones.
            moments: The key fields in order, in the forms of `scan`, then a time (int64 us); no nulls, any order.
            keys: The entities of the moments where they are few; None = not known.
            max_age_us: A row that is older than this at its moment may be left out; None = none is.
            batch_rows: Rows per table, about.

        Returns:
            None, or tables of `_moment` (int64: number of the moment, from 0), `_deleted` (bool) and `features` in
            the forms of `scan`: at most one row a moment, that of the greatest version among those of the entity with
            event time <= the moment; in any order.
        """
        return None

    @abstractmethod
    async def revisions(self, group: FeatureGroup) -> list[Revision]:
        """Published revisions of a batch group at the cut, by id; the dummy revision is one of them."""

    @abstractmethod
    def scan_revision(
        self,
        group: FeatureGroup,
        revision: Revision,
        features: Sequence[str],
        *,
        keys: Sequence[tuple[Plain, ...]] | None = None,
        batch_rows: int = 100_000,
    ) -> AsyncIterator[pa.Table]:
        """Rows of one revision as Arrow tables of at most about `batch_rows`, one row per entity, in key order.

        Columns: the key fields, then `features`, in the forms and in the order of keys of `scan`. A feature that the
        revision's table does not have (it was added later) holds its default, or null, in every row.

        Args:
            group: Whose revision, as registered.
            revision: What `revisions` gave.
            features: Feature names, active ones.
            keys: Only these entities, in any order, duplicates allowed; None = all.
            batch_rows: Rows per table, about.

        Raises:
            StoreUnavailable: `gc` dropped the revision meanwhile, or the database cannot be read: take a new cut.
            InvalidRequest: A linked table is gone, or holds what its features cannot hold; names table and column.
        """
