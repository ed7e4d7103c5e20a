"""Sources in SQL: finding, claiming, leasing, and moving their positions behind the fence.

Source:
    design.md, section 4 and section 5 (step 2).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from oomstream.schemas.errors import DefinitionChanged, Fenced, InvalidRequest
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import DlqCounts, HistoryBatch, Source, SourceName
from oomstream.stores.lost_records import LostRecords
from oomstream.stores.sql.dialects import Conflict, Dialect
from oomstream.stores.sql.tables import MetaTables
from oomstream.stores.sql.text import quote_name

FORGET_COUNTER = "forget"
"""Kind of the counter that counts marks of forgotten entities."""

LOCAL = "local"
"""Name of push sources."""


class Sources:
    """Statements on the source table; each method runs inside a transaction of the caller's."""

    def __init__(self, tables: MetaTables, dialect: Dialect) -> None:
        self._tables = tables
        self._dialect = dialect
        self._source = tables.source
        self._clock = sa.literal_column(dialect.clock, sa.BigInteger)
        self._greatest = getattr(sa.func, dialect.greatest)
        self._fence = _fence_text(dialect)
        self._decided = _decided_text(dialect)

    async def all(self, connection: AsyncConnection) -> list[Source]:
        """Every source, by id."""
        return await self._where(connection, sa.true())

    async def find(self, connection: AsyncConnection, name: SourceName) -> Source | None:
        """A source by name."""
        found = await self._where(connection, self._is(name))
        return found[0] if found else None

    async def claim(self, connection: AsyncConnection, name: SourceName, start: int) -> Source:
        """Raise the fence of a source, or make the source; a lease runs on, for who claims its own source anew."""
        source = self._source
        raised = sa.update(source).where(self._is(name)).values(owner=source.c.owner + 1)
        if (await connection.execute(raised)).rowcount == 0:
            await self._insert(connection, name, start, lease_us=None)
        claimed = await self.find(connection, name)
        assert claimed is not None
        return claimed

    async def lease(self, connection: AsyncConnection, lease_us: int) -> Source:
        """Claim a push source that nobody leases, the oldest unfinished one first, or make a new one."""
        source = self._source
        free = (
            sa.select(source.c.id)
            .where(source.c.kind == SourceKind.PUSH, source.c.lease_until <= self._clock)
            .order_by(source.c.online_sequence >= source.c.next_sequence, source.c.id)
            .limit(1)
        )
        source_id = await connection.scalar(free)
        if source_id is not None:
            taken = (
                sa.update(source)
                .where(source.c.id == source_id, source.c.lease_until <= self._clock)
                .values(owner=source.c.owner + 1, lease_until=self._clock + lease_us)
            )
            if (await connection.execute(taken)).rowcount != 1:
                raise Conflict("another process has just leased the same push source")
        else:
            name = SourceName(SourceKind.PUSH, LOCAL, str(uuid.uuid4()))
            source_id = await self._insert(connection, name, 0, lease_us=lease_us)
        return (await self._where(connection, source.c.id == source_id))[0]

    async def renew(self, connection: AsyncConnection, source: Source, lease_us: int) -> None:
        """Prolong a lease, or give it back.

        Raises:
            Fenced: The source has another owner.
        """
        until = self._clock + lease_us if lease_us else 0
        await self._update_owned(connection, source, lease_until=until)

    async def unfinished(self, connection: AsyncConnection) -> list[Source]:
        """Push sources that nobody leases and whose online rows may lag behind."""
        source = self._source
        return await self._where(
            connection,
            source.c.kind == SourceKind.PUSH,
            source.c.lease_until <= self._clock,
            source.c.online_sequence < source.c.next_sequence,
        )

    async def mark_online(self, connection: AsyncConnection, source: Source, online_sequence: int) -> None:
        """Raise the online position; it never falls.

        Raises:
            Fenced: The source has another owner.
        """
        stored = self._source.c.online_sequence
        greater = sa.case((stored < online_sequence, online_sequence), else_=stored)
        await self._update_owned(connection, source, online_sequence=greater)

    async def move(self, connection: AsyncConnection, source: Source, batch: HistoryBatch) -> tuple[int, int]:
        """The fence and the position in one statement, which must be the transaction's first.

        Returns:
            Position before the batch, and the batch's ingest time (UTC microseconds).

        Raises:
            Fenced: The source has another owner.
            DefinitionChanged: The batch was not decoded with the newest definition.
        """
        moved = (batch.next_sequence, batch.online_sequence, *batch.dlq, source.id, source.owner)
        group = batch.group
        row = await self._dialect.move(connection, self._fence, moved, self._decided, (group.id, source.id))
        if row is None:
            raise _fenced(source)
        previous_sequence, ingest_time_us, version, forgets = row
        _check_newest(group, version, forgets)
        return previous_sequence, ingest_time_us

    async def record_lost(self, connection: AsyncConnection, source: Source, start: int, end: int, now_us: int) -> None:
        """Note which records of a source were skipped unread."""
        values = {"source_id": source.id, "start_sequence": start, "end_sequence": end, "time": now_us}
        await connection.execute(sa.insert(self._tables.lost_records).values(values))

    async def lost(self, connection: AsyncConnection) -> list[LostRecords]:
        """What was skipped, by source and start."""
        table = self._tables.lost_records
        found = await connection.execute(sa.select(table).order_by(table.c.source_id, table.c.start_sequence))
        return [LostRecords(*row) for row in found]

    async def hold(self, connection: AsyncConnection, source_id: int, group: FeatureGroup) -> int:
        """Lock a source until the transaction ends, whoever owns it; must be the transaction's first statement.

        Returns:
            Its position.

        Raises:
            InvalidRequest: There is no such source.
            DefinitionChanged: The group has a newer definition.
        """
        source, groups, counter = self._source, self._tables.feature_group, self._tables.counter
        held = sa.select(source.c.next_sequence).where(source.c.id == source_id).with_for_update()
        position = await connection.scalar(held)
        if position is None:
            raise InvalidRequest(f"history has no source {source_id}")
        version = await connection.scalar(sa.select(groups.c.version).where(groups.c.id == group.id))
        forgets = await connection.scalar(sa.select(counter.c.value).where(counter.c.kind == FORGET_COUNTER))
        _check_newest(group, version, forgets)
        return int(position)

    async def raise_ingest_time(self, connection: AsyncConnection, source_id: int) -> int:
        """Ingest time of rows that are written now, beside the source's owner; it never falls."""
        stored = self._source.c.last_ingest_time
        mine = self._source.c.id == source_id
        raised: sa.ColumnElement[int] = self._greatest(stored, self._clock)
        await connection.execute(sa.update(self._source).where(mine).values(last_ingest_time=raised))
        ingest_time_us = await connection.scalar(sa.select(stored).where(mine))
        assert ingest_time_us is not None
        return int(ingest_time_us)

    async def _update_owned(self, connection: AsyncConnection, source: Source, **values: Any) -> None:
        table = self._source
        owned = sa.update(table).where(table.c.id == source.id, table.c.owner == source.owner).values(**values)
        if (await connection.execute(owned)).rowcount != 1:
            raise _fenced(source)

    async def _insert(self, connection: AsyncConnection, name: SourceName, start: int, lease_us: int | None) -> int:
        source_id = await next_id(connection, self._tables, "source")
        await connection.execute(
            sa.insert(self._source).values(
                id=source_id,
                kind=int(name.kind),
                name=name.name,
                incarnation=name.incarnation,
                partition=name.partition,
                owner=1,
                previous_sequence=start,
                next_sequence=start,
                online_sequence=start,
                last_ingest_time=0,
                dlq_consecutive=0,
                dlq_records=0,
                dlq_letters=0,
                lease_until=0 if lease_us is None else self._clock + lease_us,
            )
        )
        return source_id

    def _is(self, name: SourceName) -> sa.ColumnElement[bool]:
        source = self._source.c
        return sa.and_(
            source.kind == int(name.kind),
            source.incarnation == name.incarnation,
            source.partition == name.partition,
            source.name == name.name,
        )

    async def _where(self, connection: AsyncConnection, *conditions: sa.ColumnElement[bool]) -> list[Source]:
        found = await connection.execute(sa.select(self._source).where(*conditions).order_by(self._source.c.id))
        return [_source(row) for row in found]


async def next_id(connection: AsyncConnection, tables: MetaTables, kind: str) -> int:
    """The next id of a kind, from 1; the counter's row is locked until the transaction ends."""
    counter = tables.counter
    raised = sa.update(counter).where(counter.c.kind == kind).values(value=counter.c.value + 1)
    if (await connection.execute(raised)).rowcount == 0:
        await connection.execute(sa.insert(counter).values(kind=kind, value=1))
    value = await connection.scalar(sa.select(counter.c.value).where(counter.c.kind == kind))
    assert value is not None
    return int(value)


def _check_newest(group: FeatureGroup, version: int | None, forgets: int | None) -> None:
    if version != group.version:
        raise DefinitionChanged(f"group {group.name!r} has definition {version}, not {group.version}")
    if (forgets or 0) != group.forgets:
        raise DefinitionChanged(f"group {group.name!r}: entities were forgotten meanwhile")


def _fenced(source: Source) -> Fenced:
    name = source.name
    return Fenced(f"source {name.name!r} partition {name.partition}: owner {source.owner} is not its owner any more")


def _source(row: sa.Row[Any]) -> Source:
    return Source(
        id=row.id,
        name=SourceName(SourceKind(row.kind), row.name, row.incarnation, row.partition),
        owner=row.owner,
        next_sequence=row.next_sequence,
        online_sequence=row.online_sequence,
        last_ingest_time_us=row.last_ingest_time,
        dlq=DlqCounts(row.dlq_consecutive, row.dlq_records, row.dlq_letters),
    )


def _fence_text(dialect: Dialect) -> str:
    def name(text: str) -> str:
        return quote_name(text, dialect.quote)

    # previous_sequence stands first: MySQL assigns from left to right and would take the new next_sequence.
    sets: Sequence[str] = (
        f"{name('previous_sequence')} = {name('next_sequence')}",
        *(
            f"{name(each)} = {dialect.greatest}({name(each)}, {dialect.parameter})"
            for each in ("next_sequence", "online_sequence")
        ),
        f"{name('last_ingest_time')} = {dialect.greatest}({name('last_ingest_time')}, {dialect.clock})",
        *(f"{name(each)} = {dialect.parameter}" for each in ("dlq_consecutive", "dlq_records", "dlq_letters")),
    )
    where = f"{name('id')} = {dialect.parameter} AND {name('owner')} = {dialect.parameter}"
    return f"UPDATE {name('source')} SET {', '.join(sets)} WHERE {where}"  # noqa: S608 - our own names


def _decided_text(dialect: Dialect) -> str:
    def name(text: str) -> str:
        return quote_name(text, dialect.quote)

    version = f"(SELECT {name('version')} FROM {name('feature_group')} WHERE {name('id')} = {dialect.parameter})"  # noqa: S608
    forgets = f"(SELECT {name('value')} FROM {name('counter')} WHERE {name('kind')} = '{FORGET_COUNTER}')"  # noqa: S608
    return (
        f"SELECT {name('previous_sequence')}, {name('last_ingest_time')}, {version}, {forgets} "  # noqa: S608 - our own names
        f"FROM {name('source')} WHERE {name('id')} = {dialect.parameter}"
    )
