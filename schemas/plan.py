"""What `apply` would change: the difference between the catalog and the definitions it is given.

Allowed changes of a group: a new feature that is nullable or has a default; a changed `doc` or `ttl`, of the group or a
feature; a feature left out of the schema (it is retired: its column and its name stay taken); a retired feature that
comes back as it was; another order of fields. Everything else is refused, above all what the fingerprint does not show
(unit, logical type, default): old and new events could not be told apart.

Source:
    design.md, section 2 (definitions).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from oomstream.schemas.catalog import Catalog, Entity
from oomstream.schemas.durations import format_duration
from oomstream.schemas.errors import InvalidDefinition
from oomstream.schemas.groups import Category, Feature, FeatureGroup
from oomstream.schemas.layout import RecordField, read_fields

_MORE = "names must differ in more"


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """What happens to one group.

    Attributes:
        old: Its newest registered definition; None for a new group.
        new: The definition to publish; `id` and `version` are still those of `old` (0 for a new group), and features
            that `old` has, active or retired, keep their ids (0 for added ones). Its `retired` are all that are so
            afterwards.
        added: Features that get a column.
        retired: Features that are no longer written; their columns stay.
        revived: Retired features that are active again, under the same type.
        changes: One sentence per change, for people.
    """

    old: FeatureGroup | None
    new: FeatureGroup
    added: tuple[Feature, ...] = ()
    retired: tuple[Feature, ...] = ()
    revived: tuple[Feature, ...] = ()
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that one `apply` changes; empty when nothing does.

    Attributes:
        entities: Entities to register (`id` is 0) or to describe anew.
        groups: Groups to register or to change; unchanged groups are left out.
    """

    entities: tuple[Entity, ...] = ()
    groups: tuple[GroupPlan, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.entities or self.groups)


def make_plan(catalog: Catalog, groups: Sequence[FeatureGroup], entities: Sequence[Entity] = ()) -> Plan:
    """Compare definitions with the catalog.

    Args:
        catalog: What is registered.
        groups: Definitions, each of a new group or of a registered one; groups left out stay as they are.
        entities: Entities to register without a group or to describe anew; those of the groups need not be given.

    Returns:
        The changes; empty if the definitions are those that are registered.

    Raises:
        InvalidDefinition: A change is not allowed, or two groups contradict each other; names group, field and rule.
    """
    _refuse_same_names(catalog, groups, entities)
    after = {name: registered.group for name, registered in catalog.groups.items()}
    after.update((group.name, group) for group in groups)
    _refuse_same_topics(list(after.values()))
    _refuse_different_keys(catalog, list(after.values()))
    changed = {each.name: each for each in entities if not _is_registered(catalog, each)}
    plans: list[GroupPlan] = []
    for group in groups:
        if group.entity not in catalog.entities:
            changed.setdefault(group.entity, Entity(group.entity, group.keys))
        registered = catalog.groups.get(group.name)
        plan = _new_group(group) if registered is None else _changed_group(registered.group, group)
        if plan is not None:
            plans.append(plan)
    return Plan(tuple(changed.values()), tuple(plans))


def _is_registered(catalog: Catalog, entity: Entity) -> bool:
    old = catalog.entities.get(entity.name)
    return old is not None and old.doc == entity.doc


def _refuse_same_names(catalog: Catalog, groups: Sequence[FeatureGroup], entities: Sequence[Entity]) -> None:
    given: set[str] = set()
    group_names = {name.lower(): name for name in catalog.groups}
    entity_names = {name.lower(): name for name in catalog.entities}
    for entity in entities:
        other = entity_names.setdefault(entity.name.lower(), entity.name)
        if other != entity.name:
            raise InvalidDefinition(f"entity {entity.name!r} and entity {other!r} differ only in case; {_MORE}")
    for group in groups:
        if group.name in given:
            raise InvalidDefinition(f"group {group.name}: defined twice")
        given.add(group.name)
        for what, name, names in (("group", group.name, group_names), ("entity", group.entity, entity_names)):
            other = names.setdefault(name.lower(), name)
            if other != name:
                raise InvalidDefinition(
                    f"group {group.name}: {what} {name!r} and {what} {other!r} differ only in case; {_MORE}"
                )


def _refuse_same_topics(groups: Sequence[FeatureGroup]) -> None:
    owners: dict[str, tuple[str, str, str]] = {}
    for group in groups:
        if group.category is not Category.STREAM:
            continue
        for role, topic in (("topic", group.topic), ("dead-letter topic", group.dlq_topic)):
            # Kafka refuses a topic whose name differs from another's only in "." and "_" (they share a metric's name).
            other = owners.setdefault(topic.replace(".", "_"), (group.name, role, topic))
            if other[0] != group.name:
                rule = "one topic carries one group"
                if topic != other[2]:
                    rule = "Kafka takes names that differ only in '.' and '_' for the same"
                raise InvalidDefinition(
                    f"group {group.name}: its {role} {topic!r} is the {other[1]} of group {other[0]}; {rule}"
                )


def _refuse_different_keys(catalog: Catalog, groups: Sequence[FeatureGroup]) -> None:
    first = {name: (f"entity {name}", entity.keys) for name, entity in catalog.entities.items() if entity.keys}
    for group in groups:
        owner, keys = first.setdefault(group.entity, (f"group {group.name}", group.keys))
        if keys != group.keys:
            raise InvalidDefinition(
                f"group {group.name}: its key fields are ({_keys(group)}) but those of {owner} are "
                f"({', '.join(f'{key.name} {key.type}' for key in keys)}); all groups of an entity have the same key"
                " fields, in name, type and order"
            )


def _new_group(group: FeatureGroup) -> GroupPlan:
    new = replace(group, id=0, version=0, retired=())
    data = "batch" if group.category is Category.BATCH else f"topic {group.topic}"
    summary = f"new group {group.name} of entity {group.entity}, keys ({_keys(group)}), {data}"
    features = tuple(f"new feature {group.name}.{each.name} {_shown(each)}" for each in new.features)
    return GroupPlan(None, new, added=new.features, changes=(summary, *features))


def _changed_group(old: FeatureGroup, given: FeatureGroup) -> GroupPlan | None:
    if given.schema == old.schema:
        return None
    _refuse_group_changes(old, given)
    before = {each.name: each for each in old.features}
    gone = {each.name: each for each in old.retired}
    added: list[Feature] = []
    revived: list[Feature] = []
    features: list[Feature] = []
    for each in given.features:
        _refuse_near_name(old, each)
        known = before.get(each.name) or gone.get(each.name)
        feature = replace(each, id=known.id if known else 0)
        features.append(feature)
        if each.name in before:
            _refuse_feature_change(old, before[each.name], each)
        elif each.name in gone:
            _refuse_other_revival(old, gone[each.name], each)
            revived.append(feature)
        else:
            _refuse_required(old, each)
            added.append(feature)
    _refuse_hidden_changes(old, given)
    active = {each.name for each in given.features}
    retired = tuple(each for each in old.features if each.name not in active)
    new = replace(
        given,
        features=tuple(features),
        retired=(*(each for each in old.retired if each.name not in active), *retired),
        id=old.id,
        version=old.version,
        forgets=old.forgets,
    )
    changes = tuple(_sentences(old, new, added, revived, retired))
    return GroupPlan(old, new, tuple(added), retired, tuple(revived), changes)


def _refuse_group_changes(old: FeatureGroup, new: FeatureGroup) -> None:
    for what, before, after in (
        ("its entity", old.entity, new.entity),
        ("its key fields", _keys(old), _keys(new)),
        ("its category", old.category, new.category),
        ("its event-time field", _time_name(old), _time_name(new)),
        (f"the unit of the event-time field {_time_name(old)!r}", _time_unit(old), _time_unit(new)),
        ("its topic", old.topic, new.topic),
        ("its number of partitions", old.partitions, new.partitions),
        ("its record name", _record_name(old), _record_name(new)),
    ):
        if before != after:
            raise InvalidDefinition(
                f"group {old.name}: {what} cannot change from {before} to {after}; only doc, ttl and features can"
            )


def _time_name(group: FeatureGroup) -> str:
    return "" if group.event_time is None else group.event_time.name


def _time_unit(group: FeatureGroup) -> str:
    return "" if group.event_time is None else group.event_time.unit.value


def _refuse_near_name(old: FeatureGroup, feature: Feature) -> None:
    for known in (*old.features, *old.retired):
        if known.name != feature.name and known.name.lower() == feature.name.lower():
            kind = "retired feature" if known in old.retired else "feature"
            raise InvalidDefinition(
                f"group {old.name}: feature {feature.name!r} and the {kind} {known.name!r} differ only in case; {_MORE}"
            )


def _refuse_feature_change(group: FeatureGroup, old: Feature, new: Feature) -> None:
    where = f"group {group.name}: feature {old.name!r}"
    if old.type == new.type and old.nullable != new.nullable:
        rule = "was nullable and cannot become required" if old.nullable else "cannot become nullable"
        raise InvalidDefinition(f"{where} {rule}; retire it and add one of another name")
    if old.type != new.type:
        raise InvalidDefinition(
            f"{where} cannot change its type from {_shown(old)} to {_shown(new)}; retire it and add one of another name"
        )
    if old.default != new.default or type(old.default) is not type(new.default):
        raise InvalidDefinition(
            f"{where} cannot change its default; it already fills rows written before the feature, and the fingerprint"
            " does not tell the two apart"
        )


def _refuse_other_revival(group: FeatureGroup, old: Feature, new: Feature) -> None:
    where = f"group {group.name}: retired feature {old.name!r}"
    if old.type != new.type:
        raise InvalidDefinition(f"{where} was {old.type} and cannot come back as {new.type}")
    if not new.has_default:
        raise InvalidDefinition(f"{where} can only come back nullable or with a default: events since then lack it")
    # Rows written while it was retired hold the column's default, so events of that time must read the same.
    before = old.default if old.has_default else None
    if new.default != before or type(new.default) is not type(before):
        raise InvalidDefinition(
            f"{where} can only come back with the default {'it had' if old.has_default else 'null'}, which fills the"
            " rows written since then"
        )


def _refuse_required(group: FeatureGroup, feature: Feature) -> None:
    if not feature.has_default:
        raise InvalidDefinition(
            f"group {group.name}: new feature {feature.name!r} must be nullable or have a default: older events lack it"
        )


def _refuse_hidden_changes(old: FeatureGroup, new: FeatureGroup) -> None:
    """Refuse changes of a field's schema that its feature, key or event time does not show."""
    before = {each.name: each for each in read_fields(old.schema, where=f"group {old.name}")}
    for field in read_fields(new.schema, where=f"group {new.name}"):
        known = before.get(field.name)
        if known is None:
            continue
        for what, was, is_now in (
            ("Avro name", known.avro_name, field.avro_name),
            ("logical type", known.logical or "none", field.logical or "none"),
            ("unit", _unit(known), _unit(field)),
            ("order of union branches", known.null_index, field.null_index),
        ):
            if was != is_now:
                raise InvalidDefinition(
                    f"group {old.name}: field {field.name!r} cannot change its {what} from {was} to {is_now}"
                )


def _unit(field: RecordField) -> Any:
    return field.attributes.get("unit", "none")


def _record_name(group: FeatureGroup) -> str:
    name, namespace = group.schema["name"], group.schema.get("namespace")
    return f"{namespace}.{name}" if namespace and "." not in name else str(name)


def _sentences(
    old: FeatureGroup,
    new: FeatureGroup,
    added: Sequence[Feature],
    revived: Sequence[Feature],
    retired: Sequence[Feature],
) -> Iterator[str]:
    for each in added:
        yield f"new feature {new.name}.{each.name} {_shown(each)}"
    for each in revived:
        yield f"feature {new.name}.{each.name} is back"
    for each in retired:
        yield f"feature {new.name}.{each.name} is retired (its column stays)"
    if old.ttl_us != new.ttl_us:
        yield f"ttl of {new.name}: {_ttl(old)} -> {_ttl(new)}"
    if old.doc != new.doc:
        yield f"doc of {new.name} changed"
    known = {each.name: each for each in old.features}
    changed = [each.name for each in new.features if each.name in known and known[each.name].doc != each.doc]
    for name in changed:
        yield f"doc of {new.name}.{name} changed"
    plain = not (added or revived or retired or changed) and (old.ttl_us, old.doc) == (new.ttl_us, new.doc)
    if plain and [each.name for each in old.features] != [each.name for each in new.features]:
        yield f"order of the features of {new.name} changed"
    elif plain:
        yield f"annotations of the schema of {new.name} changed"


def _keys(group: FeatureGroup) -> str:
    return ", ".join(f"{key.name} {key.type}" for key in group.keys)


def _ttl(group: FeatureGroup) -> str:
    return "none" if group.ttl_us is None else format_duration(group.ttl_us)


def _shown(feature: Feature) -> str:
    return f"{feature.type} or null" if feature.nullable else str(feature.type)
