"""What `apply` would change: the rules of compatible definitions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.catalog import Catalog, Entity
from oomstream.schemas.errors import InvalidDefinition
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.plan import GroupPlan, Plan, make_plan
from tests.unit.schemas.definitions import MICROS, MILLIS, AnyGroup, any_group, catalog, field, schema

SPEED = field("speed", "double")
COUNT = field("count", ["null", "int"])
NOTE = field("note", "string", default="none")


def applied(definition: dict[str, Any], before: FeatureGroup | None = None) -> FeatureGroup:
    """The group after a definition was applied, with ids and a version as a store gives them."""
    plan = only(make_plan(catalog(before) if before else Catalog(), [group_from_avsc(definition)]))
    features = tuple(replace(each, id=each.id or number) for number, each in enumerate(plan.new.features, 1))
    return replace(plan.new, id=1, version=plan.new.version + 1, features=features)


def only(plan: Plan) -> GroupPlan:
    """The one group's plan."""
    (found,) = plan.groups
    return found


def change(before: dict[str, Any], after: dict[str, Any]) -> GroupPlan:
    """The plan from one definition to another."""
    return only(make_plan(catalog(applied(before)), [group_from_avsc(after)]))


def names(features: Any) -> list[str]:
    """Names of features."""
    return [each.name for each in features]


def test_a_new_group_is_registered_with_its_entity() -> None:
    """A new group's plan registers entity and group, adds every feature, and says so."""
    group = group_from_avsc(schema(SPEED, COUNT))
    plan = make_plan(Catalog(), [group])
    assert plan
    assert plan.entities == (Entity("driver", group.keys),)
    assert only(plan) == GroupPlan(None, group, added=group.features, changes=only(plan).changes)
    assert only(plan).changes == (
        "new group ride of entity driver, keys (id string), topic ride",
        "new feature ride.speed double",
        "new feature ride.count int or null",
    )


def test_two_new_groups_of_one_entity_register_it_once() -> None:
    """Groups of one apply may share a new entity."""
    groups = [group_from_avsc(schema(SPEED, group=name)) for name in ("a", "b")]
    plan = make_plan(Catalog(), groups)
    assert [each.name for each in plan.entities] == ["driver"]
    assert [each.new.name for each in plan.groups] == ["a", "b"]


@settings(deadline=None)
@given(any_group())
def test_the_same_definition_again_changes_nothing(any_one: AnyGroup) -> None:
    """A definition that is registered gives an empty plan, for any group."""
    group = applied(any_one.schema)
    plan = make_plan(catalog(group), [group_from_avsc(any_one.schema)])
    assert not plan
    assert plan == Plan()


def test_the_same_definition_written_otherwise_changes_nothing() -> None:
    """Order of attributes and a default null that is written out or not make no difference."""
    before = applied(schema(COUNT, doc="x", ttl="7d"))
    again = dict(reversed(schema(field("count", ["null", "int"], default=None), ttl="7d", doc="x").items()))
    assert not make_plan(catalog(before), [group_from_avsc(again)])


def test_no_definitions_change_nothing() -> None:
    """Groups that are not given stay as they are."""
    assert not make_plan(catalog(applied(schema())), [])


def test_new_features() -> None:
    """A new feature that is nullable or has a default is added, anywhere among the fields; others keep their ids."""
    plan = change(schema(SPEED), schema(COUNT, SPEED, NOTE))
    assert names(plan.added) == ["count", "note"]
    assert [(each.name, each.id) for each in plan.new.features] == [("count", 0), ("speed", 1), ("note", 0)]
    assert (plan.new.id, plan.new.version, plan.retired, plan.revived) == (1, 1, (), ())
    assert plan.changes == ("new feature ride.count int or null", "new feature ride.note string")


def test_doc_and_ttl_change() -> None:
    """Docs and the ttl may change; the plan says from what to what."""
    before = schema(SPEED, ttl="7d", doc="a")
    after = schema(field("speed", "double", doc="km/h"), ttl="90m", doc="b")
    plan = change(before, after)
    assert plan.changes == ("ttl of ride: 7d -> 90m", "doc of ride changed", "doc of ride.speed changed")
    assert (plan.new.ttl_us, plan.new.doc, plan.new.features[0].doc) == (5_400_000_000, "b", "km/h")
    assert change(before, schema(SPEED, doc="a")).changes == ("ttl of ride: 7d -> none",)


def test_other_annotations_and_order_change() -> None:
    """Attributes that are not ours and the order of fields may change, and are published."""
    assert change(schema(), schema(owner="me")).changes == ("annotations of the schema of ride changed",)
    plan = change(schema(SPEED, COUNT), schema(COUNT, SPEED))
    assert plan.changes == ("order of the features of ride changed",)
    assert [(each.name, each.id) for each in plan.new.features] == [("count", 2), ("speed", 1)]


def test_retired_and_revived() -> None:
    """A feature left out is retired and its name kept; it comes back as it was, with its id, nullable or defaulted."""
    one = applied(schema(SPEED, COUNT, NOTE))
    plan = only(make_plan(catalog(one), [group_from_avsc(schema())]))
    assert names(plan.retired) == ["speed", "count", "note"]
    assert plan.new.retired == one.features
    assert plan.changes[0] == "feature ride.speed is retired (its column stays)"
    two = replace(plan.new, version=2)
    assert not make_plan(catalog(two), [group_from_avsc(schema())])
    nullable = field("speed", ["null", "double"])
    plan = only(make_plan(catalog(two), [group_from_avsc(schema(NOTE, COUNT, nullable))]))
    assert names(plan.revived) == ["note", "count", "speed"]
    assert plan.new.retired == ()
    assert [each.id for each in plan.new.features] == [3, 2, 1]
    assert plan.added == plan.retired == ()
    assert plan.changes[0] == "feature ride.note is back"
    plan = only(make_plan(catalog(two), [group_from_avsc(schema(NOTE))]))
    assert names(plan.new.retired) == ["speed", "count"]


@pytest.mark.parametrize(
    ("feature", "rule"),
    [
        (field("speed", ["null", "float"]), "'speed' was double and cannot come back as float"),
        (field("speed", "double"), "'speed' can only come back nullable or with a default"),
        (field("speed", "double", default=1), "'speed' can only come back with the default null"),
        (field("count", ["null", "int"], default=1), "'count' can only come back with the default it had"),
        (field("note", "string", default="other"), "'note' can only come back with the default it had"),
        (field("NOTE", "string", default="none"), "'NOTE' and the retired feature 'note' differ only in case"),
    ],
)
def test_refused_revivals(feature: dict[str, Any], rule: str) -> None:
    """A retired feature cannot come back as another one: its column and the rows since then say what it was."""
    one = applied(schema(SPEED, COUNT, NOTE))
    two = replace(only(make_plan(catalog(one), [group_from_avsc(schema())])).new, version=2)
    with pytest.raises(InvalidDefinition, match=rule):
        make_plan(catalog(two), [group_from_avsc(schema(feature))])


WORD = {"type": "enum", "name": "word", "symbols": ["a", "b"]}
PRICE = {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        (schema(), schema(SPEED), "new feature 'speed' must be nullable or have a default"),
        (schema(SPEED), schema(field("Speed", "double")), "'Speed' and the feature 'speed' differ only in case"),
        (schema(SPEED), schema(field("speed", "float")), "'speed' cannot change its type from double to float"),
        (schema(SPEED), schema(field("speed", ["null", "double"])), "'speed' cannot become nullable; retire it"),
        (schema(COUNT), schema(field("count", "int")), "'count' was nullable and cannot become required; retire it"),
        (schema(COUNT), schema(field("count", ["int", "null"])), "'count' cannot change its order of union branches"),
        (schema(COUNT), schema(field("count", ["null", "int"], default=1)), "'count' cannot change its default"),
        (schema(NOTE), schema(field("note", "string", default="")), "'note' cannot change its default"),
        (schema(NOTE), schema(field("note", "string")), "'note' cannot change its default"),
        (schema(SPEED), schema(field("speed", "double", default=1)), "'speed' cannot change its default"),
        (
            schema(field("flag", ["boolean", "null"], default=True)),
            schema(field("flag", ["boolean", "null"], default=False)),
            "'flag' cannot change its default",
        ),
        (schema(field("f", "long")), schema(field("f", MICROS)), "'f' cannot change its type"),
        (schema(field("f", MILLIS)), schema(field("f", MICROS)), "'f' cannot change its type"),
        (schema(field("f", PRICE)), schema(field("f", PRICE | {"scale": 3})), "'f' cannot change its type"),
        (schema(field("f", PRICE)), schema(field("f", "bytes")), "'f' cannot change its type"),
        (schema(field("f", WORD)), schema(field("f", WORD | {"symbols": ["a", "b", "c"]})), "'f' cannot change"),
        (schema(field("f", "long", unit="s")), schema(field("f", "long", unit="ms")), "'f' cannot change its unit"),
        (schema(), schema() | {"entity": "car"}, "its entity cannot change from driver to car"),
        (schema(), schema(category="batch"), "its category cannot change"),
        (schema(), schema(topic="other"), "its topic cannot change from ride to other"),
        (schema(), schema(partitions=9), "its number of partitions cannot change from 8 to 9"),
        (schema(), schema(namespace="org"), "its record name cannot change"),
        (schema(), schema() | {"keys": ["id", "at2"]}, "key field"),
    ],
)
def test_refused_changes(before: dict[str, Any], after: dict[str, Any], rule: str) -> None:
    """A change that is not allowed is refused with a sentence that names the group, the field and the rule."""
    if after["keys"] == ["id", "at2"]:
        after["fields"].append(field("at2", "string"))
    with pytest.raises(InvalidDefinition, match=rule) as caught:
        change(before, after)
    assert str(caught.value).startswith("group ride: ")


def with_event_time(**attributes: Any) -> dict[str, Any]:
    """The definition with another event-time field."""
    definition = schema()
    definition["fields"][1] = {"name": "at", **attributes}
    return definition


@pytest.mark.parametrize(
    ("after", "rule"),
    [
        (with_event_time(type=MILLIS), "ride: the unit of the event-time field 'at' cannot change from us to ms"),
        (with_event_time(type="long", unit="s"), "unit of the event-time field 'at' cannot change from us to s"),
        (with_event_time(type="long", unit="us"), "field 'at' cannot change its logical type from timestamp-micros"),
    ],
)
def test_changes_that_keep_the_fingerprint_are_refused(after: dict[str, Any], rule: str) -> None:
    """Another unit or logical type has the same fingerprint, so old and new events could not be told apart."""
    assert group_from_avsc(after).fingerprint == group_from_avsc(schema()).fingerprint
    with pytest.raises(InvalidDefinition, match=rule):
        change(schema(), after)


def test_another_event_time_field_is_refused() -> None:
    """The event time cannot move to another field."""
    after = schema(field("then", MICROS)) | {"event_time": "then"}
    with pytest.raises(InvalidDefinition, match="its event-time field cannot change from at to then"):
        change(schema(), after)


def test_names_are_unique_without_regard_to_case() -> None:
    """Two groups or two entities whose names differ only in case are refused, registered or given together."""
    ride = applied(schema())
    with pytest.raises(InvalidDefinition, match="group 'Ride' and group 'ride' differ only in case"):
        make_plan(catalog(ride), [group_from_avsc(schema(group="Ride", topic="t"))])
    with pytest.raises(InvalidDefinition, match="entity 'Driver' and entity 'driver' differ only in case"):
        make_plan(catalog(ride), [group_from_avsc(schema(group="b") | {"entity": "Driver"})])
    both = [group_from_avsc(schema(group=name, topic=topic)) for name, topic in (("b", "t"), ("B", "u"))]
    with pytest.raises(InvalidDefinition, match="differ only in case"):
        make_plan(Catalog(), both)


def test_a_group_defined_twice_is_refused() -> None:
    """Two definitions of one group in one apply contradict each other."""
    with pytest.raises(InvalidDefinition, match="group ride: defined twice"):
        make_plan(Catalog(), [group_from_avsc(schema()), group_from_avsc(schema(SPEED))])


@pytest.mark.parametrize(
    ("first", "second", "rule"),
    [
        ("t", "t", "its topic 't' is the topic of group a"),
        ("t", "t.dlq", "its topic 't.dlq' is the dead-letter topic of group a"),
        ("t.dlq", "t", "its dead-letter topic 't.dlq' is the topic of group a"),
        ("t.u", "t_u", "its topic 't_u' is the topic of group a; Kafka takes names"),
        ("t", "t_dlq", "its topic 't_dlq' is the dead-letter topic of group a; Kafka takes names"),
    ],
)
def test_one_topic_carries_one_group(first: str, second: str, rule: str) -> None:
    """A second group on a topic, or on its dead-letter topic's name, is refused, registered or given together."""
    one, two = (group_from_avsc(schema(group=name, topic=topic)) for name, topic in (("a", first), ("b", second)))
    for known, given_groups in ((Catalog(), [one, two]), (catalog(one), [two])):
        with pytest.raises(InvalidDefinition, match=rule):
            make_plan(known, given_groups)


def test_batch_groups_have_no_topic() -> None:
    """A batch group takes no topic away from a stream group."""
    one = group_from_avsc(schema(group="a", topic="t"))
    two = group_from_avsc(schema(group="b", category="batch"))
    assert len(make_plan(Catalog(), [one, two]).groups) == 2


@pytest.mark.parametrize("kind", ["bytes", "long"])
def test_groups_of_an_entity_have_the_same_keys(kind: str) -> None:
    """A group whose key fields differ from the entity's in name, type or order is refused."""
    ride = applied(schema())
    other = schema(group="b")
    other["fields"][0] = field("id", kind)
    with pytest.raises(InvalidDefinition, match=f"its key fields are \\(id {kind}\\) but those of entity driver"):
        make_plan(catalog(ride), [group_from_avsc(other)])
    renamed = schema(group="b") | {"keys": ["key"]}
    renamed["fields"][0] = field("key", "string")
    with pytest.raises(InvalidDefinition, match="all groups of an entity have the same key fields"):
        make_plan(Catalog(), [group_from_avsc(schema()), group_from_avsc(renamed)])


def test_an_entity_registered_without_groups_takes_the_first_groups_keys() -> None:
    """An entity that has no key fields yet is not registered again, and any group may be its first."""
    known = Catalog({"driver": Entity("driver", id=1)})
    plan = make_plan(known, [group_from_avsc(schema())])
    assert plan.entities == ()
    assert len(plan.groups) == 1


@settings(deadline=None)
@given(any_group(), any_group())
def test_any_two_definitions_give_a_plan_or_a_refusal(before: AnyGroup, after: AnyGroup) -> None:
    """Whatever changes, the result is a plan whose group carries all features there ever were, or a refusal."""
    old = applied(before.schema)
    try:
        plan = make_plan(catalog(old), [group_from_avsc(after.schema)])
    except InvalidDefinition:
        return
    for each in plan.groups:
        assert set(names(each.new.features)) | set(names(each.new.retired)) >= set(names(old.features))
        assert each.changes


@settings(deadline=None)
@given(st.data())
def test_a_chain_of_changes_keeps_every_name(data: st.DataObject) -> None:
    """Over any chain of adding, retiring and reviving, ids stay with names and no name is lost."""
    pool = [field(f"f{number}", ["null", kind]) for number, kind in enumerate(["int", "string", "double", "bytes"])]
    group = applied(schema())
    ids: dict[str, int] = {}
    for _ in range(data.draw(st.integers(1, 6))):
        chosen = data.draw(st.lists(st.sampled_from(pool), unique_by=lambda each: str(each["name"])))
        plan = make_plan(catalog(group), [group_from_avsc(schema(*chosen))])
        if not plan:
            continue
        new = only(plan).new
        features = tuple(replace(each, id=each.id or len(ids) + at + 1) for at, each in enumerate(new.features))
        group = replace(new, features=features, version=new.version + 1)
        ids |= {each.name: ids.get(each.name, each.id) for each in group.features}
        assert {each.name: each.id for each in (*group.features, *group.retired)} == ids
        assert names(group.features) == [each["name"] for each in chosen]
