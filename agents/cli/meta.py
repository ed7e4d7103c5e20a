"""Listings of the catalog: what `oomstream get meta` prints, in oomcli's columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from oomstream.agents.cli.output import EMPTY, Listing
from oomstream.schemas.durations import format_duration, format_go_duration, parse_go_duration_us
from oomstream.schemas.errors import UnknownEntity, UnknownFeature, UnknownRevision
from oomstream.schemas.types import time_from_us

if TYPE_CHECKING:
    from oomstream.schemas.catalog import Catalog, Entity, RegisteredGroup
    from oomstream.schemas.groups import Feature, FeatureGroup
    from oomstream.stores.revisions import Revision

_TIMES = ["CREATE-TIME", "MODIFY-TIME"]


def find_entity(catalog: Catalog, name: str) -> Entity:
    """A registered entity.

    Raises:
        UnknownEntity: There is none of that name; the message lists those there are.
    """
    found = catalog.entities.get(name)
    if found is None:
        known = ", ".join(sorted(catalog.entities)) or "none"
        raise UnknownEntity(f"no entity named {name!r} (registered: {known})")
    return found


def documents_of(kind: str, catalog: Catalog, name: str | None) -> list[dict[str, Any]]:
    """Definitions in the form of YAML, by id.

    Args:
        kind: entity, group or feature.
        catalog: What is registered.
        name: Only the one of this name; None = all.

    Raises:
        UnknownEntity: There is no entity of that name.
        UnknownGroup: There is no group of that name.
        UnknownFeature: There is no feature of that name.
    """
    makers: dict[str, Callable[..., Listing]] = {"entity": entities, "group": groups, "feature": features}
    return list(makers[kind](catalog, name, None, None, wide=False).documents or ())


def entities(catalog: Catalog, name: str | None, entity: str | None, group: str | None, wide: bool) -> Listing:
    """Entities by id.

    Raises:
        UnknownEntity: `name` or `entity` is not registered.
        UnknownGroup: `group` is not.
    """
    from oomstream.schemas.yaml_text import entity_document

    wanted = {find_entity(catalog, each).name for each in (name, entity) if each is not None}
    if group is not None:
        wanted.add(catalog.group(group).entity)
    found = sorted(catalog.entities.values(), key=lambda each: each.id)
    found = [each for each in found if wanted <= {each.name}]
    rows = [[each.id, each.name, each.doc, *(_times(each) if wide else ())] for each in found]
    owned = [each.group for each in _registered(catalog, None, None)]
    return Listing(
        ["ID", "NAME", "DESCRIPTION", *(_TIMES if wide else ())],
        rows,
        EMPTY if wide else "",
        [entity_document(each, owned) for each in found],
        [{"keys": [{"name": key.name, "type": str(key.type)} for key in each.keys]} for each in found],
    )


def _registered(catalog: Catalog, entity: str | None, group: str | None) -> list[RegisteredGroup]:
    """Groups by id, of an entity, or the one of that name."""
    if group is not None:
        catalog.group(group)
    if entity is not None:
        find_entity(catalog, entity)
    return [
        each
        for each in sorted(catalog.groups.values(), key=lambda each: each.group.id)
        if (entity is None or each.group.entity == entity) and (group is None or each.group.name == group)
    ]


def _times(one: Entity | RegisteredGroup | Revision) -> list[Any]:
    return [time_from_us(one.create_time_us), time_from_us(one.modify_time_us)]


def groups(catalog: Catalog, name: str | None, entity: str | None, group: str | None, wide: bool) -> Listing:
    """Groups by id.

    Raises:
        UnknownEntity: `entity` is not registered.
        UnknownGroup: `name` or `group` is not.
    """
    from oomstream.schemas.yaml_text import group_document

    if name is not None:
        catalog.group(name)
    registered = [each for each in _registered(catalog, entity, group) if name in {None, each.group.name}]
    columns = ["ID", "NAME", "ENTITY", "CATEGORY", "SNAPSHOT-INTERVAL", "DESCRIPTION"]
    rows = [[*_group_cells(each.group), *(_of_wide(each) if wide else ())] for each in registered]
    return Listing(
        [*columns, *(["ONLINE-REVISION-ID", *_TIMES] if wide else ())],
        rows,
        EMPTY if wide else "",
        [group_document(each.group) for each in registered],
        [_group_detail(each.group) for each in registered],
    )


def _of_wide(group: RegisteredGroup) -> list[Any]:
    return [group.online_revision_id or None, *_times(group)]


def _group_cells(group: FeatureGroup) -> list[Any]:
    from oomstream.schemas.yaml_text import snapshot_interval

    interval = format_go_duration(parse_go_duration_us(snapshot_interval(group) or "0"))
    return [group.id, group.name, group.entity, group.category.value, interval, group.doc]


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
        UnknownFeature: `name`, written group.feature or, where one group has it or `group` is given, feature, is not.
    """
    from oomstream.schemas.value_types import value_type_name
    from oomstream.schemas.yaml_text import feature_document

    found = [(each, one) for each in _registered(catalog, entity, group) for one in each.group.features]
    if name is not None:
        owner, feature = _find_feature(catalog, name, group)
        found = [(each, one) for each, one in found if each.group.name == owner.name and one.name == feature.name]
    found.sort(key=lambda pair: pair[1].id)
    columns = ["ID", "NAME", "GROUP", "ENTITY", "CATEGORY", "VALUE-TYPE", "DESCRIPTION"]
    rows: list[list[Any]] = []
    for each, one in found:
        owner = each.group
        kind = value_type_name(one.type)
        rows.append([one.id, one.name, owner.name, owner.entity, owner.category.value, kind, one.doc])
        if wide:
            times = each.feature_times.get(one.id, (each.create_time_us, each.modify_time_us))
            rows[-1] += [each.online_revision_id or None, *map(time_from_us, times)]
    return Listing(
        [*columns, *(["ONLINE-REVISION-ID", *_TIMES] if wide else ())],
        rows,
        EMPTY if wide else "",
        [feature_document(each.group, one) for each, one in found],
        [
            {"full-name": f"{each.group.name}.{one.name}", "avro-type": str(one.type), "nullable": one.nullable}
            for each, one in found
        ],
    )


def _find_feature(catalog: Catalog, name: str, group: str | None) -> tuple[FeatureGroup, Feature]:
    if "." in name or ":" in name:
        return catalog.features([name])[0]
    if group is not None:
        return catalog.features([f"{group}.{name}"])[0]
    written = [f"{one.group.name}.{name}" for one in _registered(catalog, None, None) if one.group.feature(name)]
    if len(written) < 2:
        return catalog.features(written or [name])[0]
    raise UnknownFeature(f"invalid feature names [{name}]: write the group, too ({', '.join(written)})")


def revisions(
    catalog: Catalog, published: Sequence[Revision], name: str | None, entity: str | None, group: str | None, wide: bool
) -> Listing:
    """Revisions of batch groups by id, each group's dummy revision included.

    Args:
        catalog: What is registered, read after `published`.
        published: Revisions by id.
        name: Id of the only one to list.
        entity: Only of this entity's groups.
        group: Only of this group.
        wide: More columns.

    Raises:
        UnknownEntity: `entity` is not registered.
        UnknownGroup: `group` is not.
        UnknownRevision: `name` is no revision's id.
    """
    names = {each.group.id: each.group.name for each in _registered(catalog, entity, group)}
    if name is not None and name not in {str(each.id) for each in published}:
        raise UnknownRevision(f"no revision of id {name[:40]!r} (`oomstream get meta revision` lists those there are)")
    columns = ["ID", "REVISION", "GROUP", "SNAPSHOT-TABLE", "CDC-TABLE", "DESCRIPTION"]
    rows = [
        # Changes are rows of stream groups' history here, so a revision has no table of them: an empty name, as
        # oomcli prints for a revision of a batch group.
        [each.id, each.time_us // 1000, names[each.group_id], each.table, "", each.doc]
        + ([each.anchored, *_times(each)] if wide else [])
        for each in published
        if each.group_id in names and name in {None, str(each.id)}
    ]
    return Listing([*columns, *(["ANCHORED", *_TIMES] if wide else ())], rows, EMPTY if wide else "")
