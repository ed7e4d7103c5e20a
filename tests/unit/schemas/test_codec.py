"""Bodies: what users pass in, what stores give, and old definitions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.errors import InvalidEvent, Reason
from oomstream.schemas.groups import FeatureGroup
from tests.unit.schemas.definitions import EVENT_TIME_US, MILLIS, field, registered, schema

RIDE = registered(
    schema(
        field("speed", "double"),
        field("count", ["null", "int"]),
        field("seen", ["null", MILLIS]),
        field("note", "string", default="none"),
        field("tags", {"type": "array", "items": "string"}, default=["a"]),
    )
)
CODEC = BodyCodec(RIDE)
GIVEN: dict[str, Any] = {"id": "a", "at": EVENT_TIME_US, "speed": 1.5}


def test_missing_features_take_their_defaults() -> None:
    """Features that are left out have their defaults: null where nullable."""
    encoded = CODEC.encode_python(GIVEN)
    assert encoded.values == (1.5, None, None, "none", '["a"]')
    assert (encoded.key, encoded.event_time_us) == (("a",), EVENT_TIME_US)
    assert CODEC.read(RIDE.group.fingerprint, encoded.body) == encoded.values


@pytest.mark.parametrize(
    ("changed", "reason", "name"),
    [
        ({"speed": None}, Reason.NULL_REQUIRED, "speed"),
        ({"speed": "1.5"}, Reason.WRONG_TYPE, "speed"),
        ({"speed": ...}, Reason.MISSING_FIELD, "speed"),
        ({"count": 1 << 40}, Reason.OUT_OF_RANGE, "count"),
        ({"tags": "a"}, Reason.WRONG_TYPE, "tags"),
        ({"id": ...}, Reason.KEY_MISSING, "id"),
        ({"id": None}, Reason.KEY_MISSING, "id"),
        ({"id": ""}, Reason.KEY_EMPTY, "id"),
        ({"id": "k" * 256}, Reason.KEY_TOO_LONG, "id"),
        ({"id": 7}, Reason.WRONG_TYPE, "id"),
        ({"at": ...}, Reason.MISSING_FIELD, "at"),
        ({"at": None}, Reason.MISSING_FIELD, "at"),
        ({"at": "2024-01-01T00:00:00Z"}, Reason.WRONG_TYPE, "at"),
        ({"at": 1.5}, Reason.WRONG_TYPE, "at"),
        ({"at": True}, Reason.WRONG_TYPE, "at"),
        ({"at": 1 << 62}, Reason.OUT_OF_RANGE, "at"),
        ({"velocity": 1}, Reason.UNKNOWN_FIELD, "velocity"),
        ({1: 1}, Reason.UNKNOWN_FIELD, "1"),
    ],
)
def test_wrong_values_are_refused_by_name(changed: dict[Any, Any], reason: Reason, name: str) -> None:
    """What a user passes in is refused with the field's name, never the value."""
    values = {key: value for key, value in (GIVEN | changed).items() if value is not ...}
    with pytest.raises(InvalidEvent, match=rf"ride(\.| has no field '?){name}") as caught:
        CODEC.encode_python(values)
    assert caught.value.reason is reason


def test_event_times_of_any_kind() -> None:
    """An event time is a datetime, naive (= UTC) or not, or an integer in the field's unit, numpy's too."""
    time = datetime(2024, 1, 1, tzinfo=UTC)
    for value in (
        time,
        time.replace(tzinfo=None),
        time.astimezone(timezone(timedelta(hours=5))),
        1_704_067_200_000_000,
        np.int64(1_704_067_200_000_000),
    ):
        assert CODEC.encode_python(GIVEN | {"at": value}).event_time_us == 1_704_067_200_000_000


def test_an_event_time_finer_than_its_unit_is_refused() -> None:
    """A datetime with a part that the field's unit cannot hold is refused, not rounded."""
    definition = schema()
    definition["fields"][1] = field("at", "long", unit="s")
    codec = BodyCodec(registered(definition))
    assert codec.encode_python({"id": "a", "at": 1_704_067_200}).event_time_us == 1_704_067_200_000_000
    with pytest.raises(InvalidEvent, match=r"ride\.at has a part smaller than its unit, s"):
        codec.encode_python({"id": "a", "at": datetime(2024, 1, 1, 0, 0, 0, 1)})


def test_events_that_a_worker_would_refuse_are_refused() -> None:
    """An event longer than 1 MiB, or whose arrays are too long as text, is refused before it is sent."""
    with pytest.raises(InvalidEvent, match="longer than 1048576 bytes") as caught:
        CODEC.encode_python(GIVEN | {"note": "x" * (1 << 20)})
    assert caught.value.reason is Reason.TOO_LARGE
    decimals = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 30}
    names = [f"d{number}" for number in range(3)]
    codec = BodyCodec(registered(schema(*(field(name, {"type": "array", "items": decimals}) for name in names))))
    with pytest.raises(InvalidEvent, match="arrays are longer than 4194304"):
        codec.encode_python({"id": "a", "at": EVENT_TIME_US, **dict.fromkeys(names, [0] * 100_000)})


def test_plain_values_from_sql_give_the_same_body() -> None:
    """A row as SQL gives it back (3 for 3.0) is encoded to the body that the event had."""
    encoded = CODEC.encode_python(GIVEN | {"speed": 3.0})
    assert CODEC.encode(("a",), EVENT_TIME_US, (3, *encoded.values[1:])) == encoded.body


def test_bodies_of_older_definitions() -> None:
    """A body written with any older definition is read in the newest one's terms: defaults filled, retired dropped."""
    one = schema(field("gone", "int"), field("speed", "double"))
    two = schema(field("gone", "int"), field("speed", "double"), field("count", ["null", "int"]))
    three = schema(
        field("note", "string", default="none"),
        field("speed", "double"),
        field("count", ["null", "int"]),
        field("tags", {"type": "array", "items": "string"}, default=["a"]),
    )
    group = registered(one, two, three)
    newest = BodyCodec(group)
    assert newest.group.version == 3
    bodies = []
    for definition, values in ((one, {"gone": 1, "speed": 2.0}), (two, {"gone": 1, "speed": 2.0, "count": 3})):
        older = BodyCodec(registered(definition))
        encoded = older.encode_python({"id": "a", "at": EVENT_TIME_US, **values})
        bodies.append((older.group, encoded.body))
    assert newest.read(bodies[0][0].fingerprint, bodies[0][1]) == ("none", 2.0, None, '["a"]')
    assert newest.read(bodies[1][0].fingerprint, bodies[1][1]) == ("none", 2.0, 3, '["a"]')


def test_what_cannot_be_read_is_said() -> None:
    """An unknown fingerprint has a reason of its own; bytes that are no body are an error that names the group."""
    with pytest.raises(InvalidEvent, match="group ride: no definition has the fingerprint 3132333435363738") as caught:
        CODEC.read(b"12345678", b"")
    assert caught.value.reason is Reason.UNKNOWN_FINGERPRINT
    for broken in (b"", b"\xff" * 40, CODEC.encode_python(GIVEN).body[:-5]):
        with pytest.raises(InvalidEvent, match="group ride: a stored body cannot be read") as caught:
            CODEC.read(RIDE.group.fingerprint, broken)
        assert caught.value.reason is Reason.MALFORMED_AVRO


@pytest.mark.parametrize("features", [0, 1, 2, 200])
def test_any_number_of_features(features: int) -> None:
    """Groups of no feature, of one and of very many work alike."""
    names = [f"f{number}" for number in range(features)]
    group = registered(schema(*(field(name, ["null", "long"]) for name in names)))
    encoded = BodyCodec(group).encode_python({"id": "a", "at": EVENT_TIME_US, **dict.fromkeys(names, 5)})
    assert encoded.values == (5,) * features
    assert BodyCodec(group).read(group.group.fingerprint, encoded.body) == encoded.values
    assert isinstance(group.group, FeatureGroup)
