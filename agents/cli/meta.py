"""Listings of the catalog: what `oomstream get meta` prints, in oomcli's columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oomstream.agents.cli.output import EMPTY, Listing
from oomstream.schemas.durations import format_duration
from oomstream.schemas.errors import UnknownEntity
from oomstream.schemas.types import time_from_us

if TYPE_CHECKING:
    from oomstream.schemas.catalog import Catalog, RegisteredGroup
    from oomstream.schemas.groups import FeatureGroup
    from oomstream.schemas.types import ValueType

# oomstore's names for the types it has; the others go by their Avro names.
VALUE_TYPES = {
    "boolean": "bool",
    "long": "int64",
    "double": "float64",
    "timestamp-micros": "time",
    "timestamp-millis": "time",
}


def entities(catalog: Catalog, name: str | None, entity: str | None, group: str | None, wide: bool) -> Listing:
    """Entities by id.

    Raises:
        UnknownEntity: `name` or `entity` is not registered.
        UnknownGroup: `group` is not.
    """
    wanted = name or entity
    if wanted is not None and wanted not in catalog.entities:
        known = ", ".join(sorted(catalog.entities)) or "none"
        raise UnknownEntity(f"no entity named {wanted!r} (registered: {known})")
    entities = sorted(catalog.entities.values(), key=lambda each: each.id)
    if wanted is not None:
        entities = [each for each in entities if each.name == wanted]
    if group is not None:
        entities = [each for each in entities if each.name == catalog.group(group).entity]
    columns = ["ID", "NAME", "DESCRIPTION"] + (["CREATE-TIME", "MODIFY-TIME"] if wide else [])
    rows = [
        [each.id, each.name, each.doc]
        + ([time_from_us(each.create_time_us), time_from_us(each.modify_time_us)] if wide else [])
        for each in entities
    ]
    documents = [{"kind": "Entity", "name": each.name, "description": each.doc} for each in entities]
    detail = [{"keys": [{"name": key.name, "type": str(key.type)} for key in each.keys]} for each in entities]
    return Listing(columns, rows, EMPTY if wide else "", documents, detail)


def _registered(catalog: Catalog, entity: str | None, group: str | None) -> list[RegisteredGroup]:
    if group is not None:
        catalog.group(group)
    if entity is not None and entity not in catalog.entities:
        known = ", ".join(sorted(catalog.entities)) or "none"
        raise UnknownEntity(f"no entity named {entity!r} (registered: {known})")
    return [
        each
        for each in sorted(catalog.groups.values(), key=lambda each: each.group.id)
        if (entity is None or each.group.entity == entity) and (group is None or each.group.name == group)
    ]


def groups(catalog: Catalog, name: str | None, entity: str | None, group: str | None, wide: bool) -> Listing:
    """Groups by id.

    Raises:
        UnknownEntity: `entity` is not registered.
        UnknownGroup: `name` or `group` is not.
    """
    registered = _registered(catalog, entity, name or group)
    columns = ["ID", "NAME", "ENTITY", "CATEGORY", "SNAPSHOT-INTERVAL", "DESCRIPTION"]
    rows: list[list[Any]] = []
    for each in registered:
        one = each.group
        # History is read directly: a stream group here has no snapshots, hence no interval between them.
        rows.append([one.id, one.name, one.entity, one.category.value, "0s", one.doc])
        if wide:
            rows[-1] += [None, time_from_us(each.create_time_us), time_from_us(each.modify_time_us)]
    if wide:
        columns += ["ONLINE-REVISION-ID", "CREATE-TIME", "MODIFY-TIME"]
    documents = [
        {
            "kind": "Group",
            "name": each.group.name,
            "entity-name": each.group.entity,
            "category": each.group.category.value,
            "description": each.group.doc,
        }
        for each in registered
    ]
    return Listing(columns, rows, EMPTY if wide else "", documents, [_group_detail(each.group) for each in registered])


def _group_detail(group: FeatureGroup) -> dict[str, Any]:
    return {
        "version": group.version,
        "keys": list(group.key_names),
        "event-time": None
        if group.event_time is None
        else {"field": group.event_time.name, "unit": group.event_time.unit.value},
        "ttl": None if group.ttl_us is None else format_duration(group.ttl_us),
        "topic": group.topic,
        "partitions": group.partitions,
        "retired": [each.name for each in group.retired],
    }


def features(catalog: Catalog, name: str | None, entity: str | None, group: str | None, wide: bool) -> Listing:
    """Active features by id.

    Raises:
        UnknownEntity: `entity` is not registered.
        UnknownGroup: `group` is not.
        UnknownFeature: `name`, written group.feature, is not.
    """
    registered = _registered(catalog, entity, group)
    found = [(each, feature) for each in registered for feature in each.group.features]
    if name is not None:
        owner, feature = catalog.features([name])[0]
        found = [(each, one) for each, one in found if each.group.name == owner.name and one.name == feature.name]
    found.sort(key=lambda pair: pair[1].id)
    columns = ["ID", "NAME", "GROUP", "ENTITY", "CATEGORY", "VALUE-TYPE", "DESCRIPTION"]
    rows: list[list[Any]] = []
    for each, one in found:
        owner = each.group
        rows.append([one.id, one.name, owner.name, owner.entity, owner.category.value, value_type(one.type), one.doc])
        if wide:
            rows[-1] += [None, time_from_us(each.create_time_us), time_from_us(each.modify_time_us)]
    if wide:
        columns += ["ONLINE-REVISION-ID", "CREATE-TIME", "MODIFY-TIME"]
    documents = [
        {
            "kind": "Feature",
            "name": one.name,
            "group-name": each.group.name,
            "value-type": value_type(one.type),
            "description": one.doc,
        }
        for each, one in found
    ]
    detail = [
        {"full-name": f"{each.group.name}.{one.name}", "avro-type": str(one.type), "nullable": one.nullable}
        for each, one in found
    ]
    return Listing(columns, rows, EMPTY if wide else "", documents, detail)


def value_type(kind: ValueType) -> str:
    """A feature's type by oomstore's name where it has one, else by Avro's."""
    return VALUE_TYPES.get(kind.kind.value, str(kind))
