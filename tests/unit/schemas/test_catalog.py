"""How requests find what is registered, and durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.durations import MAX_DURATION_US, format_duration, parse_duration_us
from oomstream.schemas.errors import InvalidRequest, UnknownFeature, UnknownGroup
from tests.unit.schemas.definitions import catalog, field, schema

CATALOG = catalog(
    group_from_avsc(schema(field("speed", "double"), field("count", "int"))),
    group_from_avsc(schema(field("speed", "int"), group="ride-2", topic="other")),
    group_from_avsc(schema(group="old", category="batch")),
)


def test_features_are_found_by_either_name() -> None:
    """`group.feature` and `group:feature` name a feature; the order asked is kept."""
    found = CATALOG.features(["ride-2:speed", "ride.count", "ride.speed"])
    assert [(group.name, feature.name) for group, feature in found] == [
        ("ride-2", "speed"),
        ("ride", "count"),
        ("ride", "speed"),
    ]


def test_unknown_features_are_all_named() -> None:
    """Every feature that is not registered is in the message: unknown groups, keys and names without a group too."""
    with pytest.raises(UnknownFeature, match=r"invalid feature names \[ride\.id x\.y speed\]"):
        CATALOG.features(["ride.speed", "ride.id", "x.y", "speed"])


def test_unknown_features_say_what_there_is() -> None:
    """The message says how a name is made, the features of a group that is there, and the groups where none is."""
    with pytest.raises(UnknownFeature) as of_group:
        CATALOG.features(["ride.id"])
    assert str(of_group.value) == (
        "invalid feature names [ride.id]: not registered (a name is group.feature; group ride has speed, count)"
    )
    with pytest.raises(UnknownFeature, match=r"registered groups are old, ride, ride-2\)$"):
        CATALOG.features(["price"])
    with pytest.raises(UnknownFeature, match=r"registered groups are none\)$"):
        catalog().features(["price"])


@pytest.mark.parametrize("names", [[], ["ride.speed", "ride:speed"]])
def test_no_features_and_the_same_twice_are_refused(names: list[str]) -> None:
    """A request names at least one feature, and none twice."""
    with pytest.raises(InvalidRequest):
        CATALOG.features(names)


def test_groups_are_found_by_name_and_topic() -> None:
    """A group is found by its name or its topic; an unknown name lists the known ones."""
    assert CATALOG.group("ride-2").topic == "other"
    found = CATALOG.by_topic("other")
    assert found is not None
    assert found.name == "ride-2"
    assert CATALOG.by_topic("nothing") is None
    with pytest.raises(UnknownGroup, match=r"'x' \(registered: old, ride, ride-2\)"):
        CATALOG.group("x")


def test_batch_groups_are_on_no_topic() -> None:
    """The topic of a batch group carries no group."""
    assert CATALOG.by_topic("third") is None


@pytest.mark.parametrize(
    ("text", "duration_us"),
    [
        ("7d", 604_800_000_000),
        ("90m", 5_400_000_000),
        ("500ms", 500_000),
        ("1h30m", 5_400_000_000),
        ("1us", 1),
        ("0s", 0),
    ],
)
def test_durations(text: str, duration_us: int) -> None:
    """Durations are numbers with units, one after the other."""
    assert parse_duration_us(text) == duration_us


@pytest.mark.parametrize(
    "text", ["", "7", "d", "7 d", "7D", "-1s", "1.5h", "7d ", "7d\n", "٧d", "9" * 30 + "s", "36526d"]
)
def test_other_texts_are_no_durations(text: str) -> None:
    """Anything else, and more than a century, is refused."""
    with pytest.raises(ValueError, match=r"is not a duration|longer than a century"):
        parse_duration_us(text)


@settings(deadline=None)
@given(st.integers(0, MAX_DURATION_US))
def test_durations_come_back(duration_us: int) -> None:
    """A duration written as text is the same duration."""
    assert parse_duration_us(format_duration(duration_us)) == duration_us
