"""How an online read is done: entity rows to stored keys, stored values to columns; no I/O.

A read is most often short and there are many of them, so what depends on the features alone is worked out once, and
what depends on the rows goes through whole columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from oomstream.query.key_columns import find_key_columns
from oomstream.query.online import EntityRows, FeatureStatus, GroupRows, OnlineResponse, rows_of
from oomstream.schemas.catalog import Catalog, RegisteredGroup
from oomstream.schemas.errors import Fatal, InvalidEvent, InvalidKey, Reason
from oomstream.schemas.groups import Category, Feature
from oomstream.schemas.keys import entities_from_python
from oomstream.schemas.online_value import key_prefix, seal_key, value_to_serve
from oomstream.schemas.projection import Columns, Projection
from oomstream.schemas.types import ValueType

_MOST_KEY_COLUMNS = 100
"""Of so many kinds of entity rows a plan remembers which columns are keys."""


class UnknownDefinition(Exception):
    """A stored value was written under a definition that the plan does not know; read the catalog anew."""


class CopyIsGone(Exception):
    """The copy of a revision that the plan reads is not whole (any more); read the catalog anew."""


class _Places(NamedTuple):
    """Where the keys of one group are among those of a request.

    Attributes:
        keys: Their part of `OnlineRequest.stored_keys`.
        rows: For each row, the place of its key in that part, -1 for none; None where rows and keys are one to one.
    """

    keys: slice
    rows: list[int] | None


class _GroupPlan:
    """How one group of a request is read.

    A batch group is read from the copy that the catalog names, together with the copy's seal: if that is missing, the
    copy is being removed. One that was never synced has no copy, and nothing of it is read.
    """

    __slots__ = ("group", "is_empty", "names", "prefix", "projection", "revision_time_us", "seal")

    def __init__(self, registered: RegisteredGroup, features: Sequence[Feature]) -> None:
        self.group = registered.group
        self.prefix = key_prefix(self.group.id, registered.sync_id)
        batch = self.group.category is Category.BATCH
        self.is_empty = batch and not registered.sync_id
        self.seal = seal_key(self.group.id, registered.sync_id) if batch and registered.sync_id else None
        # Not that of the stored version: a revision may get its time from the very flip that shows its copy.
        self.revision_time_us = registered.online_time_us if batch else None
        self.projection = Projection(registered, features)
        self.names = [f"{self.group.name}.{feature.name}" for feature in features]

    def answer(self, stored: Sequence[bytes | None], now_us: int) -> tuple[GroupRows, Columns]:
        """What stored values of this group say at a moment."""
        statuses: list[FeatureStatus] = []
        times: list[int | None] = []
        present: list[int] = []
        fingerprints: list[bytes] = []
        bodies: list[bytes] = []
        oldest_us = None if self.group.ttl_us is None else now_us - self.group.ttl_us
        for at, value in enumerate(stored):
            if value is None:
                statuses.append(FeatureStatus.NOT_FOUND)
                times.append(None)
                continue
            try:
                time_us, fingerprint, deleted, body = value_to_serve(value)
            except ValueError as exc:
                raise Fatal(
                    f"group {self.group.name}: {exc}; the online store holds what a newer oomstream wrote"
                ) from exc
            if self.revision_time_us is not None:
                time_us = self.revision_time_us
            times.append(time_us)
            if deleted:
                statuses.append(FeatureStatus.NOT_FOUND)
            elif oldest_us is not None and time_us < oldest_us:
                statuses.append(FeatureStatus.OUTSIDE_MAX_AGE)
            else:
                statuses.append(FeatureStatus.PRESENT)
                present.append(at)
                fingerprints.append(fingerprint)
                bodies.append(body)
        columns = self._columns(fingerprints, bodies)
        if len(present) < len(stored):
            columns = [_spread(column, present, len(stored)) for column in columns]
        return GroupRows(statuses, times), columns

    def _columns(self, fingerprints: Sequence[bytes], bodies: Sequence[bytes]) -> Columns:
        try:
            return self.projection.columns(fingerprints, bodies)
        except InvalidEvent as exc:
            if exc.reason is Reason.UNKNOWN_FINGERPRINT:
                raise UnknownDefinition(str(exc)) from exc
            raise Fatal(f"{exc} (online store); `oomstream repair` writes it anew from history") from exc


def _spread(column: Sequence[Any], places: Sequence[int], rows: int) -> list[Any]:
    spread: list[Any] = [None] * rows
    for at, value in zip(places, column, strict=True):
        spread[at] = value
    return spread


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
        self._key_columns: dict[tuple[str, ...], Mapping[str, tuple[str, ...]]] = {}
        self.reads_copies = any(each.revision_time_us is not None for each in self._groups)

    def request(self, entity_rows: EntityRows) -> OnlineRequest:
        """Find and encode the keys of entity rows.

        Raises:
            InvalidKey: A key column is missing or ambiguous, or a key is not of its type; names row and column.
            InvalidRequest: The rows are not rows.
        """
        rows = rows_of(entity_rows)
        found = self._find_key_columns(rows[0]) if rows else {}
        keys: dict[str, list[Any]] = {}
        key_types: dict[str, ValueType] = {}
        entities: dict[str, list[bytes | None]] = {}
        for plan in self._groups:
            group = plan.group
            if group.entity in entities:
                continue
            names = found.get(group.entity, group.key_names)
            columns = _key_columns(rows, names)
            entities[group.entity] = entities_from_python(columns, group.keys, where="entity_rows")
            for name, key, column in zip(names, group.keys, columns, strict=True):
                keys[name] = column
                key_types[name] = key.type
        return OnlineRequest(keys, key_types, *self._stored_keys(entities))

    def _find_key_columns(self, row: Mapping[str, Any]) -> Mapping[str, tuple[str, ...]]:
        columns = tuple(row)
        found = self._key_columns.get(columns)
        if found is None:
            groups = [each.group for each in self._groups]
            found = find_key_columns(groups, row, where="entity_rows[0]", error=InvalidKey)
            if len(self._key_columns) >= _MOST_KEY_COLUMNS:
                self._key_columns.clear()
            self._key_columns[columns] = found
        return found

    def _stored_keys(self, entities: Mapping[str, list[bytes | None]]) -> tuple[list[bytes], int, list[_Places]]:
        """Keys to read, where among them the seals begin, and where the keys of each group are."""
        keys: list[bytes] = []
        seals: list[bytes] = []
        places: list[_Places] = []
        for plan in self._groups:
            start, of_rows = len(keys), entities[plan.group.entity]
            distinct = {} if plan.is_empty else dict.fromkeys(of_rows)
            distinct.pop(None, None)
            prefix = plan.prefix
            keys += [prefix + each for each in distinct if each is not None]
            rows = None
            if len(distinct) < len(of_rows):
                numbers = {entity: at for at, entity in enumerate(distinct)}
                rows = [numbers.get(each, -1) for each in of_rows]
            places.append(_Places(slice(start, len(keys)), rows))
            if plan.seal is not None and distinct:
                seals.append(plan.seal)
        # Last, so that a store which reads one key after the other finds no seal of a copy whose rows it did not find.
        return keys + seals, len(keys), places

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
        rows_by_name: dict[str, GroupRows] = {}
        for plan, places in zip(self._groups, request.places, strict=True):
            rows, columns = plan.answer(stored[places.keys], now_us)
            if places.rows is not None:
                rows, columns = _by_row(rows, columns, places.rows)
            values.update(zip(plan.names, columns, strict=True))
            rows_by_name.update(dict.fromkeys(plan.names, rows))
        if len(self._groups) > 1:
            values = {name: values[name] for name in self._types}
        return OnlineResponse(request.keys, request.key_types, values, self._types, rows_by_name)


class OnlineRequest(NamedTuple):
    """The keys of one online read, encoded.

    Attributes:
        keys: Key columns as they were given.
        key_types: Their types.
        stored_keys: Distinct keys to read from the online store, of all groups together; last the seals of copies.
        seals_at: Where the seals begin.
        places: Where the keys of each group are.
    """

    keys: dict[str, list[Any]]
    key_types: dict[str, ValueType]
    stored_keys: list[bytes]
    seals_at: int
    places: list[_Places]


def _key_columns(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> list[list[Any]]:
    try:
        return [[row[name] for row in rows] for name in names]
    except KeyError:
        for at, row in enumerate(rows):
            for name in names:
                if name not in row:
                    raise InvalidKey(f"entity_rows[{at}]: key column {name!r} is missing") from None
        raise


def _by_row(rows: GroupRows, columns: Columns, places: Sequence[int]) -> tuple[GroupRows, Columns]:
    """From one answer per key to one per row; rows with no key are not found."""
    # Place -1 is the last one.
    statuses = [*rows.statuses, FeatureStatus.NOT_FOUND]
    times = [*rows.event_times_us, None]
    spread = [[*column, None] for column in columns]
    return (
        GroupRows([statuses[at] for at in places], [times[at] for at in places]),
        [[column[at] for at in places] for column in spread],
    )
