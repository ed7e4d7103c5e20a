"""Online reads: what is asked, and what is answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from oomstream.schemas.errors import InvalidRequest
from oomstream.schemas.types import ValueType, time_from_us

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

EntityRows: TypeAlias = (
    "Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]] | pd.DataFrame | pl.DataFrame | pa.Table"
)
"""Keys to read: a dict per row, a list per column, a DataFrame or an Arrow table."""


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


class GroupRows(NamedTuple):
    """What holds of all features of one group, by row of a request.

    Attributes:
        statuses: PRESENT also where the value of a feature is null.
        event_times_us: Of the newest event; None if there is none.
    """

    statuses: list[FeatureStatus]
    event_times_us: list[int | None]


class OnlineResponse:
    """Answer to an online read: one row per entity row, in their order.

    Values are Python values of the feature's type (datetime, date, Decimal, list, …), None unless PRESENT.

    Attributes:
        age_us: How old the state is that was read, microseconds. 0 almost always; more where rows could not be read
            as they are now, because a writer of them had just died.
    """

    __slots__ = ("_key_types", "_keys", "_rows", "_types", "_values", "age_us")

    def __init__(
        self,
        keys: dict[str, list[Any]],
        key_types: dict[str, ValueType],
        values: dict[str, list[Any]],
        types: Mapping[str, ValueType],
        rows: Mapping[str, GroupRows],
    ) -> None:
        self._keys = keys
        self._key_types = key_types
        self._values = values
        self._types = types
        self._rows = rows
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
        return {name: _statuses(column, self._rows[name].statuses) for name, column in self._values.items()}

    @property
    def event_times(self) -> dict[str, list[datetime | None]]:
        """By full feature name, the event time (UTC) of the newest event of each entity; None if there is none."""
        return {
            name: [None if time is None else time_from_us(time) for time in self._rows[name].event_times_us]
            for name in self._values
        }


def _statuses(column: Sequence[Any], rows: Sequence[FeatureStatus]) -> list[FeatureStatus]:
    present, null = FeatureStatus.PRESENT, FeatureStatus.NULL_VALUE
    return [null if value is None and row is present else row for value, row in zip(column, rows, strict=True)]


def lasting(entity_rows: EntityRows) -> EntityRows:
    """Entity rows that may be gone through more than once."""
    rows: Any = entity_rows
    return list(rows) if isinstance(rows, Iterator) else entity_rows


def rows_of(entity_rows: EntityRows) -> Sequence[Mapping[str, Any]]:
    """Entity rows as a dict each.

    Raises:
        InvalidRequest: They are not rows.
    """
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
    if not set(map(type, rows)) <= {dict}:
        for at, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise InvalidRequest(f"entity_rows[{at}] is a {type(row).__name__}; pass a dict of key columns")
    return rows


def _rows_of_columns(columns: Mapping[str, Sequence[Any]]) -> Sequence[Mapping[str, Any]]:
    lists = {name: list(column) for name, column in columns.items()}
    if len({len(column) for column in lists.values()}) > 1:
        raise InvalidRequest("entity_rows: the columns are of different lengths")
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
