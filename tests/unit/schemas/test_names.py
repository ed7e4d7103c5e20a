"""Names that Avro does not allow, on the way through every form of a value."""

from __future__ import annotations

from typing import Any

import pytest

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.errors import InvalidDefinition
from oomstream.schemas.framing import frame
from tests.unit.schemas.definitions import EVENT_TIME_US, MICROS, decode, field, registered, schema

NAMED = schema(
    field("_2fa", ["null", "boolean"], **{"oomstream.name": "2fa"}),
    field("a_b", ["null", "long"], **{"oomstream.name": "a-b"}),
)
VALUES: dict[str, Any] = {"id": "ann", "at": EVENT_TIME_US, "2fa": True, "a-b": 7}


def confluent(schema_id: int, body: bytes) -> bytes:
    """A body as Confluent's serializers frame it."""
    return b"\0" + schema_id.to_bytes(4, "big") + body


def test_a_field_is_called_as_its_attribute_says() -> None:
    """The feature has our name; the schema, and so its fingerprint, the Avro name."""
    group = group_from_avsc(NAMED)
    assert [each.name for each in group.features] == ["2fa", "a-b"]
    plain = schema(field("_2fa", ["null", "boolean"]), field("a_b", ["null", "long"]))
    with pytest.raises(InvalidDefinition, match="begins with _"):
        group_from_avsc(plain)


@pytest.mark.parametrize("has_attribute", [True, False])
def test_events_of_every_framing_are_read_under_our_names(has_attribute: bool) -> None:
    """Our encoding, JSON and a registry's schema, with the attribute or without it, give the same event."""
    group = registered(NAMED)
    body = BodyCodec(group).encode_python(VALUES).body
    fields = [each if has_attribute else {"name": each["name"], "type": each["type"]} for each in NAMED["fields"]]
    foreign = {"type": "record", "name": "r", "fields": fields}
    text = f'{{"id": "ann", "at": {EVENT_TIME_US}, "2fa": true, "a-b": 7}}'.encode()
    messages = [frame(group.group.fingerprint, body), text, confluent(5, body)]
    decoded = decode(group, *messages, registry={5: foreign})
    assert not decoded.rejected
    assert [(each.values, each.body) for each in decoded.events] == [((True, 7), body)] * 3


def test_a_registry_schema_may_have_the_fields_in_another_order() -> None:
    """A writer's field is found by its Avro name."""
    group = registered(NAMED)
    fields = [field("a_b", "long"), field("_2fa", "boolean"), field("at", MICROS), field("id", "string")]
    other = registered(
        {
            **NAMED,
            "fields": [
                {
                    **each,
                    **({"oomstream.name": "2fa"} if each["name"] == "_2fa" else {}),
                    **({"oomstream.name": "a-b"} if each["name"] == "a_b" else {}),
                }
                for each in fields
            ],
        }
    )
    body = BodyCodec(other).encode_python(VALUES).body
    decoded = decode(group, confluent(5, body), registry={5: {"type": "record", "name": "r", "fields": fields}})
    assert [each.values for each in decoded.events] == [(True, 7)]


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"name": "a-b", "type": "long"}, "is not 1 to 63 letters, digits and _"),
        ({"name": "a-b", "type": "long", "oomstream.name": "c"}, "has an Avro name that is none"),
        ({"name": "a", "type": "long", "oomstream.name": "a b"}, "is not 1 to 63"),
        ({"name": "a", "type": "long", "oomstream.name": 7}, "that is not text"),
        ({"name": "a", "type": "long", "oomstream.name": "id"}, "field 'id' is there twice"),
    ],
)
def test_bad_names_are_refused(attributes: dict[str, Any], sentence: str) -> None:
    """A name of ours keeps the rules for names, and no two fields have the same."""
    with pytest.raises(InvalidDefinition, match=sentence):
        group_from_avsc(schema(attributes))
