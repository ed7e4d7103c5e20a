"""The catalog in SQL: loading it, and carrying out a plan.

Source:
    design.md, section 2 (apply) and section 6 (stored form).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateColumn, CreateTable

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.catalog import Catalog, Entity, Published, RegisteredGroup, WriterSchema
from oomstream.schemas.errors import InvalidDefinition
from oomstream.schemas.groups import Category, Feature, FeatureGroup
from oomstream.schemas.layout import NAME_ATTRIBUTE
from oomstream.schemas.plan import GroupPlan, Plan
from oomstream.stores.revisions import SyncState
from oomstream.stores.sql.dialects import Dialect
from oomstream.stores.sql.retention import HORIZON_COUNTER
from oomstream.stores.sql.sources import FORGET_COUNTER, next_id
from oomstream.stores.sql.tables import HistoryTable, MetaTables
from oomstream.stores.sql.text import quote_name


class Definitions:
    """Statements on the catalog's tables; each method runs inside a transaction of the caller's."""

    def __init__(self, tables: MetaTables, dialect: Dialect) -> None:
        self._tables = tables
        self._dialect = dialect

    async def load(self, connection: AsyncConnection) -> Catalog:
        """All registered definitions."""
        tables = self._tables
        entities = {row.id: row for row in await connection.execute(sa.select(tables.entity))}
        by_version = sa.select(tables.definition).order_by(tables.definition.c.group_id, tables.definition.c.version)
        definitions: dict[int, list[Any]] = defaultdict(list)
        for row in await connection.execute(by_version):
            definitions[row.group_id].append(row)
        features: dict[int, list[Any]] = defaultdict(list)
        for row in await connection.execute(sa.select(tables.feature).order_by(tables.feature.c.id)):
            features[row.group_id].append(row)
        live = await self._live(connection)
        counts = {row.kind: row.value for row in await connection.execute(sa.select(tables.counter))}
        forgets = counts.get(FORGET_COUNTER, 0)
        in_order = sa.select(tables.feature_group).order_by(tables.feature_group.c.id)
        groups: dict[str, RegisteredGroup] = {}
        keys: dict[int, FeatureGroup] = {}
        for row in await connection.execute(in_order):
            registered = _registered(row, definitions[row.id], features[row.id], forgets)
            if horizon_us := counts.get(f"{HORIZON_COUNTER}{row.id}", 0):
                registered = replace(registered, horizon_us=horizon_us)
            if row.id in live:
                sync_id, revision_id, time_us = live[row.id]
                registered = replace(
                    registered, sync_id=sync_id, online_revision_id=revision_id, online_time_us=time_us
                )
            groups[row.name] = registered
            keys.setdefault(row.entity_id, registered.group)
        return Catalog(
            entities={
                row.name: Entity(
                    row.name,
                    keys=keys[row.id].keys if row.id in keys else (),
                    doc=row.doc,
                    id=row.id,
                    create_time_us=row.create_time,
                    modify_time_us=row.modify_time,
                )
                for row in entities.values()
            },
            groups=groups,
        )

    async def _live(self, connection: AsyncConnection) -> dict[int, tuple[int, int, int]]:
        """What readers of batch groups need to know, by group id: the copy they see, its revision and its time."""
        sync, revision = self._tables.sync, self._tables.revision
        query = sa.select(sync.c.group_id, sync.c.id, revision.c.id, revision.c.revision_time).join_from(
            sync, revision, sync.c.revision_id == revision.c.id
        )
        found = await connection.execute(query.where(sync.c.state == int(SyncState.LIVE)))
        return {group_id: (sync_id, revision_id, time_us) for group_id, sync_id, revision_id, time_us in found}

    async def check(self, connection: AsyncConnection, plan: Plan) -> None:
        """Make sure that the catalog is still the one that the plan was made from.

        Raises:
            InvalidDefinition: It is not.
        """
        catalog = await self.load(connection)
        topics = {name: each.group.name for each in catalog.groups.values() for name in _topics(each.group)}
        for each in plan.groups:
            registered = catalog.groups.get(each.new.name)
            version = registered.group.version if registered else 0
            if version != (each.old.version if each.old else 0):
                raise InvalidDefinition(f"group {each.new.name!r} has been changed meanwhile: make the plan again")
            for topic in _topics(each.new):
                if topics.setdefault(topic, each.new.name) != each.new.name:
                    raise InvalidDefinition(
                        f"group {each.new.name!r}: topic {topic!r} has been taken by group {topics[topic]!r} meanwhile"
                    )
        for entity in plan.entities:
            if not entity.id and entity.name in catalog.entities:
                raise InvalidDefinition(f"entity {entity.name!r} has been registered meanwhile: make the plan again")

    async def alter_table(self, connection: AsyncConnection, change: GroupPlan, table: HistoryTable) -> None:
        """Make a group's history table, or add its columns; what an interrupted apply left behind is made anew.

        Raises:
            InvalidDefinition: A table of that name holds rows of nobody's.
        """
        group = change.new
        if group.category is not Category.STREAM:
            return
        stored = await connection.run_sync(lambda sync: _stored_columns(sync, table.name))
        if change.old is None:
            if stored:
                await self._drop_leftover(connection, table)
            await connection.execute(CreateTable(table.table))
            for index in table.table.indexes:
                await connection.execute(sa.schema.CreateIndex(index))
            return
        name = quote_name(table.name, self._dialect.quote)
        for feature in change.added:
            column = table.feature_column(feature)
            if feature.name in stored:
                # Nobody has written it, since it was not published; its type or default may be an earlier idea.
                await connection.exec_driver_sql(
                    f"ALTER TABLE {name} DROP COLUMN {quote_name(feature.name, self._dialect.quote)}"
                )
            words = str(CreateColumn(column).compile(dialect=self._dialect.core)).strip()
            await connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {words}")

    async def _drop_leftover(self, connection: AsyncConnection, table: HistoryTable) -> None:
        name = quote_name(table.name, self._dialect.quote)
        if (await connection.exec_driver_sql(f"SELECT 1 FROM {name} LIMIT 1")).first() is not None:  # noqa: S608
            raise InvalidDefinition(
                f"group {table.group.name!r}: a table {table.name} that belongs to no group is there and holds rows; "
                "rename or drop it"
            )
        await connection.exec_driver_sql(f"DROP TABLE {name}")

    async def publish(self, connection: AsyncConnection, plan: Plan) -> None:
        """Write entities and new definition versions; ids come from counters, in order of creation."""
        now_us = await connection.scalar(sa.select(sa.literal_column(self._dialect.clock)))
        assert isinstance(now_us, int)
        for entity in plan.entities:
            await self._publish_entity(connection, entity, now_us)
        for each in plan.groups:
            await self._publish_group(connection, each.new, now_us)

    async def _publish_entity(self, connection: AsyncConnection, entity: Entity, now_us: int) -> None:
        table = self._tables.entity
        changed = sa.update(table).where(table.c.name == entity.name).values(doc=entity.doc, modify_time=now_us)
        if (await connection.execute(changed)).rowcount == 0:
            values = {"name": entity.name, "doc": entity.doc, "create_time": now_us, "modify_time": now_us}
            entity_id = await next_id(connection, self._tables, "entity")
            await connection.execute(sa.insert(table).values(id=entity_id, **values))

    async def _publish_group(self, connection: AsyncConnection, group: FeatureGroup, now_us: int) -> None:
        tables = self._tables
        table = tables.feature_group
        found = (await connection.execute(sa.select(table).where(table.c.name == group.name))).first()
        before: dict[str, Feature] = {}
        if found is None:
            entity = tables.entity
            entity_id = await connection.scalar(sa.select(entity.c.id).where(entity.c.name == group.entity))
            if entity_id is None:
                raise InvalidDefinition(f"group {group.name!r}: entity {group.entity!r} is not registered")
            group_id, version = await next_id(connection, tables, "group"), 1
            times = {"create_time": now_us, "modify_time": now_us}
            row = {"id": group_id, "name": group.name, "entity_id": entity_id, "version": version, **times}
            await connection.execute(sa.insert(table).values(**row))
        else:
            group_id, version = found.id, found.version + 1
            raised = sa.update(table).where(table.c.id == group_id).values(version=version, modify_time=now_us)
            await connection.execute(raised)
            before = await self._features_of(connection, group_id, found.version)
        definition = {
            "group_id": group_id,
            "version": version,
            "fingerprint": group.fingerprint,
            "avro_schema": orjson.dumps(group.schema).decode(),
            "create_time": now_us,
        }
        await connection.execute(sa.insert(tables.definition).values(**definition))
        await self._publish_features(connection, group_id, group, before, now_us)

    async def _features_of(self, connection: AsyncConnection, group_id: int, version: int) -> dict[str, Feature]:
        """Features of a published definition, as its text says."""
        of = self._tables.definition.c
        text = await connection.scalar(sa.select(of.avro_schema).where(of.group_id == group_id, of.version == version))
        return {} if text is None else {each.name: each for each in _parsed(text).features}

    async def _publish_features(
        self,
        connection: AsyncConnection,
        group_id: int,
        group: FeatureGroup,
        before: Mapping[str, Feature],
        now_us: int,
    ) -> None:
        table = self._tables.feature
        stored = await connection.execute(sa.select(table.c.name, table.c.retired).where(table.c.group_id == group_id))
        retired = {row.name: row.retired for row in stored}
        active = {feature.name for feature in group.features}
        for feature in group.features:
            if feature.name not in retired:
                values = {"group_id": group_id, "name": feature.name, "retired": False}
                feature_id = await next_id(connection, self._tables, "feature")
                times = {"create_time": now_us, "modify_time": now_us}
                await connection.execute(sa.insert(table).values(id=feature_id, **values, **times))
        described = {each.name for each in group.features if each.name in before and each.doc != before[each.name].doc}
        for name, was in retired.items():
            is_retired = name not in active
            if was is not is_retired or name in described:
                changed = sa.update(table).where(table.c.group_id == group_id, table.c.name == name)
                await connection.execute(changed.values(retired=is_retired, modify_time=now_us))


def _topics(group: FeatureGroup) -> Sequence[str]:
    return (group.topic, group.dlq_topic) if group.category is Category.STREAM else ()


def _stored_columns(connection: sa.Connection, table: str) -> set[str]:
    inspector = sa.inspect(connection)
    return {column["name"] for column in inspector.get_columns(table)} if inspector.has_table(table) else set()


def _registered(row: Any, definitions: Sequence[Any], features: Sequence[Any], forgets: int) -> RegisteredGroup:
    writers = {
        each.fingerprint: WriterSchema(each.version, each.fingerprint, orjson.loads(each.avro_schema))
        for each in definitions
    }
    newest = _parsed(definitions[-1].avro_schema)
    ids = {each.name: each.id for each in features}
    group = replace(
        newest,
        id=row.id,
        version=row.version,
        forgets=forgets,
        features=tuple(replace(each, id=ids[each.name]) for each in newest.features),
        retired=_retired(definitions, features),
    )
    published = tuple(Published(each.create_time, _field_names(each.avro_schema)) for each in definitions)
    times = {each.id: (each.create_time, each.modify_time) for each in features}
    return RegisteredGroup(group, writers, row.create_time, row.modify_time, published=published, feature_times=times)


def _field_names(avro_schema: str) -> frozenset[str]:
    return frozenset(each.get(NAME_ATTRIBUTE, each["name"]) for each in orjson.loads(avro_schema)["fields"])


@lru_cache(maxsize=2_000)
def _parsed(avro_schema: str) -> FeatureGroup:
    """A definition from its text; readers of batch groups load the catalog every few seconds."""
    return group_from_avsc(orjson.loads(avro_schema))


def _retired(definitions: Sequence[Any], features: Sequence[Any]) -> tuple[Feature, ...]:
    """Retired features as the last definition that had them says."""
    missing = {each.name: each.id for each in features if each.retired}
    found: dict[int, Feature] = {}
    for each in reversed(definitions):
        if len(found) == len(missing):
            break
        for feature in _parsed(each.avro_schema).features:
            if feature.name in missing:
                found.setdefault(missing[feature.name], replace(feature, id=missing[feature.name]))
    return tuple(found[feature_id] for feature_id in sorted(found))
