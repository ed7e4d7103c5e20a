"""Entity keys as clients write them."""

from __future__ import annotations

import pytest

from oomstream.agents.serve.registered import entity_row, key_columns
from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.errors import InvalidKey
from tests.integration.agent_groups import CLICKS, DEVICES, SEATS

OTHER_USER = group_from_avsc({**CLICKS.schema, "name": "visits", "entity": "visitor", "topic": "visits"})


def test_a_key_of_one_field_is_the_text_itself() -> None:
    """Commas, equals signs and names of fields in it mean nothing."""
    columns = key_columns([CLICKS])
    for text in ("ann", "a,b", "user=ann", "", " ", "é"):
        assert entity_row(text, columns) == {"user": text}
    assert entity_row("-42", key_columns([DEVICES])) == {"device": -42}


def test_a_key_of_several_fields_names_them() -> None:
    """In any order; a value ends only where another field begins."""
    columns = key_columns([SEATS])
    assert entity_row("flight=1,place=2,3", columns) == {"flight": 1, "place": "2,3"}
    assert entity_row("place=a=b,c,flight=1", columns) == {"flight": 1, "place": "a=b,c"}


def test_keys_of_several_entities() -> None:
    """Each is named, by ``entity.key`` where two are called alike."""
    assert list(key_columns([CLICKS, SEATS])) == ["user", "flight", "place"]
    columns = key_columns([CLICKS, OTHER_USER])
    assert entity_row("user.user=a,visitor.user=b", columns) == {"user.user": "a", "visitor.user": "b"}


@pytest.mark.parametrize(
    "text", ["7", "flight=7", "flight=7,place=a,flight=8", "flight=x,place=a", "x=1,flight=7,place=a"]
)
def test_wrong_keys_name_the_fields(text: str) -> None:
    """A field that is missing, there twice or of another type is an error that names the fields."""
    with pytest.raises(InvalidKey, match="flight"):
        entity_row(text, key_columns([SEATS]))
