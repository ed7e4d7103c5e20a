"""History, catalog and sources in an SQL database."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from oomstream.schemas.catalog import Catalog
from oomstream.schemas.errors import InvalidEvent, InvalidSetting, Reason, StoreUnavailable
from oomstream.schemas.events import Event, Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.plan import Plan
from oomstream.stores.base import Cut, HistoryBatch, HistoryRow, HistoryStore, Replayed, Source, SourceName
from oomstream.stores.crash_points import reach
from oomstream.stores.lost_records import LostRecords
from oomstream.stores.settings import Settings
from oomstream.stores.sql.database import Database
from oomstream.stores.sql.definitions import Definitions
from oomstream.stores.sql.dialects import Clock, CutPlace, InsertText, dialect_of
from oomstream.stores.sql.forgetting import SqlForgettingStore
from oomstream.stores.sql.identities import rows_at, stored_sequences
from oomstream.stores.sql.newest import newest_of, newest_page
from oomstream.stores.sql.retention import SqlRetentionStore
from oomstream.stores.sql.revision_store import SqlRevisionStore
from oomstream.stores.sql.revisions import Revisions
from oomstream.stores.sql.sources import Sources
from oomstream.stores.sql.tables import HistoryTable, MetaTables, make_missing
from oomstream.stores.urls import StoreUrl

_T = TypeVar("_T")

_PAIRING = "pairing_id"
_FORMAT = "format"
_DDL_CALLS = 10
_SCAN_CALLS = 10
"""Servers go through all rows of a page's entities, which may be many."""
TRANSACTION_LIMIT_S = 30.0
"""How long a transaction may last, in every process on a database: what one process's `as_of` takes as settled must not
depend on another's settings."""

FORMAT = "1"
"""Format of the tables that this version makes and reads."""


class SqlHistoryStore(SqlRevisionStore, SqlForgettingStore, SqlRetentionStore, HistoryStore):
    """Every row of every group, the catalog and the sources in one SQL database; for SQLite, a file.

    Used from one event loop.

    Args:
        url: Where, for example ``sqlite:///history.db``.
        settings: Gives the deadline of a call, which is never more than `TRANSACTION_LIMIT_S`.
        clock: The database's clock where the engine has none of its own (SQLite), UTC microseconds.
        monotonic: Measures how long a transaction lasts, in seconds.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        *,
        clock: Clock | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        parsed = StoreUrl.parse(url)
        self.url = str(parsed)
        call_timeout_s = min(settings.call_timeout_us / 1e6, TRANSACTION_LIMIT_S)
        self._monotonic = monotonic
        self._dialect = dialect_of(parsed, settings, clock)
        self.one_writer = self._dialect.one_writer
        self.transaction_limit_s = TRANSACTION_LIMIT_S + self._dialect.commit_slack_s
        self._database = Database(parsed, self._dialect, what="history store", call_timeout_s=call_timeout_s)
        self._tables = MetaTables(self._dialect)
        self._sources = Sources(self._tables, self._dialect)
        self._definitions = Definitions(self._tables, self._dialect)
        self._revisions = Revisions(self._tables, self._dialect)
        self._history: dict[tuple[str, int, bytes], HistoryTable] = {}

    def _table(self, group: FeatureGroup) -> HistoryTable:
        identity = (group.name, group.version, group.fingerprint)
        if identity not in self._history:
            self._history[identity] = HistoryTable(group, self._dialect)
        return self._history[identity]

    async def open(self) -> None:
        """Connect, if the database is there."""
        await self._database.open()

    async def close(self) -> None:
        """Give back every connection."""
        await self._database.close()

    async def init(self) -> str:
        """Make the database, its metadata tables and the pairing UUID."""
        await self._database.create()

        async def make(connection: AsyncConnection) -> str:
            await connection.run_sync(make_missing, self._tables.metadata)
            pairing_id = await self._meta(connection, _PAIRING)
            if pairing_id is None:
                pairing_id = str(uuid.uuid4())
                rows = [{"name": _PAIRING, "value": pairing_id}, {"name": _FORMAT, "value": FORMAT}]
                await connection.execute(sa.insert(self._tables.meta), rows)
            return pairing_id

        return await self._database.transact(make, calls=_DDL_CALLS)

    async def pairing_id(self) -> str | None:
        """The pairing UUID.

        Raises:
            InvalidSetting: The tables are of a format that this version does not know.
        """
        if not await self._database.exists():
            return None
        try:
            async with self._database.read() as connection:
                pairing_id, found = await self._meta(connection, _PAIRING), await self._meta(connection, _FORMAT)
        except InvalidSetting:
            return None
        if pairing_id is not None and found != FORMAT:
            raise InvalidSetting(f"{self._database.where} has tables of format {found}; this version reads {FORMAT}")
        return pairing_id

    async def _meta(self, connection: AsyncConnection, name: str) -> str | None:
        meta = self._tables.meta
        value = await connection.scalar(sa.select(meta.c.value).where(meta.c.name == name))
        return None if value is None else str(value)

    async def load_catalog(self) -> Catalog:
        """All registered definitions at one moment."""
        async with self._database.read() as connection:
            return await self._definitions.load(connection)

    async def apply(self, plan: Plan) -> Catalog:
        """Alter tables, then publish; on SQLite all in one transaction, elsewhere DDL commits by itself."""

        async def carry_out(connection: AsyncConnection) -> Catalog:
            async with self._dialect.catalog_lock(connection):
                await self._definitions.check(connection, plan)
                for each in plan.groups:
                    await self._definitions.alter_table(connection, each, HistoryTable(each.new, self._dialect))
                await self._definitions.publish(connection, plan)
                catalog = await self._definitions.load(connection)
                await connection.commit()  # before others get the lock
                return catalog

        return await self._database.transact(carry_out, calls=_DDL_CALLS)

    async def sources(self) -> list[Source]:
        """All sources, by id."""
        async with self._database.read() as connection:
            return await self._sources.all(connection)

    async def find_source(self, name: SourceName) -> Source | None:
        """A source by name."""
        async with self._database.read() as connection:
            return await self._sources.find(connection, name)

    async def claim(self, name: SourceName, *, start: int = 0) -> Source:
        """Raise the source's fence by one."""
        return await self._database.transact(
            lambda connection: self._sources.claim(connection, name, start), shared=True
        )

    async def lease_push_source(self, lease_s: float) -> Source:
        """Claim a free push source or make one."""
        return await self._database.transact(lambda connection: self._sources.lease(connection, int(lease_s * 1e6)))

    async def renew_lease(self, source: Source, lease_s: float) -> None:
        """Prolong a lease; 0 gives it back."""
        lease_us = int(lease_s * 1e6)
        await self._database.transact(lambda connection: self._sources.renew(connection, source, lease_us))

    async def unfinished_push_sources(self) -> list[Source]:
        """Push sources that a killed writer left behind."""
        async with self._database.read() as connection:
            return await self._sources.unfinished(connection)

    async def append(self, source: Source, batch: HistoryBatch) -> int:
        """The steps of the history transaction, in this order.

        1. The fence UPDATE: position, ingest time and dead-letter counts, only if the owner is still ours.
        2. The definition version, and the position before the batch: events below it were decided before.
        3. The rows.
        4. The transaction's age: a process that was frozen must not commit rows of a time that readers take as
           settled (`transaction_limit_s`).
        """
        table = self._table(batch.group)
        insert = table.insert_new

        async def write(connection: AsyncConnection) -> int:
            nonlocal insert
            # Behind the position there are no rows, and so none is stored already. Where that is not so (a database
            # that was restored in parts), the transaction conflicts, and those rows stay as they are the second time.
            chosen, insert = insert, table.insert
            decided, ingest_time_us = await self._sources.move(connection, source, batch)
            if batch.lost and decided < batch.next_sequence:
                await self._sources.record_lost(connection, source, decided, batch.next_sequence, ingest_time_us)
            await self._insert(connection, chosen, _new_rows(table, batch.events, decided, source.id, ingest_time_us))
            return ingest_time_us

        return await self._commit(write, len(batch.events) * len(table.table.c))

    async def lost_records(self) -> list[LostRecords]:
        """What was skipped unread, by source and start."""
        async with self._database.read() as connection:
            return await self._sources.lost(connection)

    async def append_replayed(self, source_id: int, group: FeatureGroup, events: Sequence[Event]) -> Replayed:
        """The steps of a replay's transaction, in this order.

        1. The lock on the source, which its owner's transactions and other replays want too: from here on the
           position stands still, and nobody else writes rows of the source.
        2. The definition version, and which identities are stored.
        3. The others below the position become rows, with an ingest time behind all that the source has.
        4. The transaction's age, as in `append`.
        """
        table = self._table(group)

        async def write(connection: AsyncConnection) -> Replayed:
            position = await self._sources.hold(connection, source_id, group)
            sequences = {event.sequence for event in events}
            stored = await stored_sequences(connection, table, source_id, sequences)
            new = [event for event in events if event.sequence < position and event.sequence not in stored]
            if new:
                ingest_time_us = await self._sources.raise_ingest_time(connection, source_id)
                await self._insert(connection, table.insert, _new_rows(table, new, 0, source_id, ingest_time_us))
            rows = await rows_at(connection, table, source_id, sequences)
            return Replayed(rows, frozenset(event.sequence for event in new))

        return await self._commit(write, len(events) * len(table.table.c))

    async def _insert(self, connection: AsyncConnection, insert: InsertText, rows: list[tuple[Plain, ...]]) -> None:
        if rows:
            await self._dialect.insert(connection, insert, rows)

    def _check_age(self, began: float) -> None:
        lasted = self._monotonic() - began
        if lasted >= TRANSACTION_LIMIT_S:
            raise StoreUnavailable(f"{self._database.where}: a transaction took {lasted:.1f} s; rolled back")
        reach("before_history_commit")

    async def _commit(self, write: Callable[[AsyncConnection], Awaitable[_T]], values: int) -> _T:
        """A transaction that writes rows of history, perhaps together with others of this process."""
        began = 0.0

        async def timed(connection: AsyncConnection) -> _T:
            nonlocal began
            began = self._monotonic()
            return await write(connection)

        try:
            result = await self._database.transact(
                timed, shared=True, values=values, before_commit=lambda: self._check_age(began)
            )
        except (UnicodeEncodeError, OverflowError) as exc:  # the driver cannot even bind the value
            raise InvalidEvent(
                Reason.REJECTED_BY_STORE, f"{self._database.where} rejects a row for its data ({type(exc).__name__})"
            ) from None  # the exception holds the value
        reach("after_history_commit")
        return result

    async def mark_online(self, source: Source, online_sequence: int) -> None:
        """Store how far online rows are written."""
        await self._database.transact(
            lambda connection: self._sources.mark_online(connection, source, online_sequence), shared=True
        )

    async def rows_of_source(
        self, group: FeatureGroup, source_id: int, start: int, end: int, *, limit: int = 10_000
    ) -> list[HistoryRow]:
        """Rows of one source between two positions, by the secondary index."""
        table = self._table(group)
        own = table.table.c
        query = (
            sa.select(*table.columns)
            .where(own["_source"] == source_id, own["_sequence"] >= start, own["_sequence"] < end)
            .order_by(own["_sequence"])
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [table.history_row(row) for row in await connection.execute(query)]

    async def rows_at(self, group: FeatureGroup, source_id: int, sequences: Collection[int]) -> list[HistoryRow]:
        """Rows of some identities, by the secondary index; all of one moment."""
        async with self._database.read() as connection:
            return await rows_at(connection, self._table(group), source_id, sequences)

    async def identities_in_history(self, group: FeatureGroup, source_id: int, sequences: Collection[int]) -> set[int]:
        """Those of the sequences that have a row, by the secondary index; all of one moment."""
        async with self._database.read() as connection:
            return await stored_sequences(connection, self._table(group), source_id, sequences)

    async def newest(self, group: FeatureGroup, keys: Sequence[tuple[Plain, ...]]) -> list[HistoryRow | None]:
        """The row of greatest version of each entity, all of one moment."""
        async with self._database.read() as connection:
            return await newest_of(connection, self._table(group), self._tables, keys)

    async def scan_newest(
        self, group: FeatureGroup, *, after: tuple[Plain, ...] | None = None, limit: int = 10_000
    ) -> list[HistoryRow]:
        """The row of greatest version of every entity, in key order."""
        async with self._database.read(calls=_SCAN_CALLS) as connection:
            return await newest_page(connection, self._table(group), self._tables, after, limit)

    @asynccontextmanager
    async def cut(self) -> AsyncIterator[Cut]:
        """One read transaction on a connection of its own."""
        database = self._database
        place = CutPlace(database.url, database.where, database.call_timeout_s, self._tables, self._table)
        async with self._dialect.cut(place) as cut:
            yield cut


def _new_rows(
    table: HistoryTable, events: Sequence[Event], decided: int, source_id: int, ingest_time_us: int
) -> list[tuple[Plain, ...]]:
    """Rows of the events whose sequence is not decided yet; the same sequence a second time is left out."""
    new: list[Event] = []
    for event in events:
        sequence = event[0]
        if sequence >= decided:
            new.append(event)
            decided = sequence + 1
    return table.rows(new, source_id, ingest_time_us)
