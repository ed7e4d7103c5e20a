"""Definitions from Avro schemas: what is read, and case 6 and all else that is refused."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomstream.schemas.avsc import fingerprint, group_from_avsc, load_avsc
from oomstream.schemas.errors import InvalidDefinition, InvalidRequest
from oomstream.schemas.groups import NO_DEFAULT, Category, Feature, TimeUnit
from oomstream.schemas.types import Kind, ValueType
from tests.unit.schemas.definitions import DATE, MICROS, MILLIS, any_group, field, schema

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}
FIXED = {"type": "fixed", "name": "money", "size": 5, "logicalType": "decimal", "precision": 10, "scale": 2}
ENUM = {"type": "enum", "name": "word", "symbols": ["on", "off"]}


def feature(kind: Any, **attributes: Any) -> Feature:
    """The feature that a field of this type becomes."""
    return group_from_avsc(schema(field("f", kind, **attributes))).features[0]


def test_a_whole_definition() -> None:
    """Every attribute of a definition is read."""
    group = group_from_avsc(
        schema(
            field("speed", ["null", "double"], doc="km/h"),
            group="ride-now",
            ttl="7d",
            topic="rides.v1",
            partitions=3,
            category="stream",
            doc="Rides",
        )
    )
    assert (group.name, group.entity, group.key_names) == ("ride-now", "driver", ("id",))
    assert (group.event_time_field.name, group.event_time_field.unit) == ("at", TimeUnit.MICROSECOND)
    assert group.features == (Feature("speed", ValueType(Kind.DOUBLE), nullable=True, default=None, doc="km/h"),)
    assert (group.ttl_us, group.topic, group.partitions) == (604_800_000_000, "rides.v1", 3)
    assert (group.category, group.doc, group.dlq_topic) == (Category.STREAM, "Rides", "rides.v1.dlq")
    assert (group.id, group.version, group.retired) == (0, 0, ())


def test_a_batch_group() -> None:
    """A batch group has no event time, and nothing else that only streams have."""
    group = group_from_avsc(schema(field("speed", "double"), category="batch"))
    assert (group.category, group.event_time, group.topic, group.partitions) == (Category.BATCH, None, "", 0)
    assert [each.name for each in group.features] == ["speed"]
    assert group_from_avsc(group.schema) == group
    with pytest.raises(InvalidRequest, match="ride is a batch group: it takes no events"):
        _ = group.event_time_field


@pytest.mark.parametrize("attribute", [{"event_time": "at"}, {"ttl": "7d"}, {"topic": "t"}, {"partitions": 3}])
def test_a_batch_group_is_no_stream(attribute: dict[str, Any]) -> None:
    """What only streams have is refused in a batch group, by name."""
    with pytest.raises(InvalidDefinition, match=f"group ride: {next(iter(attribute))} is for stream groups"):
        group_from_avsc(schema(category="batch") | attribute)


def test_defaults_of_a_definition() -> None:
    """What a definition leaves out: name of the record, topic of the group's name, 8 partitions, no ttl, stream."""
    group = group_from_avsc(schema(namespace="com.example"))
    assert (group.name, group.topic, group.partitions, group.ttl_us) == ("ride", "ride", 8, None)
    assert (group.category, group.doc, group.features) == (Category.STREAM, "", ())
    assert group_from_avsc(schema() | {"name": "com.example.ride"}).name == "ride"


@settings(deadline=None)
@given(any_group())
def test_a_definition_is_read_back_from_its_schema(any_one: Any) -> None:
    """`FeatureGroup.schema`, as JSON text and back, gives an equal group."""
    group = group_from_avsc(any_one.schema)
    assert group_from_avsc(json.loads(json.dumps(group.schema))) == group
    assert group_from_avsc(group.schema).schema == group.schema


def test_the_given_schema_is_left_as_it_is() -> None:
    """Reading a definition does not change the schema that was passed in."""
    given_schema = schema(field("f", ["null", "int"]))
    before = copy.deepcopy(given_schema)
    assert group_from_avsc(given_schema).schema != before
    assert given_schema == before


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("boolean", ValueType(Kind.BOOLEAN)),
        ({"type": "string"}, ValueType(Kind.STRING)),
        ({"type": "string", "avro.java.string": "String"}, ValueType(Kind.STRING)),
        (DATE, ValueType(Kind.DATE)),
        (MILLIS, ValueType(Kind.TIMESTAMP_MILLIS)),
        (MICROS, ValueType(Kind.TIMESTAMP_MICROS)),
        (DECIMAL, ValueType(Kind.DECIMAL, precision=10, scale=2)),
        (FIXED, ValueType(Kind.DECIMAL, precision=10, scale=2, fixed_size=5)),
        (ENUM, ValueType(Kind.ENUM, symbols=("on", "off"))),
        ({"type": "array", "items": "float"}, ValueType(Kind.ARRAY, item=ValueType(Kind.FLOAT))),
        ({"type": "array", "items": DATE}, ValueType(Kind.ARRAY, item=ValueType(Kind.DATE))),
    ],
)
def test_types(kind: Any, expected: ValueType) -> None:
    """Every type of the type table is read, alone and nullable with null first or last."""
    assert feature(kind) == Feature("f", expected)
    for union in (["null", kind], [kind, "null"]):
        assert feature(union) == Feature("f", expected, nullable=True, default=None)


def test_named_types_are_found_by_name() -> None:
    """An enum or fixed type declared in one field can be used in another, by short and by full name."""
    group = group_from_avsc(
        schema(
            field("a", ENUM),
            field("b", ["null", "word"]),
            field("c", {"type": "array", "items": "org.word"}),
            field("d", FIXED),
            field("e", "org.money"),
            namespace="org",
        )
    )
    assert [each.type.kind for each in group.features] == [Kind.ENUM, Kind.ENUM, Kind.ARRAY, Kind.DECIMAL, Kind.DECIMAL]


@pytest.mark.parametrize(
    ("kind", "default", "plain"),
    [
        ("int", 7, 7),
        ("double", 7, 7.0),
        ("double", -0.0, 0.0),
        ("float", 0.1, 0.10000000149011612),
        ("string", "", ""),
        ("boolean", False, False),
        ("bytes", "\u00ff\u0000", b"\xff\x00"),
        (DATE, 1, 1),
        (MILLIS, 5, 5000),
        (MICROS, 5, 5),
        (DECIMAL, "\u0000\u007b", "1.23"),
        (FIXED, "\u0000\u0000\u0000\u0000\u007b", "1.23"),
        (ENUM, "off", "off"),
        ({"type": "array", "items": "int"}, [1, 2], "[1,2]"),
        ({"type": "array", "items": "bytes"}, ["\u00ff"], '["/w=="]'),
        (["null", "int"], None, None),
        (["null", "int"], 5, 5),
        (["int", "null"], 5, 5),
        (["int", "null"], None, None),
    ],
)
def test_defaults(kind: Any, default: Any, plain: Any) -> None:
    """Defaults are read as Avro writes them in JSON, for any branch of a union, and kept in plain form."""
    found = feature(kind, default=default)
    assert found.default == plain
    assert type(found.default) is type(plain)


def test_a_nullable_feature_has_default_null_in_the_schema_too() -> None:
    """The default null that a schema leaves out is filled in, and changes nothing of the fingerprint."""
    left_out = group_from_avsc(schema(field("f", ["null", "int"])))
    written = group_from_avsc(schema(field("f", ["null", "int"], default=None)))
    assert left_out == written
    assert left_out.schema == written.schema
    assert feature("int").default is NO_DEFAULT


@pytest.mark.parametrize(
    ("attributes", "unit"),
    [
        ({"type": MICROS}, TimeUnit.MICROSECOND),
        ({"type": MILLIS, "unit": "ms"}, TimeUnit.MILLISECOND),
        ({"type": "long", "unit": "s"}, TimeUnit.SECOND),
        ({"type": {"type": "long", "unit": "ms"}}, TimeUnit.MILLISECOND),
    ],
)
def test_event_time(attributes: dict[str, Any], unit: TimeUnit) -> None:
    """The event time is a timestamp, or a long with a unit on the field or its type."""
    definition = schema()
    definition["fields"][1] = {"name": "at", **attributes}
    assert group_from_avsc(definition).event_time_field.unit is unit


def test_fingerprint_is_avros() -> None:
    """The fingerprint is that of other Avro libraries, little-endian: it ignores defaults, docs and our attributes."""
    group = group_from_avsc(schema(field("f", ["null", "int"]), ttl="7d", doc="x"))
    bare = {key: group.schema[key] for key in ("type", "name", "fields")}
    canonical = fastavro.schema.to_parsing_canonical_form(bare)
    assert group.fingerprint.hex() == fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
    # From the Avro specification's table: CRC-64-AVRO of "null" is 7195948357588979594, and single-object encoding
    # writes it little-endian.
    assert bytes.fromhex(fastavro.schema.fingerprint('"null"', "CRC-64-AVRO")) == (7195948357588979594).to_bytes(
        8, "little"
    )
    assert fingerprint(group.schema) == group.fingerprint


AN_EMOJI = "\N{ROCKET}"
BAD_NAMES = ['qu"ote', "qu'ote", "back`tick", "semi;colon", "a b", AN_EMOJI, "ä", "a.b", "", "x" * 300, "_mine", "a\n"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_case_6_names(name: str) -> None:
    """Case 6: groups, entities, keys, event times, features and topics of impossible names are refused by name."""
    renamed_key = schema() | {"keys": [name]}
    renamed_key["fields"] = [field(name, "string"), field("at", MICROS)]
    renamed_time = schema() | {"event_time": name}
    renamed_time["fields"] = [field("id", "string"), field(name, MICROS)]
    for definition in (
        schema(group=name),
        schema() | {"entity": name},
        schema(field(name, "int")),
        renamed_key,
        renamed_time,
    ):
        with pytest.raises(InvalidDefinition, match=r"^(group|record) '?ride'?: "):
            group_from_avsc(definition)
    if name not in ("a.b", "_mine"):
        with pytest.raises(InvalidDefinition, match="topic"):
            group_from_avsc(schema(topic=name))


def test_case_6_reserved_words_and_longest_names_are_fine() -> None:
    """Case 6: SQL's reserved words are names like any other, since every identifier is quoted; so are long ones."""
    names = ["select", "table", "NULL", "rowid", "x" * 63, "2fa_installed"]
    group = group_from_avsc(schema(*(field(name, "int") for name in names), group="g" * 48))
    assert [each.name for each in group.features] == names


LONG = "x" * 64


@pytest.mark.parametrize(
    ("definition", "rule"),
    [
        (schema(group="g" * 49), "1 to 48"),
        (schema() | {"entity": LONG}, "1 to 63"),
        (schema(field(LONG, "int")), "1 to 63"),
        (schema(field("F", "int"), field("f", "int")), "'F' and 'f' differ only in case"),
        (schema(field("ID", "int")), "'id' and 'ID' differ only in case"),
        (schema(field("f", "int"), field("f", "int")), "'f' is there twice"),
        (schema(field("f", "int", aliases=["g"])), "'f' has aliases"),
        (schema(topic="x" * 246), "topic"),
        (schema(topic=".."), "topic"),
        (schema(partitions=0), "partitions"),
        (schema(partitions=True), "partitions"),
        (schema(category="table"), "category"),
        (schema(ttl="7 days"), "ttl"),
        (schema(ttl="0s"), "ttl"),
        (schema(ttl=7), "ttl"),
        (schema(doc=7), "doc"),
        (schema() | {"entity": None}, "entity"),
        (schema() | {"keys": []}, "keys"),
        (schema() | {"keys": "id"}, "keys"),
        (schema() | {"keys": ["id"] * 2}, "keys name a field twice"),
        (schema() | {"keys": [f"k{number}" for number in range(9)]}, "1 to 8"),
        (schema() | {"keys": ["nope"]}, "key field 'nope' is not a field"),
        (schema() | {"keys": ["at"]}, "'at' is both a key and the event time|key field 'at' is timestamp-micros"),
        (schema() | {"event_time": "nope"}, "event-time field 'nope' is not a field"),
        (schema() | {"event_time": None}, "event_time must name"),
        (schema() | {"event_time": "id"}, "'id' is string"),
        (schema(name="_ride"), "begins with _"),
    ],
)
def test_refused_attributes(definition: dict[str, Any], rule: str) -> None:
    """An attribute that breaks a rule is refused with a sentence that names the group and the attribute."""
    with pytest.raises(InvalidDefinition, match=rule) as caught:
        group_from_avsc(definition)
    assert "ride" in str(caught.value) or "ggg" in str(caught.value)


def with_field(position: int, replacement: dict[str, Any]) -> dict[str, Any]:
    """The definition with another key field (0) or event-time field (1)."""
    definition = schema()
    definition["fields"][position] = replacement
    return definition


@pytest.mark.parametrize(
    ("definition", "rule"),
    [
        (with_field(0, field("id", ["null", "string"])), "key field 'id' is nullable"),
        (with_field(0, field("id", "string", default="")), "key field 'id' has a default"),
        (with_field(0, field("id", "double")), "key field 'id' is double"),
        (with_field(0, field("id", MILLIS)), "key field 'id' is timestamp-millis"),
        (with_field(1, field("at", "long")), "'at' is a long and needs \"unit\""),
        (with_field(1, field("at", "long", unit="min")), "'at' has a unit that is not"),
        (with_field(1, field("at", MICROS, unit="ms")), "'at' has a unit that contradicts"),
        (with_field(1, field("at", ["null", MICROS])), "event-time field 'at' is nullable"),
        (with_field(1, field("at", "int", unit="s")), "event-time field 'at' is int"),
    ],
)
def test_refused_keys_and_event_times(definition: dict[str, Any], rule: str) -> None:
    """A key or event time that not every event can have is refused by name."""
    with pytest.raises(InvalidDefinition, match=rule):
        group_from_avsc(definition)


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("null", "can only be null"),
        ("uuid", "unknown type 'uuid'"),
        ("ride", "recursive"),
        (["null", "ride"], "recursive"),
        ({"type": "array", "items": "ride"}, "recursive"),
        ({"type": "record", "name": "inner", "fields": []}, "nested record"),
        (["null", {"type": "record", "name": "inner", "fields": []}], "nested record"),
        ({"type": "map", "values": "int"}, "is a map"),
        (["null", "int", "string"], "is a union"),
        (["int", "string"], "is a union"),
        (["null"], "is a union"),
        (["null", "null"], "is a union"),
        ([], "is a union"),
        ({"type": "array", "items": ["null", "int"]}, "a union within a type"),
        ({"type": "array", "items": "null"}, "can only be null"),
        ({"type": "array", "items": {"type": "array", "items": "int"}}, "array of arrays"),
        ({"type": "array"}, "not Avro"),
        ({"type": "fixed", "name": "f", "size": 4}, "fixed bytes with no logicalType decimal"),
        ({"type": "fixed", "name": "f", "size": 12, "logicalType": "duration"}, "fixed bytes"),
        ({"type": "string", "logicalType": "uuid"}, "logical type 'uuid'"),
        ({"type": "int", "logicalType": "time-millis"}, "logical type 'time-millis'"),
        ({"type": "long", "logicalType": "local-timestamp-micros"}, "logical type 'local-timestamp-micros'"),
        ({"type": "long", "logicalType": "timestamp-nanos"}, "logical type 'timestamp-nanos'"),
        ({"type": "long", "logicalType": "date"}, "logical type 'date' on 'long'"),
        ({"type": "int", "logicalType": 7}, "logicalType that is not text"),
        ({"type": "string", "logicalType": "decimal", "precision": 4}, "neither bytes nor fixed"),
        (DECIMAL | {"precision": 39}, "precision outside 1 to 38"),
        (DECIMAL | {"precision": 0}, "precision"),
        (DECIMAL | {"precision": True}, "precision"),
        (DECIMAL | {"scale": 11}, "scale"),
        (DECIMAL | {"scale": -1}, "scale"),
        (FIXED | {"size": 4}, "size must be 5 to 128"),
        (FIXED | {"size": 10**9}, "size must be 5 to 128"),
        ({"type": "enum", "name": "e", "symbols": []}, "no list of symbols"),
        ({"type": "enum", "name": "e", "symbols": ["a", "a"]}, "the same symbol twice"),
        ({"type": "enum", "name": "e", "symbols": [1]}, "no list of symbols"),
        ({"type": "enum", "symbols": ["a"]}, "needs a name"),
        ({"type": "enum", "name": "ride", "symbols": ["a"]}, "declares the name 'ride' a second time"),
        (7, "not Avro"),
        ({"type": 7}, "not Avro"),
        ({"type": {"type": "string"}}, "not Avro"),
        (None, "not Avro"),
    ],
)
def test_refused_types(kind: Any, rule: str) -> None:
    """A type outside the type table is refused with a sentence that names the group, the field and the rule."""
    with pytest.raises(InvalidDefinition, match=rule) as caught:
        feature(kind)
    assert str(caught.value).startswith("group ride: field 'f'")


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        ("int", None),
        ("int", 1 << 31),
        ("int", "1"),
        ("int", 1.0),
        ("int", True),
        ("double", "x"),
        ("double", float("nan")),
        ("string", 1),
        ("string", "\ud800"),
        ("bytes", "\u0100"),
        (DATE, "2024-01-01"),
        (MICROS, "2024-01-01T00:00:00Z"),
        (DECIMAL, "1.23"),
        (DECIMAL, 1),
        (FIXED, "\u0001"),
        (ENUM, "maybe"),
        ({"type": "array", "items": "int"}, 1),
        ({"type": "array", "items": "int"}, [None]),
        (["null", "int"], "x"),
    ],
)
def test_refused_defaults(kind: Any, default: Any) -> None:
    """A default that is not a value of the field's type is refused by name."""
    if (kind, default) == (DECIMAL, "1.23"):
        kind = DECIMAL | {"precision": 4}  # four bytes of text are a number of ten digits
    with pytest.raises(InvalidDefinition, match=r"field 'f' has (a|the) default"):
        feature(kind, default=default)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "not JSON"),
        ("{", "line 1 column 2"),
        ('{"type":"record","type":"record"}', "'type' is there twice"),
        ('{"a":NaN}', "NaN"),
        (b"\xff", "not UTF-8"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "not an Avro record"),
        ('"record"', "not an Avro record"),
        ('{"type":"enum","name":"x"}', "not an Avro record"),
        ('{"type":"record","name":"x"}', "no list of fields"),
        ('{"type":"record"}', "no name"),
        (b" " * (5 << 20), "longer than"),
    ],
)
def test_load_refuses_with_the_path(text: str | bytes, rule: str) -> None:
    """Text that is no definition is refused in one sentence that begins with the path."""
    with pytest.raises(InvalidDefinition, match=rule) as caught:
        load_avsc(text, "defs/ride.avsc")
    assert str(caught.value).startswith("defs/ride.avsc: ")
    assert "\n" not in str(caught.value)


def test_load_reads_text_and_bytes() -> None:
    """A definition is read from text and from UTF-8 bytes, with a byte order mark or without."""
    text = json.dumps(schema(field("speed", "double"), doc="Fährt"), ensure_ascii=False)
    assert load_avsc(text, "x") == load_avsc(text.encode(), "x") == load_avsc(b"\xef\xbb\xbf" + text.encode(), "x")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["int", "null", "ride", "array"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "name", "items"]), inner),
    max_leaves=10,
)


@settings(deadline=None)
@given(JSON, st.sampled_from(["type", "name", "fields", "keys", "event_time", "entity", "group", "ttl", "namespace"]))
def test_nothing_but_invalid_definition_is_raised(junk: Any, attribute: str) -> None:
    """Whatever stands in a definition, it is read or refused as one."""
    for definition in (schema(field("f", junk)), schema() | {attribute: junk}, junk):
        with contextlib.suppress(InvalidDefinition):
            group_from_avsc(definition)


@pytest.mark.parametrize(
    ("attribute", "meant"),
    [
        ("tll", "ttl"),
        ("entty", "entity"),
        ("eventTime", "event_time"),
        ("event-time", "event_time"),
        ("topics", "topic"),
        ("partition", "partitions"),
        ("Category", "category"),
    ],
)
def test_a_mistyped_attribute_is_refused(attribute: str, meant: str) -> None:
    """An attribute of the record that is nearly one of ours is refused, and the likely one is named."""
    text = json.dumps(schema(field("speed", "double"), **{attribute: "x"}))
    with pytest.raises(InvalidDefinition, match=f"ride.avsc: attribute '{attribute}' looks like '{meant}' mistyped"):
        load_avsc(text, "ride.avsc")


@pytest.mark.parametrize("attribute", ["owner", "url", "title", "total", "tags", "version", "event_type", "namespace"])
def test_foreign_annotations_are_allowed(attribute: str) -> None:
    """Annotations of other people, which Avro allows, stay allowed."""
    text = json.dumps(schema(field("speed", "double"), **{attribute: "x"}))
    assert load_avsc(text, "ride.avsc").schema[attribute] == "x"


@pytest.mark.parametrize("interval", ["soon", "1d", 24, None])
def test_a_snapshot_interval_that_is_no_duration_is_refused(interval: object) -> None:
    """What a file says of snapshots is a duration as Go has it, or refused by name, since listings print it as one."""
    text = json.dumps(schema(field("speed", "double"), snapshot_interval=interval))
    with pytest.raises(InvalidDefinition, match=r"ride.avsc: group ride: snapshot_interval"):
        load_avsc(text, "ride.avsc")


def test_a_file_without_features_is_refused() -> None:
    """A definition in which every field is a key or the event time is refused by name; nothing could be read of it."""
    with pytest.raises(InvalidDefinition, match=r"ride.avsc: group ride: has no features"):
        load_avsc(json.dumps(schema()), "ride.avsc")


@pytest.mark.parametrize("attribute", ["entity", "keys", "event_time"])
def test_a_missing_attribute_is_called_missing(attribute: str) -> None:
    """An attribute that is needed and left out is said to be missing, rather than wrong."""
    given = schema(field("speed", "double"))
    del given[attribute]
    with pytest.raises(InvalidDefinition, match=f"group ride: {attribute} is missing"):
        group_from_avsc(given)
