"""What a feature group is: its entity key, its event time, its features."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from oomstream.schemas.errors import InvalidEvent, InvalidRequest, Reason
from oomstream.schemas.types import ValueType


class _NoDefault:
    """Marks a feature that has no default, since null is a default like any other."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NO_DEFAULT"


NO_DEFAULT: Final = _NoDefault()


class TimeUnit(StrEnum):
    """Unit of an event-time field."""

    SECOND = "s"
    MILLISECOND = "ms"
    MICROSECOND = "us"

    @property
    def microseconds(self) -> int:
        """Length of one unit in microseconds."""
        return {"s": 1_000_000, "ms": 1_000, "us": 1}[self.value]


class Category(StrEnum):
    """How a group gets its data."""

    STREAM = "stream"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class KeyField:
    """One part of an entity key.

    Attributes:
        name: Field of the group's record.
        type: string, bytes, int, long or date.
    """

    name: str
    type: ValueType


@dataclass(frozen=True, slots=True)
class EventTimeField:
    """The field that says when an event happened.

    Attributes:
        name: Field of the group's record (an Avro long).
        unit: What the integer counts since 1970-01-01 UTC.
    """

    name: str
    unit: TimeUnit

    def ticks(self, time_us: int) -> int:
        """A time in the field's unit.

        Args:
            time_us: UTC microseconds.

        Raises:
            InvalidEvent: It has a part smaller than the unit.
        """
        ticks, rest = divmod(time_us, self.unit.microseconds)
        if rest:
            raise InvalidEvent(Reason.OUT_OF_RANGE, f"has a part smaller than its unit, {self.unit.value}")
        return ticks


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of a group.

    Attributes:
        name: Field of the group's record.
        type: Its type.
        nullable: Whether null is a value of it.
        default: Default in plain form, None for null, or `NO_DEFAULT`. A nullable feature always has one.
        doc: What it means.
        id: Registered id; 0 before `apply`.
    """

    name: str
    type: ValueType
    nullable: bool = False
    default: Any = NO_DEFAULT
    doc: str = ""
    id: int = 0

    @property
    def has_default(self) -> bool:
        """Whether a missing value can be filled in."""
        return self.default is not NO_DEFAULT

    @property
    def absent_value(self) -> Any:
        """What bodies say of it that were written before it was there: its default in plain form, or null."""
        return self.default if self.has_default else None


@dataclass(frozen=True, slots=True)
class FeatureGroup:
    """One version of a feature group's definition.

    Attributes:
        name: 1 to 48 letters, digits, `_` and `-`.
        entity: Name of the entity it describes.
        keys: The entity key, 1 to 8 fields, in order.
        event_time: When an event happened; None in a batch group, whose rows have the time of their revision.
        features: Active features, in the order of the schema.
        schema: The Avro record schema as JSON data, nullable defaults filled in, our attributes kept.
        fingerprint: CRC-64-AVRO of `schema`, 8 bytes little-endian.
        ttl_us: How long a value stays valid, microseconds; None = for ever.
        topic: Kafka topic that carries it.
        partitions: Partitions of the topic if `apply` makes it.
        category: stream or batch.
        doc: What it means.
        retired: Features that are no longer written; their names stay taken.
        id: Registered id; 0 before `apply`.
        version: Registered definition version, from 1; 0 before `apply`.
        forgets: How many marks of forgotten entities (of any group) there were when this definition was read: rows are
            only written by those who know all marks.
    """

    name: str
    entity: str
    keys: tuple[KeyField, ...]
    event_time: EventTimeField | None
    features: tuple[Feature, ...]
    schema: dict[str, Any] = field(hash=False)
    fingerprint: bytes = b""
    ttl_us: int | None = None
    topic: str = ""
    partitions: int = 8
    category: Category = Category.STREAM
    doc: str = ""
    retired: tuple[Feature, ...] = ()
    id: int = 0
    version: int = 0
    forgets: int = 0

    @property
    def dlq_topic(self) -> str:
        """Topic of the group's dead letters."""
        return f"{self.topic}.dlq"

    @property
    def event_time_field(self) -> EventTimeField:
        """When an event of this stream group happened.

        Raises:
            InvalidRequest: It is a batch group, which takes no events.
        """
        if self.event_time is None:
            raise InvalidRequest(
                f"group {self.name} is a batch group: it takes no events, only whole revisions (`oomstream import`)"
            )
        return self.event_time

    @property
    def key_names(self) -> tuple[str, ...]:
        """Names of the key fields, in order."""
        return tuple(key.name for key in self.keys)

    def feature(self, name: str) -> Feature | None:
        """The active feature of that name, if there is one."""
        return next((each for each in self.features if each.name == name), None)
