"""Definitions in oomstore's YAML: both ways, and what they become."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomstream.schemas.catalog import Catalog, RegisteredGroup, WriterSchema
from oomstream.schemas.errors import InvalidDefinition
from oomstream.schemas.groups import Category, EventTimeField, FeatureGroup, TimeUnit
from oomstream.schemas.plan import make_plan
from oomstream.schemas.value_types import value_type_name
from oomstream.schemas.yaml_definitions import (
    EntityDefinition,
    FeatureDefinition,
    GroupDefinition,
    YamlDefinitions,
    complete,
)
from oomstream.schemas.yaml_text import (
    entity_document,
    feature_document,
    group_document,
    load_yaml,
    yaml_text,
)
from tests.unit.schemas.definitions import catalog, field, registered, schema

USER = """\
kind: Entity
name: user
description: user ID
groups:
  - name: account
    category: batch
    description: user account info
    features:
      - name: state
        value-type: string
        description: ''
      - name: 2fa_installed
        value-type: bool
        description: whether 2FA is on
  - name: user-click
    category: stream
    snapshot-interval: 24h
    description: ''
    features:
      - name: number_of_posts
        value-type: int64
        description: ''
"""

VALUE_TYPES = ["string", "int64", "float64", "bool", "time", "bytes", "int", "float", "date", "array<float>"]


def catalog_of(text: str) -> Catalog:
    """A catalog in which a YAML text was applied."""
    done = complete(load_yaml(text, "test.yaml"), Catalog())
    made = catalog(*(replace(each, id=at, version=1) for at, each in enumerate(done.groups, 1)))
    entities = {each.name: replace(each, id=at) for at, each in enumerate(done.entities, 1)}
    return Catalog({**made.entities, **entities}, made.groups)


def completed(text: str, before: Catalog | None = None) -> list[FeatureGroup]:
    """The groups of a YAML text."""
    return complete(load_yaml(text, "test.yaml"), before or Catalog()).groups


def test_a_group_becomes_an_avro_schema() -> None:
    """The key is a string named after the entity, features are nullable, the event time is unix_milli."""
    batch, stream = completed(USER)
    assert [(key.name, str(key.type)) for key in stream.keys] == [("user", "string")]
    assert stream.event_time == EventTimeField("unix_milli", TimeUnit.MILLISECOND)
    assert (stream.category, stream.topic) == (Category.STREAM, "user-click")
    assert (batch.category, batch.event_time, batch.topic) == (Category.BATCH, None, "")
    assert [(each.name, each.nullable, each.default) for each in batch.features] == [
        ("state", True, None),
        ("2fa_installed", True, None),
    ]
    assert batch.features[1].doc == "whether 2FA is on"


def test_each_value_type_has_an_avro_type() -> None:
    """Each of oomstore's value types stands for an Avro type, and is what the Avro type is called."""
    names = ["string", "int64", "float64", "bool", "bytes", "time"]
    features = tuple(FeatureDefinition(f"f{at}", "g", name) for at, name in enumerate(names))
    definitions = YamlDefinitions((EntityDefinition("e"),), (GroupDefinition("g", "e", Category.STREAM),), features)
    (group,) = complete(definitions, Catalog()).groups
    types = ["string", "long", "double", "boolean", "bytes", "timestamp-micros"]
    assert [str(each.type) for each in group.features] == types
    assert [value_type_name(each.type) for each in group.features] == names


def test_names_that_avro_does_not_allow_have_avro_names_of_their_own() -> None:
    """Names with `-` and names that begin with a digit are kept; the Avro schema is legal, and no two names meet."""
    features = tuple(FeatureDefinition(name, "2-g", "int64") for name in ("2fa", "a-b", "a_b"))
    definitions = YamlDefinitions(
        (EntityDefinition("an-e"),), (GroupDefinition("2-g", "an-e", Category.STREAM),), features
    )
    (group,) = complete(definitions, Catalog()).groups
    assert (group.name, group.key_names) == ("2-g", ("an-e",))
    assert [each.name for each in group.features] == ["2fa", "a-b", "a_b"]
    assert group.schema["name"] == "_2_g"
    assert [each["name"] for each in group.schema["fields"]] == ["an_e", "unix_milli", "_2fa", "a_b", "a_b_2"]


def test_documents_are_printed_as_they_are_written() -> None:
    """What is read comes back letter by letter: nested under the entity, lists indented by two, intervals as given."""
    made = catalog_of(USER)
    groups = [each.group for each in made.groups.values()]
    assert yaml_text([entity_document(made.entities["user"], groups)]) == USER


def test_one_object_is_itself_and_several_are_items() -> None:
    """YAML of one object is the object, of several `items`."""
    (group,) = (each for each in completed(USER) if each.name == "account")
    features = [feature_document(group, each) for each in group.features]
    assert yaml_text(features[:1]) == (
        "kind: Feature\nname: state\ngroup-name: account\nvalue-type: string\ndescription: ''\n"
    )
    assert yaml_text(features) == (
        "items:\n"
        "  - kind: Feature\n    name: state\n    group-name: account\n    value-type: string\n    description: ''\n"
        "  - kind: Feature\n    name: 2fa_installed\n    group-name: account\n    value-type: bool\n"
        "    description: whether 2FA is on\n"
    )
    assert yaml_text([group_document(replace(group, features=()))]) == (
        "kind: Group\nname: account\nentity-name: user\ncategory: batch\ndescription: user account info\n"
    )


def test_documents_may_come_apart_and_in_any_order() -> None:
    """One nested document, several documents and `items` define the same."""
    apart = """\
kind: Feature
name: number_of_posts
group-name: user-click
value-type: int64
---
items:
  - {kind: Group, name: account, entity-name: user, category: batch, description: user account info}
  - {kind: Group, name: user-click, entity-name: user, category: stream, snapshot-interval: 24h}
---
kind: Feature
name: state
group-name: account
value-type: string
---
{kind: Feature, name: 2fa_installed, group-name: account, value-type: bool, description: whether 2FA is on}
---
kind: Entity
name: user
description: user ID
"""
    before, after = catalog_of(USER), complete(load_yaml(apart, "apart.yaml"), Catalog())
    assert not make_plan(before, complete(load_yaml(apart, "apart.yaml"), before).groups, after.entities)
    assert {each.name: each.features for each in after.groups} == {
        name: each.group.features for name, each in before.groups.items()
    }


def test_what_is_not_said_stays() -> None:
    """A document without a description, an interval or some features changes none of them."""
    before = catalog_of(USER)
    text = "kind: Group\nname: user-click\n---\nkind: Entity\nname: user\n"
    done = complete(load_yaml(text, "test.yaml"), before)
    assert not make_plan(before, done.groups, done.entities)


def test_a_feature_is_added_to_a_group_that_has_none() -> None:
    """Entities without groups and groups without features can be registered first, the rest later."""
    before = catalog_of(
        "kind: Entity\nname: device\n---\nkind: Group\nname: phone\nentity-name: device\ncategory: batch"
    )
    assert before.groups["phone"].group.features == ()
    (group,) = completed("kind: Feature\nname: price\ngroup-name: phone\nvalue-type: int64", before)
    (plan,) = make_plan(before, [group]).groups
    assert [each.name for each in plan.added] == ["price"]


def test_a_new_group_of_a_known_entity_has_its_key_fields() -> None:
    """The entity key of a group defined in YAML is that of the entity's other groups, whatever it is."""
    before = catalog(
        registered(
            schema(
                keys=["id", "day"],
                fields=[
                    field("id", "string"),
                    field("day", {"type": "int", "logicalType": "date"}),
                    field("at", "long", unit="s"),
                ],
            )
        ).group
    )
    (group,) = completed("kind: Group\nname: more\nentity-name: driver\ncategory: stream", before)
    assert group.keys == before.groups["ride"].group.keys


def test_a_schema_keeps_what_yaml_cannot_say() -> None:
    """A feature added by YAML to a group from an Avro schema leaves its ttl, types and defaults alone."""
    old = registered(schema(field("vector", {"type": "array", "items": "float"}, default=[]), ttl="7d")).group
    (group,) = completed("kind: Feature\nname: price\ngroup-name: ride\nvalue-type: int64", catalog(old))
    assert (group.ttl_us, group.features[0]) == (old.ttl_us, old.features[0])


def test_the_description_of_an_entity_can_change() -> None:
    """The plan then holds the entity, and nothing else."""
    before = catalog_of(USER)
    done = complete(load_yaml("kind: Entity\nname: user\ndescription: new", "test.yaml"), before)
    plan = make_plan(before, done.groups, done.entities)
    assert [(each.id, each.doc) for each in plan.entities] == [(1, "new")]
    assert not plan.groups


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: b: c", "not YAML: mapping values are not allowed here at line 1"),
        ("kind: Entity\nname: x\nname: y", "'name' is there twice at line 3"),
        ("&a [*a]", "document at line 1: is not a mapping"),
        ("[" * 5000, "nested too deeply"),
        ("kind: !!python/object:os.system x", "not YAML: could not determine a constructor"),
        ("", "holds no definitions"),
        (b"\xff", "not UTF-8"),
        ("kind: Entity", "name is missing"),
        ("kind: Thing\nname: x", "kind must be Entity, Group or Feature"),
        ("kind: Entity\nname: x\nlength: 8", "unknown field 'length'"),
        ("kind: Entity\nname: [x]", "name must be text"),
        ("kind: Entity\nname: x\n---\nkind: Entity\nname: x", "line 4, entity x: is defined twice"),
        ("kind: Group\nname: x\nentity-name: e\ncategory: live", "category is 'live' instead of batch or stream"),
        ("kind: Feature\nname: x\nvalue-type: int64", "group-name is missing"),
        ("items: {}", "items must be a list"),
    ],
)
def test_what_is_wrong_is_named(text: str | bytes, sentence: str) -> None:
    """A text that holds no definitions is refused with the file, the line and the reason."""
    with pytest.raises(InvalidDefinition, match=r"^bad\.yaml") as caught:
        load_yaml(text, "bad.yaml")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "kind: Group\nname: g\nentity-name: nobody\ncategory: batch",
            "entity 'nobody' is neither registered nor defined",
        ),
        ("kind: Group\nname: g\ncategory: batch", "entity-name is missing"),
        ("kind: Group\nname: g\nentity-name: user", "category is missing"),
        (
            "kind: Group\nname: account\nentity-name: user\ncategory: stream",
            "category cannot change from batch to stream",
        ),
        ("kind: Group\nname: user-click\nsnapshot-interval: soon", "snapshot-interval 'soon' is not a duration"),
        ("kind: Feature\nname: f\ngroup-name: nothing\nvalue-type: int64", "group 'nothing' is neither registered"),
        ("kind: Feature\nname: f\ngroup-name: account", "value-type is missing"),
        ("kind: Feature\nname: f\ngroup-name: account\nvalue-type: uuid", "value-type 'uuid' is none of"),
        ("kind: Feature\nname: state\ngroup-name: account\nvalue-type: int64", "cannot change its type from string"),
        ("kind: Feature\nname: user\ngroup-name: account\nvalue-type: int64", "is part of the entity key"),
        ("kind: Feature\nname: unix_milli\ngroup-name: user-click\nvalue-type: int64", "is the event time"),
        ("kind: Feature\nname: a b\ngroup-name: account\nvalue-type: int64", "'a b' is not 1 to 63"),
        ("kind: Entity\nname: _user", "begins with _"),
    ],
)
def test_what_cannot_be_is_named(text: str, sentence: str) -> None:
    """Definitions that do not fit together, or to what is registered, are refused by name."""
    with pytest.raises(InvalidDefinition) as caught:
        complete(load_yaml(text, "bad.yaml"), catalog_of(USER))
    assert sentence in str(caught.value)


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)
TEXTS = st.none() | st.text(max_size=20)
INTERVALS = st.none() | st.sampled_from(["0s", "1s", "24h", "1h30m", "1.5s"])


def some_names(at_least: int = 0) -> st.SearchStrategy[list[str]]:
    """Up to three names that differ in more than case."""
    return st.lists(NAMES, min_size=at_least, max_size=3, unique_by=str.lower)


@st.composite
def any_definitions(draw: st.DrawFn) -> YamlDefinitions:
    """Entities with groups with features, named in any way."""
    entities, groups, features = [], [], []
    names = iter(draw(st.lists(NAMES, unique_by=str.lower, min_size=9, max_size=9)))
    for entity in draw(some_names(1)):
        entities.append(EntityDefinition(entity, draw(TEXTS)))
        for _ in range(draw(st.integers(0, 3))):
            category, name = draw(st.sampled_from(Category)), next(names)
            groups.append(GroupDefinition(name, entity, category, draw(INTERVALS), draw(TEXTS)))
            features += [
                FeatureDefinition(feature, name, draw(st.sampled_from(VALUE_TYPES)), draw(TEXTS))
                for feature in draw(some_names())
                if feature.lower() not in {entity.lower(), "unix_milli"}
            ]
    return YamlDefinitions(tuple(entities), tuple(groups), tuple(features))


@settings(deadline=None)
@given(any_definitions())
def test_definitions_survive_the_way_through_yaml(definitions: YamlDefinitions) -> None:
    """Definitions -> YAML -> definitions gives the same groups and entities; applied again, it changes nothing."""
    first = complete(definitions, Catalog())
    text = yaml_text([entity_document(each, first.groups) for each in first.entities])
    again = complete(load_yaml(text, "again.yaml"), Catalog())
    assert {each.name: each for each in again.groups} == {each.name: each for each in first.groups}
    assert again.entities == first.entities
    groups = {
        each.name: RegisteredGroup(each, {each.fingerprint: WriterSchema(1, each.fingerprint, each.schema)})
        for each in first.groups
    }
    before = Catalog({each.name: replace(each, id=1) for each in first.entities}, groups)
    done = complete(load_yaml(text, "again.yaml"), before)
    assert not make_plan(before, done.groups, done.entities)
