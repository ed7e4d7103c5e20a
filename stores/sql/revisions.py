"""Revisions and their online copies in SQL: statements on the two metadata tables.

Whatever decides by more than one row locks the group's row first, so that imports, syncs and gc of one group take
turns; the rest are updates of one row that name the state they expect. Rows are locked in one order, group, revision by
id, copy, counter, so nobody waits in a circle. On SQLite one transaction writes at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from oomstream.schemas.errors import DefinitionChanged, Fenced, InvalidRequest, UnknownRevision
from oomstream.schemas.groups import Category, FeatureGroup
from oomstream.stores.revisions import Revision, RevisionInUse, Sync, SyncState
from oomstream.stores.sql.dialects import Dialect
from oomstream.stores.sql.revision_tables import table_name
from oomstream.stores.sql.sources import FORGET_COUNTER, next_id
from oomstream.stores.sql.tables import MetaTables

DUMMY = "dummy revision"
_COUNTER = "revision"
_DROP_US = 600_000_000
"""For so long whoever marked a revision as being dropped is alone in dropping it, microseconds."""


class State(IntEnum):
    """Where a revision is in its life; only published ones are anybody's to see."""

    DRAFT = 1
    PUBLISHED = 2
    DROPPING = 3


class Revisions:
    """Statements on the tables of revisions and copies; each method runs inside a transaction of the caller's."""

    def __init__(self, tables: MetaTables, dialect: Dialect) -> None:
        self._tables = tables
        self._revision = tables.revision
        self._sync = tables.sync
        self._dialect = dialect
        self._clock = sa.literal_column(dialect.clock, sa.BigInteger)

    def published(self, group_id: int | None) -> sa.Select[Any]:
        """The query for published revisions, by id; None = of all groups. Its rows are for `revision_of`."""
        query = self._all().where(self._revision.c.state == int(State.PUBLISHED))
        return query if group_id is None else query.where(self._revision.c.group_id == group_id)

    async def all(self, connection: AsyncConnection, group_id: int | None) -> list[Revision]:
        """Published revisions, by id."""
        return [_revision(row._mapping) for row in await connection.execute(self.published(group_id))]

    async def own_tables(self, connection: AsyncConnection) -> set[str]:
        """Names of tables that hold metadata or revisions of ours, or history."""
        revision = self._revision
        of_revisions = sa.select(revision.c.table_name).where(revision.c.linked == sa.false())
        groups = self._tables.feature_group
        names = set((await connection.scalars(of_revisions)).all()) | set(self._tables.metadata.tables)
        return names | {f"history_{each}" for each in await connection.scalars(sa.select(groups.c.name))}

    def _all(self) -> sa.Select[Any]:
        return sa.select(*(self._revision.c[name] for name in _COLUMNS)).order_by(self._revision.c.id)

    async def begin(
        self, connection: AsyncConnection, group: FeatureGroup, doc: str, lease_us: int
    ) -> tuple[Revision, Revision | None]:
        """Rows of a draft and, where the group has none published yet, of the dummy revision.

        Returns:
            The draft; and the dummy revision if its table may have to be made.

        Raises:
            InvalidRequest: It is a stream group.
            DefinitionChanged: The group has a newer definition.
        """
        if group.category is not Category.BATCH:
            raise InvalidRequest(f"group {group.name} is a stream group: it has no revisions")
        version = await self._lock(connection, group.id)
        if version != group.version:
            raise DefinitionChanged(f"group {group.name!r} has definition {version}, not {group.version}")
        revision, now_us = self._revision, await self._now_us(connection)
        dummies = sa.select(revision).where(revision.c.group_id == group.id, revision.c.revision_time == 0)
        found = (await connection.execute(dummies)).first()
        if found is None:
            dummy_id = await next_id(connection, self._tables, _COUNTER)
            dummy = self._draft(dummy_id, group, DUMMY, now_us, revision_time=0, anchored=True)
            await connection.execute(sa.insert(revision).values(**dummy, lease=0, lease_until=0))
        else:
            dummy = dict(found._mapping)
        draft_id = await next_id(connection, self._tables, _COUNTER)
        draft = self._draft(draft_id, group, doc, now_us, revision_time=now_us, anchored=False)
        await connection.execute(sa.insert(revision).values(**draft, lease=lease_us, lease_until=now_us + lease_us))
        new = dummy["state"] != State.PUBLISHED
        return _revision(draft), _revision(dummy) if new else None

    @staticmethod
    def _draft(
        revision_id: int, group: FeatureGroup, doc: str, now_us: int, *, revision_time: int, anchored: bool
    ) -> dict[str, Any]:
        return {
            "id": revision_id,
            "group_id": group.id,
            "state": int(State.DRAFT),
            "revision_time": revision_time,
            "anchored": anchored,
            "moved": False,
            "table_name": table_name(group.id, revision_id),
            "linked": False,
            "doc": doc,
            "version": group.version,
            "create_time": now_us,
            "modify_time": now_us,
        }

    async def touch(self, connection: AsyncConnection, draft: Revision) -> None:
        """Prolong a draft's lease, and keep others from collecting it until the transaction ends.

        Raises:
            Fenced: It is gone.
        """
        revision = self._revision
        until = self._clock + revision.c.lease
        kept = sa.update(revision).where(*self._is(draft, State.DRAFT)).values(lease_until=until)
        if (await connection.execute(kept)).rowcount != 1:
            raise _gone(draft)

    async def publish(
        self,
        connection: AsyncConnection,
        draft: Revision,
        time_us: int | None,
        *,
        link: str | None = None,
        forgets: int | None = None,
    ) -> Revision:
        """Make a draft a revision, and its group's dummy revision one with it.

        Args:
            connection: The transaction.
            draft: The draft.
            time_us: Its time; None = now, not anchored.
            link: A table of the user's that takes the place of the draft's own.
            forgets: How many marks of forgotten entities its rows obey; None = they need not, as in a linked table.

        Raises:
            Fenced: It is gone.
            DefinitionChanged: There are more marks by now.
        """
        await self._lock(connection, draft.group_id)
        revision, now_us = self._revision, await self._now_us(connection)
        of_group = (revision.c.group_id == draft.group_id, revision.c.revision_time == 0)
        dummy = sa.update(revision).where(*of_group, revision.c.state == int(State.DRAFT))
        times = {"create_time": now_us, "modify_time": now_us}
        await connection.execute(dummy.values(state=int(State.PUBLISHED), **times))
        values: dict[str, Any] = {"state": int(State.PUBLISHED), "anchored": time_us is not None, **times}
        values["revision_time"] = now_us if time_us is None else time_us
        if link is not None:
            values |= {"table_name": link, "linked": True}
        mine = sa.update(revision).where(*self._is(draft, State.DRAFT)).values(**values)
        if (await connection.execute(mine)).rowcount and forgets not in (None, await self._forgets(connection)):
            raise DefinitionChanged(f"entities were forgotten while revision {draft.id} came in")
        found = (await connection.execute(self._all().where(*self._is(draft, State.PUBLISHED)))).first()
        if found is None:
            raise _gone(draft)
        return _revision(found._mapping)

    async def _forgets(self, connection: AsyncConnection) -> int:
        """How many marks of forgotten entities there are; nobody makes one until the transaction ends."""
        counter = self._tables.counter
        query = sa.select(counter.c.value).where(counter.c.kind == FORGET_COUNTER).with_for_update()
        return await connection.scalar(query) or 0

    async def give_up(self, connection: AsyncConnection, draft: Revision) -> list[Revision]:
        """Mark a draft, and the dummy revision if nobody else needs it, as being dropped.

        Returns:
            What was marked, the last id first; their tables are to be dropped, then their rows (`remove`), within
            `_DROP_US`: after that others may do it.
        """
        await self._lock(connection, draft.group_id)
        revision = self._revision
        if not await self._mark(connection, draft, State.DRAFT):
            return []
        of_group = (revision.c.group_id == draft.group_id, revision.c.state != int(State.DROPPING))
        found = (await connection.execute(self._all().where(*of_group))).all()
        others = [_revision(row._mapping) for row in found]
        if len(others) == 1 and others[0].is_dummy and await self._mark(connection, others[0], State.DRAFT):
            return [draft, others[0]]
        return [draft]

    async def overdue(self, connection: AsyncConnection) -> list[Revision]:
        """Drafts whose lease is over, now marked as being dropped, and what killed drops left; not dummy revisions."""
        revision = self._revision
        over = sa.and_(
            revision.c.state == int(State.DRAFT), revision.c.revision_time != 0, revision.c.lease_until <= self._clock
        )
        found = await connection.scalars(sa.select(revision.c.id).where(over).order_by(revision.c.id))
        for revision_id in found.all():
            marked = sa.update(revision).where(revision.c.id == revision_id, over)
            await connection.execute(marked.values(state=int(State.DROPPING)))
        left = (revision.c.state == int(State.DROPPING), revision.c.lease_until <= self._clock)
        return [_revision(row._mapping) for row in await connection.execute(self._all().where(*left))]

    async def _mark(self, connection: AsyncConnection, revision: Revision, state: State) -> bool:
        marked = sa.update(self._revision).where(*self._is(revision, state))
        values = {"state": int(State.DROPPING), "lease_until": self._clock + _DROP_US}
        return (await connection.execute(marked.values(**values))).rowcount == 1

    async def remove(self, connection: AsyncConnection, revisions: Sequence[Revision], *, give_back: bool) -> None:
        """Remove rows of revisions whose tables are gone; gives back ids, last first, that nobody has passed.

        An id is not given back once others may be dropping its table: they could hit that of the next draft.
        """
        revision, counter = self._revision, self._tables.counter
        for each in revisions:
            mine = self._is(each, State.DROPPING)
            alone = sa.delete(revision).where(*mine, revision.c.lease_until > self._clock)
            if give_back and (await connection.execute(alone)).rowcount == 1:
                last = sa.update(counter).where(counter.c.kind == _COUNTER, counter.c.value == each.id)
                await connection.execute(last.values(value=each.id - 1))
            await connection.execute(sa.delete(revision).where(*mine))

    async def retire(self, connection: AsyncConnection, revision: Revision) -> bool:
        """Mark a published revision as being dropped; False if it is gone already.

        Raises:
            RevisionInUse: It is online, or being written online.
        """
        await self._lock(connection, revision.group_id)
        if not await self._mark(connection, revision, State.PUBLISHED):
            return False
        sync = self._sync
        used = sa.select(sync.c.id).where(
            sync.c.revision_id == revision.id, sync.c.state.in_([int(SyncState.LIVE), int(SyncState.WRITING)])
        )
        if (await connection.execute(used)).first() is not None:
            raise RevisionInUse(f"revision {revision.id} is online, or is being synced: sync another one first")
        return True

    async def restore(self, connection: AsyncConnection, revision: Revision) -> None:
        """Take back a mark of `retire`: the table is still there."""
        back = sa.update(self._revision).where(*self._is(revision, State.DROPPING))
        await connection.execute(back.values(state=int(State.PUBLISHED)))

    async def begin_sync(
        self, connection: AsyncConnection, group: FeatureGroup, revision: Revision, lease_us: int
    ) -> Sync:
        """A fresh copy.

        Raises:
            UnknownRevision: The group has no such revision.
        """
        await self._lock(connection, group.id)
        found = self._all().where(*self._is(revision, State.PUBLISHED), self._revision.c.group_id == group.id)
        if (await connection.execute(found)).first() is None:
            raise UnknownRevision(f"group {group.name} doesn't have revision {revision.id}")
        sync_id = await next_id(connection, self._tables, "sync")
        now_us = await self._now_us(connection)
        new = Sync(sync_id, group.id, revision.id, SyncState.WRITING, now_us + lease_us)
        values = {"group_id": group.id, "revision_id": revision.id, "state": int(new.state)}
        await connection.execute(
            sa.insert(self._sync).values(id=sync_id, **values, until_time=new.until_us, create_time=now_us)
        )
        return new

    async def renew(self, connection: AsyncConnection, sync: Sync, lease_us: int) -> None:
        """Prolong the lease of a copy that is being written.

        Raises:
            Fenced: It was given up.
        """
        own = self._sync.c
        kept = sa.update(self._sync).where(own.id == sync.id, own.state == int(SyncState.WRITING))
        if (await connection.execute(kept.values(until_time=self._clock + lease_us))).rowcount != 1:
            raise _given_up(sync)

    async def flip(
        self,
        connection: AsyncConnection,
        group: FeatureGroup,
        sync: Sync,
        delay_us: int,
        instead_of: int | None = None,
    ) -> Revision:
        """Make a copy the one that readers see, and retire the one before.

        Raises:
            Fenced: It was given up, or the one before is not `instead_of`.
        """
        await self._lock(connection, group.id)
        table, own, revision = self._sync, self._sync.c, self._revision
        now_us = await self._now_us(connection)
        its = revision.c.id == sync.revision_id
        is_live = (own.group_id == group.id, own.state == int(SyncState.LIVE))
        before = await connection.scalar(sa.select(own.id).where(*is_live))
        if before != sync.id:
            if instead_of is not None and before != instead_of:
                raise Fenced(f"readers of group {group.name} see another copy than copy {instead_of} by now")
            moved = sa.update(revision).where(its, revision.c.anchored == sa.false())
            await connection.execute(moved.values(revision_time=now_us, anchored=True, moved=True, modify_time=now_us))
            if before is not None:
                retired = sa.update(table).where(own.id == before)
                await connection.execute(retired.values(state=int(SyncState.RETIRED), until_time=now_us + delay_us))
            live = sa.update(table).where(own.id == sync.id, own.state == int(SyncState.WRITING))
            if (await connection.execute(live.values(state=int(SyncState.LIVE), until_time=0))).rowcount != 1:
                raise _given_up(sync)
        return _revision((await connection.execute(self._all().where(its))).one()._mapping)

    async def syncs(self, connection: AsyncConnection, *conditions: sa.ColumnElement[bool]) -> list[Sync]:
        """Copies that meet the conditions, by id."""
        found = await connection.execute(sa.select(self._sync).where(*conditions).order_by(self._sync.c.id))
        return [Sync(row.id, row.group_id, row.revision_id, SyncState(row.state), row.until_time) for row in found]

    def is_live(self) -> sa.ColumnElement[bool]:
        """Readers see it."""
        return self._sync.c.state == int(SyncState.LIVE)

    def is_due(self) -> sa.ColumnElement[bool]:
        """Retired or being written, and its time is over."""
        return sa.and_(self._sync.c.state != int(SyncState.LIVE), self._sync.c.until_time <= self._clock)

    async def claim_purge(self, connection: AsyncConnection, sync: Sync) -> bool:
        """Give up a copy if it is due."""
        given_up = sa.update(self._sync).where(self._sync.c.id == sync.id, self.is_due())
        values = {"state": int(SyncState.RETIRED), "until_time": 0}
        return (await connection.execute(given_up.values(**values))).rowcount == 1

    async def forget(self, connection: AsyncConnection, sync: Sync) -> None:
        """Remove the row of a copy that was given up."""
        own = self._sync.c
        gone = sa.delete(self._sync).where(own.id == sync.id, own.state == int(SyncState.RETIRED), own.until_time == 0)
        await connection.execute(gone)

    async def _lock(self, connection: AsyncConnection, group_id: int) -> int | None:
        """Take the group's turn until the transaction ends; gives the version of its newest definition."""
        table = self._tables.feature_group
        found: int | None = await connection.scalar(
            sa.select(table.c.version).where(table.c.id == group_id).with_for_update()
        )
        return found

    async def _now_us(self, connection: AsyncConnection) -> int:
        now_us = await connection.scalar(sa.select(self._clock))
        assert isinstance(now_us, int)
        return now_us

    def _is(self, revision: Revision, state: State) -> tuple[sa.ColumnElement[bool], ...]:
        return self._revision.c.id == revision.id, self._revision.c.state == int(state)


_COLUMNS = (
    "id", "group_id", "revision_time", "anchored", "table_name", "linked", "doc", "version", "create_time",
    "modify_time", "moved",
)  # fmt: skip


def revision_of(row: Sequence[Any]) -> Revision:
    """A revision from a row of `Revisions.published` as a driver gives it: perhaps bytes for text, 0 for false."""
    values = [bytes(each).decode() if isinstance(each, bytes | bytearray) else each for each in row]
    return _revision(dict(zip(_COLUMNS, values, strict=True)))


def _revision(row: Any) -> Revision:
    return Revision(
        id=row["id"],
        group_id=row["group_id"],
        time_us=row["revision_time"],
        anchored=bool(row["anchored"]),
        table=row["table_name"],
        linked=bool(row["linked"]),
        doc=row["doc"],
        version=row["version"],
        create_time_us=row["create_time"],
        modify_time_us=row["modify_time"],
        moved=bool(row["moved"]),
    )


def _gone(draft: Revision) -> Fenced:
    return Fenced(f"draft {draft.id} of group {draft.group_id} is gone: its lease was over and it was collected")


def _given_up(sync: Sync) -> Fenced:
    return Fenced(f"copy {sync.id} of revision {sync.revision_id} was given up: its lease was over and it was purged")
