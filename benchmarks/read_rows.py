"""Planes whose features are read online, alike for every contender: needs nothing but Python.

Three groups of one entity: `plane` with 50 features, `engine` and `crew` with 10 each. Of five features in a row, two
are integers, two doubles, one text; a seventh of all values is null.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import NamedTuple

Value = int | float | str | None

KEY = "tail"
GROUPS: Mapping[str, int] = {"plane": 50, "engine": 10, "crew": 10}
"""How many features each group has."""

TTL_S = 30 * 86_400

_TYPES = ("long", "double", "string", "long", "double")


class Shape(NamedTuple):
    """What one read asks for.

    Attributes:
        name: In words.
        keys: How many entities.
        features: How many features of each group, by group.
        reads: Reads of one round, by the number of callers, all of them together. Of short reads there are so many that
            callers, who take turns every 5 ms, meet.
    """

    name: str
    keys: int
    features: Mapping[str, int]
    reads: Mapping[int, int]

    @property
    def names(self) -> list[tuple[str, str]]:
        """Group and feature of every feature asked for: of each group so many, spread over it, of every type."""
        found = []
        for group, count in self.features.items():
            step = GROUPS[group] // count
            found += [(group, feature_name(at * step + at % step)) for at in range(count)]
        return found


SHAPES = {
    each.name: each
    for each in (
        Shape("1 key x 5 features", 1, {"plane": 5}, {1: 1_000, 32: 3_200}),
        Shape("100 keys x 50 features", 100, {"plane": 50}, {1: 200, 32: 256}),
        Shape("100 keys x 3 groups of 10", 100, {"plane": 10, "engine": 10, "crew": 10}, {1: 200, 32: 256}),
    )
}


def feature_name(at: int) -> str:
    """Name of a group's feature, by its place."""
    return f"f{at}"


def feature_type(at: int) -> str:
    """Avro's name of its type."""
    return _TYPES[at % len(_TYPES)]


def values_of(group: str, entity: int) -> dict[str, Value]:
    """Every feature of one entity in one group."""
    return {feature_name(at): _value(entity * 11 + len(group), at) for at in range(GROUPS[group])}


def _value(seed: int, at: int) -> Value:
    if (seed + at) % 7 == 0:
        return None
    number = seed * 31 + at
    match feature_type(at):
        case "long":
            return number
        case "double":
            return number / 8
    return f"value {number}"


def tail(entity: int) -> str:
    """An entity's key."""
    return f"N{entity:08d}"


def some_keys(chance: random.Random, shape: Shape, entities: int) -> list[dict[str, str]]:
    """Entity rows of one read: any entities, all different."""
    return [{KEY: tail(each)} for each in chance.sample(range(entities), shape.keys)]


def event_time_s() -> int:
    """When the rows are of: an hour ago."""
    return int(time.time()) - 3_600
