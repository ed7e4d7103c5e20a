"""Online reads: entity rows in, stored keys out to the store, stored values in, values with statuses out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from oomstream.query.key_columns import find_key_columns
from oomstream.schemas.catalog import Catalog, RegisteredGroup
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.errors import Fatal, InvalidEvent, InvalidKey, InvalidRequest, Reason
from oomstream.schemas.events import Plain
from oomstream.schemas.groups import Category, Feature
from oomstream.schemas.keys import encode_entity, key_from_python
from oomstream.schemas.online_value import decode_value, key_prefix, seal_key
from oomstream.schemas.types import Kind, ValueType, time_from_us

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

EntityRows: TypeAlias = (
    "Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]] | pd.DataFrame | pl.DataFrame | pa.Table"
)
"""Keys to read: a dict per row, a list per column, a DataFrame or an Arrow table."""

_PLAIN_IS_PYTHON = frozenset(
    {Kind.BOOLEAN, Kind.INT, Kind.LONG, Kind.FLOAT, Kind.DOUBLE, Kind.STRING, Kind.BYTES, Kind.ENUM}
)


class FeatureStatus(StrEnum):
    """What an online value is."""

    PRESENT = "PRESENT"
    """A value."""

    NULL_VALUE = "NULL_VALUE"
    """The newest event says null."""

    NOT_FOUND = "NOT_FOUND"
    """The entity was never seen (no event time), or deleted (the delete's event time)."""

    OUTSIDE_MAX_AGE = "OUTSIDE_MAX_AGE"
    """The newest value is older than the group's ttl."""


class UnknownDefinition(Exception):
    """A stored value was written under a definition that the plan does not know; read the catalog anew."""


class CopyIsGone(Exception):
    """The copy of a revision that the plan reads is not whole (any more); read the catalog anew."""


class OnlineResponse:
    """Answer to an online read: one row per entity row, in their order.

    Values are Python values of the feature's type (datetime, date, Decimal, list, …), None unless PRESENT.

    Attributes:
        age_us: How old the state is that was read, microseconds. 0 almost always; more where rows could not be read
            as they are now, because a writer of them had just died.
    """

    __slots__ = ("_key_types", "_keys", "_statuses", "_times", "_types", "_values", "age_us")

    def __init__(
        self,
        keys: dict[str, list[Any]],
        key_types: dict[str, ValueType],
        values: dict[str, list[Any]],
        types: dict[str, ValueType],
        statuses: dict[str, list[FeatureStatus]],
        times: dict[str, list[int | None]],
    ) -> None:
        self._keys = keys
        self._key_types = key_types
        self._values = values
        self._types = types
        self._statuses = statuses
        self._times = times
        self.age_us = 0

    def to_dict(self) -> dict[str, list[Any]]:
        """Columns by name, each a list of one value per entity row: the key columns, then the features."""
        return {name: list(column) for name, column in (*self._keys.items(), *self._values.items())}

    def to_arrow(self) -> pa.Table:
        """The same as an Arrow table, whose columns have the features' exact types."""
        import pyarrow as pa

        fields = [
            (name, column, types[name].arrow())
            for columns, types in ((self._keys, self._key_types), (self._values, self._types))
            for name, column in columns.items()
        ]
        arrays: list[Any] = [pa.array(column, kind) for _, column, kind in fields]
        return pa.Table.from_arrays(arrays, names=[name for name, _, _ in fields])

    def to_pandas(self) -> pd.DataFrame:
        """The same as a pandas DataFrame; integers stay exact (Int64) even with nulls beside them."""
        from oomstream.query.columns import to_pandas

        return to_pandas(self.to_arrow())

    @property
    def statuses(self) -> dict[str, list[FeatureStatus]]:
        """By full feature name, the status of each value."""
        return {name: list(column) for name, column in self._statuses.items()}

    @property
    def event_times(self) -> dict[str, list[datetime | None]]:
        """By full feature name, the event time (UTC) of the newest event of each entity; None if there is none."""
        return {
            name: [None if time is None else time_from_us(time) for time in column]
            for name, column in self._times.items()
        }


class _Answer(NamedTuple):
    """What one stored value says."""

    status: FeatureStatus
    event_time_us: int | None
    values: tuple[Plain, ...] | None


_NEVER_SEEN = _Answer(FeatureStatus.NOT_FOUND, None, None)


class _GroupPlan:
    """How one group of a request is read.

    A batch group is read from the copy that the catalog names, together with the copy's seal: if that is missing, the
    copy is being removed. One that was never synced has no copy, and nothing of it is read.
    """

    __slots__ = ("codec", "columns", "group", "is_empty", "prefix", "revision_time_us", "seal")

    def __init__(self, registered: RegisteredGroup, features: Iterable[Feature]) -> None:
        self.group = registered.group
        self.prefix = key_prefix(self.group.id, registered.sync_id)
        batch = self.group.category is Category.BATCH
        self.is_empty = batch and not registered.sync_id
        self.seal = seal_key(self.group.id, registered.sync_id) if batch and registered.sync_id else None
        # Not that of the stored version: a revision may get its time from the very flip that shows its copy.
        self.revision_time_us = registered.online_time_us if batch else None
        self.codec = BodyCodec(registered)
        places = {feature.name: at for at, feature in enumerate(self.group.features)}
        self.columns: list[tuple[str, int, Callable[[Any], Any] | None]] = [
            (
                f"{self.group.name}.{feature.name}",
                places[feature.name],
                None if feature.type.kind in _PLAIN_IS_PYTHON else feature.type.python_from_plain,
            )
            for feature in features
        ]

    def answer(self, stored: bytes | None, now_us: int) -> _Answer:
        """What a stored value of this group says at a moment."""
        if stored is None:
            return _NEVER_SEEN
        try:
            version, _, fingerprint, deleted, body = decode_value(stored)
        except ValueError as exc:
            raise Fatal(f"group {self.group.name}: {exc}; the online store holds what a newer oomstream wrote") from exc
        time_us = version.event_time_us if self.revision_time_us is None else self.revision_time_us
        if deleted:
            return _Answer(FeatureStatus.NOT_FOUND, time_us, None)
        if self.group.ttl_us is not None and now_us - time_us > self.group.ttl_us:
            return _Answer(FeatureStatus.OUTSIDE_MAX_AGE, time_us, None)
        try:
            return _Answer(FeatureStatus.PRESENT, time_us, self.codec.read(fingerprint, body))
        except InvalidEvent as exc:
            if exc.reason is Reason.UNKNOWN_FINGERPRINT:
                raise UnknownDefinition(str(exc)) from exc
            raise Fatal(f"{exc} (online store); `oomstream repair` writes it anew from history") from exc


class OnlinePlan:
    """How online requests for a list of features are answered under one catalog; from any thread.

    Attributes:
        reads_copies: Whether it reads batch groups, and so depends on how old the catalog is.

    Args:
        catalog: Definitions.
        names: Full feature names, in the order asked.

    Raises:
        UnknownFeature: One is not registered.
        InvalidRequest: None was named, or one twice.
    """

    def __init__(self, catalog: Catalog, names: Sequence[str]) -> None:
        by_group: dict[str, list[Feature]] = {}
        self._types: dict[str, ValueType] = {}
        for group, feature in catalog.features(names):
            by_group.setdefault(group.name, []).append(feature)
            self._types[f"{group.name}.{feature.name}"] = feature.type
        self._groups = [_GroupPlan(catalog.groups[name], features) for name, features in by_group.items()]
        self.reads_copies = any(each.revision_time_us is not None for each in self._groups)

    def request(self, entity_rows: EntityRows) -> OnlineRequest:
        """Find and encode the keys of entity rows.

        Raises:
            InvalidKey: A key column is missing or ambiguous, or a key is not of its type; names row and column.
            InvalidRequest: The rows are not rows.
        """
        rows = _rows(entity_rows)
        groups = [each.group for each in self._groups]
        columns = find_key_columns(groups, rows[0], where="entity_rows[0]", error=InvalidKey) if rows else {}
        keys: dict[str, list[Any]] = {}
        key_types: dict[str, ValueType] = {}
        entities: dict[str, list[bytes | None]] = {}
        for group in groups:
            if group.entity in entities:
                continue
            names = columns.get(group.entity, group.key_names)
            values: list[list[Any]] = []
            for at, row in enumerate(rows):
                try:
                    values.append([row[name] for name in names])
                except KeyError as exc:
                    raise InvalidKey(f"entity_rows[{at}]: key column {exc.args[0]!r} is missing") from None
            entities[group.entity] = [
                None if None in row else encode_entity(key_from_python(row, group.keys, where=f"entity_rows[{at}]"))
                for at, row in enumerate(values)
            ]
            for place, (name, key) in enumerate(zip(names, group.keys, strict=True)):
                keys[name] = [row[place] for row in values]
                key_types[name] = key.type
        return OnlineRequest(self, keys, key_types, entities)

    def answer(self, request: OnlineRequest, stored: Sequence[bytes | None], now_us: int) -> OnlineResponse:
        """Make the response out of what the store returned for `request.stored_keys`.

        Raises:
            UnknownDefinition: A value was written under a definition that this plan does not know.
            CopyIsGone: A copy has no seal.
            Fatal: A stored value cannot be read.
        """
        if None in stored[request.seals_at :]:
            raise CopyIsGone
        values: dict[str, list[Any]] = {}
        statuses: dict[str, list[FeatureStatus]] = {}
        times: dict[str, list[int | None]] = {}
        for plan, places in zip(self._groups, request.places, strict=True):
            known: dict[int, _Answer] = {at: plan.answer(stored[at], now_us) for at in set(places) if at >= 0}
            answers = [known.get(at, _NEVER_SEEN) for at in places]
            group_times = [answer.event_time_us for answer in answers]
            for name, place, convert in plan.columns:
                column, states = _column(answers, place, convert)
                values[name], statuses[name], times[name] = column, states, group_times
        asked = list(self._types)
        return OnlineResponse(
            request.keys,
            request.key_types,
            {name: values[name] for name in asked},
            self._types,
            {name: statuses[name] for name in asked},
            {name: times[name] for name in asked},
        )

    def stored_keys(
        self, entities: Mapping[str, list[bytes | None]]
    ) -> tuple[list[bytes], list[bytes], list[list[int]]]:
        """Distinct stored keys of all groups, seals of their copies, and per group the place of each row's key.

        A place is one among the keys; -1 for a row that has no key, or a group that has no copy.
        """
        found: dict[bytes, int] = {}
        seals: list[bytes] = []
        places: list[list[int]] = []
        for plan in self._groups:
            prefix, keys = plan.prefix, entities[plan.group.entity]
            if plan.is_empty:
                places.append([-1] * len(keys))
                continue
            places.append([-1 if entity is None else found.setdefault(prefix + entity, len(found)) for entity in keys])
            if plan.seal is not None and any(at >= 0 for at in places[-1]):
                seals.append(plan.seal)
        return list(found), seals, places


class OnlineRequest:
    """The keys of one online read, encoded.

    Attributes:
        keys: Key columns as they were given.
        key_types: Their types.
        stored_keys: Distinct keys to read from the online store, of all groups together; last the seals of copies.
        seals_at: Where the seals begin.
        places: Per group, where in `stored_keys` each row's key is; -1 for a row whose key has a null in it.
    """

    __slots__ = ("key_types", "keys", "places", "seals_at", "stored_keys")

    def __init__(
        self,
        plan: OnlinePlan,
        keys: dict[str, list[Any]],
        key_types: dict[str, ValueType],
        entities: Mapping[str, list[bytes | None]],
    ) -> None:
        self.keys = keys
        self.key_types = key_types
        found, seals, self.places = plan.stored_keys(entities)
        self.seals_at = len(found)
        # Last, so that a store which reads one key after the other finds no seal of a copy whose rows it did not find.
        self.stored_keys = [*found, *seals]


def _column(
    answers: Sequence[_Answer], place: int, convert: Callable[[Any], Any] | None
) -> tuple[list[Any], list[FeatureStatus]]:
    column: list[Any] = []
    states: list[FeatureStatus] = []
    for status, _, row in answers:
        value: Any = None
        if row is not None:
            value = row[place]
            if value is None:
                status = FeatureStatus.NULL_VALUE
            elif convert is not None:
                value = convert(value)
        column.append(value)
        states.append(status)
    return column, states


def lasting(entity_rows: EntityRows) -> EntityRows:
    """Entity rows that may be gone through more than once."""
    rows: Any = entity_rows
    return list(rows) if isinstance(rows, Iterator) else entity_rows


def _rows(entity_rows: EntityRows) -> Sequence[Mapping[str, Any]]:
    if isinstance(entity_rows, list):
        rows = entity_rows
    elif isinstance(entity_rows, Mapping):
        return _rows_of_columns(entity_rows)
    elif hasattr(entity_rows, "__arrow_c_stream__") or hasattr(entity_rows, "collect"):  # a frame or a table
        from oomstream.query.labels import key_lists

        return _rows_of_columns(key_lists(entity_rows))
    elif isinstance(entity_rows, Iterable):
        rows = list(entity_rows)
    else:
        raise InvalidRequest(
            f"entity_rows: {type(entity_rows).__name__} is no type of rows; pass a list of dicts, a dict of lists, "
            "a pandas or polars DataFrame or an Arrow table"
        )
    for at, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InvalidRequest(f"entity_rows[{at}] is a {type(row).__name__}; pass a dict of key columns")
    return rows


def _rows_of_columns(columns: Mapping[str, Sequence[Any]]) -> Sequence[Mapping[str, Any]]:
    lists = {name: list(column) for name, column in columns.items()}
    if len({len(column) for column in lists.values()}) > 1:
        raise InvalidRequest("entity_rows: the columns are of different lengths")
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
