"""Batch groups in an SQL database: the part of the history store that `oomstream.stores.revisions` describes.

DDL commits by itself on servers. So a table is made after its row is committed, and dropped before its row is removed:
whatever is killed in between leaves a row that says so, and `collect_drafts` finishes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateTable

from oomstream.schemas.errors import InvalidEvent, InvalidRequest, InvalidSetting, OomstreamError, Reason
from oomstream.schemas.events import Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.stores.crash_points import reach
from oomstream.stores.revisions import DuplicateKey, Revision, RevisionInUse, RevisionRow, RevisionStore, Sync
from oomstream.stores.sql.database import Database
from oomstream.stores.sql.dialects import Conflict, Dialect
from oomstream.stores.sql.linking import check_linked
from oomstream.stores.sql.revision_tables import RevisionForm, RevisionTable, stored_columns
from oomstream.stores.sql.revisions import Revisions
from oomstream.stores.sql.text import quote_name

_DDL_CALLS = 10
_CHECK_CALLS = 20
"""Deadline of looking through a linked table, in deadlines of a call."""


class _KeyIsThere(Exception):
    """A primary key is there already: nothing to try again."""


class SqlRevisionStore(RevisionStore):
    """Revisions and copies in one SQL database."""

    _database: Database
    _dialect: Dialect
    _revisions: Revisions

    async def revisions(self, group: FeatureGroup | None = None) -> list[Revision]:
        """Published revisions, by id."""
        async with self._database.read() as connection:
            return await self._revisions.all(connection, None if group is None else group.id)

    async def begin_revision(self, group: FeatureGroup, *, doc: str = "", lease_s: float = 600.0) -> Revision:
        """The draft's row, then its table, and before it that of the group's dummy revision."""
        return await self._begin(group, doc, lease_s, with_table=True)

    async def _begin(self, group: FeatureGroup, doc: str, lease_s: float, *, with_table: bool) -> Revision:
        lease_us = int(lease_s * 1e6)
        draft, dummy = await self._database.transact(
            lambda connection: self._revisions.begin(connection, group, doc, lease_us)
        )
        try:
            if dummy is not None:
                await self._make_table(group, dummy)
            if with_table:
                await self._make_table(group, draft)
        except BaseException:
            with suppress(OomstreamError):
                await self.discard_revision(draft)
            raise
        return draft

    async def _make_table(self, group: FeatureGroup, revision: Revision) -> None:
        table = RevisionTable(group, revision.table, self._dialect)

        async def make(connection: AsyncConnection) -> None:
            if await stored_columns(connection, revision.table, self._dialect):
                if revision.is_dummy:
                    return
                await self._drop_leftover(connection, revision.table)
            await connection.execute(CreateTable(table.table))

        await self._database.transact(make, calls=_DDL_CALLS)

    async def _drop_leftover(self, connection: AsyncConnection, table: str) -> None:
        name = quote_name(table, self._dialect.quote)
        if (await connection.exec_driver_sql(f"SELECT 1 FROM {name} LIMIT 1")).first() is not None:  # noqa: S608
            raise InvalidRequest(f"a table {table} that is no revision's is there and holds rows; rename or drop it")
        await connection.exec_driver_sql(f"DROP TABLE {name}")

    async def load_revision(self, group: FeatureGroup, draft: Revision, rows: Sequence[RevisionRow]) -> None:
        """The draft's lease, which is the fence, then the rows, through the engine's fast insert."""
        _refuse_twins(draft, rows)
        if not rows:
            return
        table = RevisionTable(group, draft.table, self._dialect)

        async def write(connection: AsyncConnection) -> None:
            await self._revisions.touch(connection, draft)
            try:
                await self._dialect.insert(connection, table.insert, [(*row.key, *row.values) for row in rows])
            except DBAPIError as exc:
                if self._dialect.is_duplicate(exc.orig or exc):
                    raise _KeyIsThere from exc
                raise
            reach("before_revision_commit")

        try:
            await self._database.transact(write)
        except _KeyIsThere as exc:
            raise await self._first_twin(group, draft, rows) from exc.__cause__
        except (UnicodeEncodeError, OverflowError) as exc:  # the driver cannot even bind the value
            raise InvalidEvent(
                Reason.REJECTED_BY_STORE, f"{self._database.where} rejects a row for its data ({type(exc).__name__})"
            ) from None  # the exception holds the value
        reach("after_revision_commit")

    async def _first_twin(
        self, group: FeatureGroup, draft: Revision, rows: Sequence[RevisionRow]
    ) -> DuplicateKey | Conflict:
        """Which of the rows is in the table already."""
        async with self._database.read(calls=_DDL_CALLS) as connection:
            form = await self._form(connection, group, draft)
            stored = await form.which(connection, [row.key for row in rows])
        for at, row in enumerate(rows):
            if row.key in stored:
                return _twin(draft, at)
        return Conflict(f"{self._database.where}: another client wrote the same row of {draft.table}")

    async def publish_revision(self, group: FeatureGroup, draft: Revision, *, time_us: int | None = None) -> Revision:
        """One transaction."""
        _check_time(time_us)
        published = await self._database.transact(
            lambda connection: self._revisions.publish(connection, draft, time_us, forgets=group.forgets)
        )
        reach("after_publish")
        return published

    async def discard_revision(self, draft: Revision) -> None:
        """The row is marked, the table dropped, the row removed and its id given back."""
        dropped = await self._database.transact(lambda connection: self._revisions.give_up(connection, draft))
        await self._finish_drops(dropped, give_back=True)

    async def collect_drafts(self) -> int:
        """Rows are marked, tables dropped, rows removed; their ids stay used, as their writers may still live."""
        dropped = await self._database.transact(self._revisions.overdue)
        await self._finish_drops(dropped, give_back=False)
        return len(dropped)

    async def drop_revision(self, revision: Revision) -> None:
        """The row is marked, so that nobody finds it any more, the table dropped, the row removed."""
        if revision.is_dummy:
            raise RevisionInUse(f"revision {revision.id} is its group's dummy revision, which stays")
        if await self._database.transact(lambda connection: self._revisions.retire(connection, revision)):
            try:
                await self._finish_drops([revision], give_back=False)
            except InvalidSetting:  # no right to drop tables
                await self._database.transact(lambda connection: self._revisions.restore(connection, revision))
                raise

    async def _finish_drops(self, revisions: Sequence[Revision], *, give_back: bool) -> None:
        for each in revisions:
            if not each.linked:
                await self._drop_table(each.table)
        if revisions:
            await self._database.transact(
                lambda connection: self._revisions.remove(connection, revisions, give_back=give_back)
            )

    async def _drop_table(self, table: str) -> None:
        drop = f"DROP TABLE IF EXISTS {quote_name(table, self._dialect.quote)}"

        async def run(connection: AsyncConnection) -> None:
            # Whoever may not make tables may not drop them either: not even those that are not there.
            if await stored_columns(connection, table, self._dialect):
                await connection.exec_driver_sql(drop)

        await self._database.transact(run, calls=_DDL_CALLS)

    async def link_revision(
        self, group: FeatureGroup, table: str, *, time_us: int | None = None, doc: str = ""
    ) -> Revision:
        """The table is checked, then a draft without a table of its own is published with it."""
        _check_time(time_us)
        async with self._database.read(calls=_CHECK_CALLS) as connection:
            await check_linked(connection, group, table, self._dialect, await self._revisions.own_tables(connection))
        draft = await self._begin(group, doc, 60.0, with_table=False)
        return await self._database.transact(
            lambda connection: self._revisions.publish(connection, draft, time_us, link=table)
        )

    async def scan_revision(
        self, group: FeatureGroup, revision: Revision, *, after: tuple[Plain, ...] | None = None, limit: int = 10_000
    ) -> list[RevisionRow]:
        """A page of the table, by seeking where the table's own primary key allows."""
        async with self._database.read(calls=_DDL_CALLS) as connection:
            form = await self._form(connection, group, revision)
            return [form.row(row) for row in await connection.execute(form.page(after, limit))]

    async def _form(self, connection: AsyncConnection, group: FeatureGroup, revision: Revision) -> RevisionForm:
        stored = await stored_columns(connection, revision.table, self._dialect)
        return RevisionForm(group, revision, stored, self._dialect)

    async def begin_sync(self, group: FeatureGroup, revision: Revision, *, lease_s: float) -> Sync:
        """One transaction."""
        lease_us = int(lease_s * 1e6)
        return await self._database.transact(
            lambda connection: self._revisions.begin_sync(connection, group, revision, lease_us)
        )

    async def renew_sync(self, sync: Sync, *, lease_s: float) -> None:
        """One conditional update."""
        lease_us = int(lease_s * 1e6)
        await self._database.transact(lambda connection: self._revisions.renew(connection, sync, lease_us))

    async def flip(
        self, group: FeatureGroup, sync: Sync, *, purge_delay_s: float, instead_of: int | None = None
    ) -> Revision:
        """One transaction."""
        delay_us = int(purge_delay_s * 1e6)
        return await self._database.transact(
            lambda connection: self._revisions.flip(connection, group, sync, delay_us, instead_of)
        )

    async def syncs(self) -> list[Sync]:
        """All copies, by id."""
        async with self._database.read() as connection:
            return await self._revisions.syncs(connection)

    async def live_syncs(self) -> list[Sync]:
        """Those that readers see, by group id."""
        async with self._database.read() as connection:
            live = await self._revisions.syncs(connection, self._revisions.is_live())
        return sorted(live, key=lambda each: each.group_id)

    async def due_purges(self) -> list[Sync]:
        """Those whose time is over."""
        async with self._database.read() as connection:
            return await self._revisions.syncs(connection, self._revisions.is_due())

    async def claim_purge(self, sync: Sync) -> bool:
        """One conditional update."""
        return await self._database.transact(lambda connection: self._revisions.claim_purge(connection, sync))

    async def forget_sync(self, sync: Sync) -> None:
        """One delete."""
        await self._database.transact(lambda connection: self._revisions.forget(connection, sync))


def _check_time(time_us: int | None) -> None:
    if time_us is not None and time_us <= 0:
        raise InvalidRequest("a revision's time must be after 1970-01-01T00:00:00Z")


def _refuse_twins(draft: Revision, rows: Sequence[RevisionRow]) -> None:
    keys = {row.key for row in rows}
    if len(keys) == len(rows):
        return
    seen: set[tuple[Plain, ...]] = set()
    for at, row in enumerate(rows):
        if row.key in seen:
            raise _twin(draft, at)
        seen.add(row.key)


def _twin(draft: Revision, at: int) -> DuplicateKey:
    return DuplicateKey(at, f"row {at}: revision {draft.id} has a row of the same key already")
