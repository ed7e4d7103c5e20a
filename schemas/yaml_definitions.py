"""Definitions in oomstore's YAML: read, and made the Avro schemas that `.avsc` files hold.

YAML says less than an Avro schema: what it leaves out (ttl, topic, composite keys, defaults) stays as it is registered,
and a feature that it does not name stays too. In a new group the entity key is what the entity's other groups have,
else one string field named after the entity; every feature is nullable with the default null; the event time of a
stream group is `unix_milli`, in milliseconds.

Source:
    oomcli.md (apply); design.md, section 2 (definitions).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.catalog import Catalog, Entity
from oomstream.schemas.durations import parse_go_duration_us
from oomstream.schemas.errors import InvalidDefinition
from oomstream.schemas.groups import Category, FeatureGroup, KeyField
from oomstream.schemas.layout import NAME_ATTRIBUTE
from oomstream.schemas.names import avro_name, check_group_name, check_name
from oomstream.schemas.types import Kind, ValueType
from oomstream.schemas.value_types import avro_of_value_type, is_value_type_of, value_type_name

EVENT_TIME = "unix_milli"
"""Event-time field of stream groups that YAML defines."""

SNAPSHOT_INTERVAL = "snapshot_interval"
"""Attribute of a group's schema that keeps what YAML says of its snapshots; nothing here depends on it."""

_MILLIS = {"type": "long", "logicalType": "timestamp-millis"}


@dataclass(frozen=True, slots=True)
class EntityDefinition:
    """An entity as YAML has it.

    Attributes:
        name: Its name.
        doc: Description; None = as it is.
    """

    name: str
    doc: str | None = None


@dataclass(frozen=True, slots=True)
class FeatureDefinition:
    """A feature as YAML has it.

    Attributes:
        name: Its name.
        group: Its group.
        value_type: oomstore's name of its type; None = as it is.
        doc: Description; None = as it is.
    """

    name: str
    group: str
    value_type: str | None = None
    doc: str | None = None


@dataclass(frozen=True, slots=True)
class GroupDefinition:
    """A group as YAML has it.

    Attributes:
        name: Its name.
        entity: Its entity; None = as it is.
        category: stream or batch; None = as it is.
        snapshot_interval: As oomstore writes durations (``24h``); None = as it is.
        doc: Description; None = as it is.
    """

    name: str
    entity: str | None = None
    category: Category | None = None
    snapshot_interval: str | None = None
    doc: str | None = None


@dataclass(frozen=True, slots=True)
class YamlDefinitions:
    """What YAML documents define, flat, in their order; no name is there twice.

    Attributes:
        entities: Entities.
        groups: Groups.
        features: Features, of these groups or of registered ones.
    """

    entities: tuple[EntityDefinition, ...] = ()
    groups: tuple[GroupDefinition, ...] = ()
    features: tuple[FeatureDefinition, ...] = ()


def joined(parts: Iterable[tuple[str, YamlDefinitions]]) -> YamlDefinitions:
    """The definitions of several files as one.

    Args:
        parts: Each file's name and what it defines.

    Raises:
        InvalidDefinition: Two files define the same; names both.
    """
    first: dict[tuple[str, ...], str] = {}
    entities: list[EntityDefinition] = []
    groups: list[GroupDefinition] = []
    features: list[FeatureDefinition] = []
    for where, part in parts:
        entities += part.entities
        groups += part.groups
        features += part.features
        names = [("entity", each.name) for each in part.entities] + [("group", each.name) for each in part.groups]
        for kind, name in [*names, *(("feature", f"{each.group}.{each.name}") for each in part.features)]:
            other = first.setdefault((kind, name), where)
            if other is not where:
                raise InvalidDefinition(f"{kind} {name}: defined twice, in {other} and in {where}")
    return YamlDefinitions(tuple(entities), tuple(groups), tuple(features))


class Completed(NamedTuple):
    """Definitions together with what is registered, as `make_plan` takes them.

    Attributes:
        groups: Every group that is defined, or gets a feature, or of which a feature changes.
        entities: Every entity that is defined.
    """

    groups: list[FeatureGroup]
    entities: list[Entity]


def complete(definitions: YamlDefinitions, catalog: Catalog, beside: Sequence[FeatureGroup] = ()) -> Completed:
    """Fill in what the definitions do not say.

    Args:
        definitions: What was read.
        catalog: What is registered.
        beside: Groups that are defined at the same time in Avro schemas.

    Raises:
        InvalidDefinition: An entity or a group that is named is neither defined nor registered, something that cannot
            change is said to be otherwise, or a rule for names is broken; names it.
    """
    known = [*(each.group for each in catalog.groups.values()), *beside]
    entities = [_entity(each, catalog, known) for each in definitions.entities]
    keys = {group.entity: _raw_keys(group) for group in known}
    names = {*catalog.entities, *keys, *(each.name for each in entities)}
    schemas: dict[str, dict[str, Any]] = {}
    for group in definitions.groups:
        old = catalog.groups.get(group.name)
        if old is None:
            schemas[group.name] = _new_schema(group, names, keys)
        else:
            _refuse_other(group, old.group)
            schemas[group.name] = deepcopy(old.group.schema)
        _describe(schemas[group.name], group)
    registered = {name: each.group for name, each in catalog.groups.items()}
    for feature in definitions.features:
        if feature.group not in schemas:
            if feature.group not in registered:
                raise InvalidDefinition(
                    f"feature {feature.group}.{feature.name}: group {feature.group!r} is neither registered nor defined"
                )
            schemas[feature.group] = deepcopy(registered[feature.group].schema)
        _put_feature(schemas[feature.group], registered.get(feature.group), feature)
    return Completed([group_from_avsc(each) for each in schemas.values()], entities)


def _entity(definition: EntityDefinition, catalog: Catalog, groups: Iterable[FeatureGroup]) -> Entity:
    name = check_name(definition.name, what="entity", where=f"entity {definition.name[:80]}", dashes=True)
    old = catalog.entities.get(name)
    keys = next((group.keys for group in groups if group.entity == name), old.keys if old else ())
    doc = definition.doc
    if doc is None:
        doc = old.doc if old else ""
    return Entity(name, keys or (KeyField(name, ValueType(Kind.STRING)),), doc, old.id if old else 0)


def _raw_keys(group: FeatureGroup) -> list[dict[str, Any]]:
    by_name = {raw.get(NAME_ATTRIBUTE, raw["name"]): raw for raw in group.schema["fields"]}
    return [by_name[name] for name in group.key_names]


def _new_schema(
    group: GroupDefinition, entities: Iterable[str], keys: Mapping[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """The schema of a new group that has no features yet."""
    where = f"group {group.name[:80]}"
    name = check_group_name(group.name, where=where)
    if group.entity is None:
        raise InvalidDefinition(f"{where}: entity-name is missing")
    if group.entity not in entities:
        raise InvalidDefinition(f"{where}: entity {group.entity[:80]!r} is neither registered nor defined")
    if group.category is None:
        raise InvalidDefinition(f"{where}: category is missing (batch or stream)")
    fields = deepcopy(keys.get(group.entity, [])) or [_field([], group.entity, "string")]
    names = [raw.get(NAME_ATTRIBUTE, raw["name"]) for raw in fields]
    schema: dict[str, Any] = {"type": "record", "name": avro_name(name)}
    if schema["name"] != name:
        schema["group"] = name
    schema |= {"entity": group.entity, "keys": names, "category": group.category.value}
    if group.category is Category.STREAM:
        if EVENT_TIME in names:
            raise InvalidDefinition(f"{where}: {EVENT_TIME!r} is its event time and cannot be its key")
        schema["event_time"] = EVENT_TIME
        fields.append({"name": EVENT_TIME, "type": _MILLIS})
    schema["fields"] = fields
    return schema


def _field(
    fields: Sequence[Mapping[str, Any]], name: str, avro_type: Any, kept: Collection[str] = (), **more: Any
) -> dict[str, Any]:
    """A field of a name of ours, under an Avro name that no other field has and that is not `kept`."""
    taken = {*(raw["name"] for raw in fields), *kept}
    legal = first = avro_name(name)
    number = 1
    while legal in taken:
        number += 1
        legal = f"{first}_{number}"
    renamed = {} if legal == name else {NAME_ATTRIBUTE: name}
    return {"name": legal, "type": avro_type, **renamed, **more}


def _refuse_other(group: GroupDefinition, old: FeatureGroup) -> None:
    for what, was, is_now in (("entity", old.entity, group.entity), ("category", old.category, group.category)):
        if is_now is not None and was != is_now:
            raise InvalidDefinition(f"group {old.name}: its {what} cannot change from {was} to {is_now}")


def _describe(schema: dict[str, Any], group: GroupDefinition) -> None:
    """Put in what may change of a group."""
    if group.doc is not None and group.doc != schema.get("doc", ""):
        schema["doc"] = group.doc
    if group.snapshot_interval is None or schema.get("category") == Category.BATCH:
        return
    try:
        parse_go_duration_us(group.snapshot_interval)
    except ValueError as exc:
        raise InvalidDefinition(f"group {group.name}: snapshot-interval {exc}") from exc
    schema[SNAPSHOT_INTERVAL] = group.snapshot_interval


def _put_feature(schema: dict[str, Any], old: FeatureGroup | None, feature: FeatureDefinition) -> None:
    """Add a feature to a schema, or put in what may change of one that it has."""
    where = f"group {feature.group}: feature {feature.name[:80]!r}"
    check_name(feature.name, what="feature", where=f"group {feature.group}", dashes=True)
    fields: list[dict[str, Any]] = schema["fields"]
    found = next((raw for raw in fields if raw.get(NAME_ATTRIBUTE, raw["name"]) == feature.name), None)
    if found is None:
        if feature.value_type is None:
            raise InvalidDefinition(f"{where}: value-type is missing")
        avro_type = avro_of_value_type(feature.value_type, where=where)
        gone = next((each for each in old.retired if each.name == feature.name), None) if old else None
        if gone is not None and not is_value_type_of(feature.value_type, gone.type):
            was = value_type_name(gone.type)
            raise InvalidDefinition(f"{where} was retired as {was} and cannot come back as {feature.value_type}")
        # A retired feature keeps its Avro name, too: old events are read by it.
        kept = {avro_name(each.name) for each in old.retired if each is not gone} if old else set()
        found = _field(fields, feature.name, ["null", avro_type], kept, default=None)
        fields.append(found)
    else:
        _refuse_other_feature(schema, old, feature, where)
    if feature.doc is not None and feature.doc != found.get("doc", ""):
        found["doc"] = feature.doc


def _refuse_other_feature(
    schema: Mapping[str, Any], old: FeatureGroup | None, feature: FeatureDefinition, where: str
) -> None:
    known = old.feature(feature.name) if old else None
    if known is None:
        role = "part of the entity key" if feature.name in schema["keys"] else "the event time"
        raise InvalidDefinition(f"{where} is {role}: a feature needs another name")
    wanted = feature.value_type
    if wanted is None or is_value_type_of(wanted, known.type):
        return
    raise InvalidDefinition(
        f"{where} cannot change its type from {value_type_name(known.type)} to {wanted}; add one of another name"
    )
