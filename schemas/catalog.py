"""All registered definitions at one moment, and how names in requests find them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from oomstream.schemas.errors import InvalidRequest, UnknownFeature, UnknownGroup
from oomstream.schemas.groups import Category, Feature, FeatureGroup, KeyField

_MOST_NAMES = 20  # in one message


@dataclass(frozen=True, slots=True)
class Entity:
    """Something that features describe, found by its key.

    Attributes:
        name: Its name.
        keys: Its key fields, the same in all groups of it; empty while it has no group.
        doc: Description.
        id: Registered id, from 1.
        create_time_us: UTC microseconds.
        modify_time_us: UTC microseconds.
    """

    name: str
    keys: tuple[KeyField, ...] = ()
    doc: str = ""
    id: int = 0
    create_time_us: int = 0
    modify_time_us: int = 0


@dataclass(frozen=True, slots=True)
class WriterSchema:
    """An Avro schema that stored bytes or old events may have been written with."""

    version: int
    fingerprint: bytes
    schema: dict[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Published:
    """When a definition was published, and what it had.

    Attributes:
        create_time_us: By the history database's clock, when its transaction began; UTC microseconds.
        fields: Names of its fields, key and event time included.
    """

    create_time_us: int
    fields: frozenset[str]


@dataclass(frozen=True, slots=True)
class RegisteredGroup:
    """A group as the catalog holds it.

    Attributes:
        group: Its newest definition.
        writers: Every published definition's schema by fingerprint (8 bytes, little-endian), the newest included.
        sync_id: Sync id of the copy of a batch group that readers see; 0 = none yet, or a stream group.
        online_revision_id: What revision that copy is of; 0 = none.
        online_time_us: Time of that revision, which is the event time of its rows; UTC microseconds.
        create_time_us: UTC microseconds.
        modify_time_us: UTC microseconds.
        published: Every published definition, oldest first.
        horizon_us: From when on history is whole: of rows with earlier event times only each entity's newest is sure
            to be there; 0 = nothing was ever removed.
        feature_times: When a feature was registered and when it was last changed, by its id; UTC microseconds. A
            feature that is missing has those of the group.
    """

    group: FeatureGroup
    writers: Mapping[bytes, WriterSchema] = field(hash=False)
    create_time_us: int = 0
    modify_time_us: int = 0
    sync_id: int = 0
    online_revision_id: int = 0
    online_time_us: int = 0
    published: tuple[Published, ...] = ()
    horizon_us: int = 0
    feature_times: Mapping[int, tuple[int, int]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every registered entity and group by name, at one moment."""

    entities: Mapping[str, Entity] = field(default_factory=dict, hash=False)
    groups: Mapping[str, RegisteredGroup] = field(default_factory=dict, hash=False)

    def group(self, name: str) -> FeatureGroup:
        """The newest definition of a group.

        Raises:
            UnknownGroup: There is none of that name; the message lists those there are.
        """
        registered = self.groups.get(name)
        if registered is None:
            known = ", ".join(sorted(self.groups)) or "none"
            raise UnknownGroup(f"no feature group named {name!r} (registered: {known})")
        return registered.group

    def by_topic(self, topic: str) -> FeatureGroup | None:
        """The stream group that a topic carries."""
        streams = (each.group for each in self.groups.values() if each.group.category is Category.STREAM)
        return next((each for each in streams if each.topic == topic), None)

    def features(self, names: Iterable[str]) -> list[tuple[FeatureGroup, Feature]]:
        """Find features by full name, ``group.feature`` or ``group:feature``, in the order asked.

        Raises:
            UnknownFeature: One or more are not registered; names all of them.
            InvalidRequest: No name was given, or one is given twice.
        """
        found: list[tuple[FeatureGroup, Feature]] = []
        unknown: list[str] = []
        seen: set[str] = set()
        for name in names:
            full = name.replace(":", ".", 1) if "." not in name else name
            if full in seen:
                raise InvalidRequest(f"feature {full!r} is asked for twice")
            seen.add(full)
            group_name, _, feature_name = full.partition(".")
            registered = self.groups.get(group_name)
            feature = registered.group.feature(feature_name) if registered else None
            if registered is None or feature is None:
                unknown.append(full)
            else:
                found.append((registered.group, feature))
        if unknown:
            raise UnknownFeature(
                f"invalid feature names [{' '.join(unknown)}]: not registered "
                f"(a name is group.feature; {'; '.join(self._known_beside(unknown))})",
                tuple(unknown),
            )
        if not found:
            raise InvalidRequest("no features were asked for")
        return found

    def _known_beside(self, unknown: Iterable[str]) -> Iterable[str]:
        """What there is in place of names that are not registered: the features of their groups, else the groups."""
        names = list(dict.fromkeys(name.partition(".")[0] for name in unknown))
        for name in names:
            if name in self.groups:
                yield f"group {name} has {_some(feature.name for feature in self.groups[name].group.features)}"
        if any(name not in self.groups for name in names):
            yield f"registered groups are {_some(sorted(self.groups))}"


def _some(names: Iterable[str]) -> str:
    known = list(names)
    shown = ", ".join(known[:_MOST_NAMES]) or "none"
    return shown if len(known) <= _MOST_NAMES else f"{shown} and {len(known) - _MOST_NAMES} more"
