"""Tables of revisions: how ours are made and filled, and how rows of one, ours or a user's, are read.

Source:
    design.md, section 6 (batch groups).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from oomstream.schemas.errors import InvalidRequest, StoreUnavailable
from oomstream.schemas.events import Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.types import ValueType
from oomstream.stores.revisions import Revision, RevisionRow
from oomstream.stores.sql.dialects import Dialect, InsertText, StoredColumn
from oomstream.stores.sql.tables import feature_column, key_columns
from oomstream.stores.sql.text import quote_name

_KEYS_PER_STATEMENT = 100
_Linked = Callable[[StoredColumn, str, ValueType], str | None]


def table_name(group_id: int, revision_id: int) -> str:
    """Name of the table that a revision of ours has."""
    return f"offline_batch_snapshot_{group_id}_{revision_id}"


async def stored_columns(connection: AsyncConnection, table: str, dialect: Dialect) -> list[StoredColumn]:
    """The columns that a table has; none if there is no such table."""
    found: Iterable[Any] = await connection.exec_driver_sql(dialect.columns_text(table))
    return [StoredColumn(*row) for row in found]


class RevisionTable:
    """The table of a revision of ours, with the features of one definition version.

    Attributes:
        table: It, for CREATE and DROP.
        insert: INSERT as text for the driver; its parameters are a row's key and values.
    """

    def __init__(self, group: FeatureGroup, name: str, dialect: Dialect) -> None:
        features = [feature_column(each, dialect) for each in group.features]
        columns = [*key_columns(group, dialect), *features]
        self.table = sa.Table(name, sa.MetaData(), *columns, sqlite_with_rowid=False, mysql_row_format="DYNAMIC")
        names = ", ".join(quote_name(each.name, dialect.quote) for each in columns)
        places = ", ".join([dialect.parameter] * len(columns))
        head = f"INSERT INTO {quote_name(name, dialect.quote)} ({names}) VALUES"
        self.insert = InsertText(head, f"({places})", "")


class RevisionForm:
    """How rows of one revision's table are read: expressions that give values in plain form.

    Attributes:
        group: The group's definition.
        name: The table's name.
        table: The same, quoted.
        keys: Expressions of the key fields, which compare and sort by exact bytes.
        values: Expressions by name of those of the group's features that the table has.
        missing: The others by name, with what stands in every row: their default, or None.

    Args:
        group: The group's definition.
        revision: The revision.
        stored: The columns that the table has.
        dialect: The engine.

    Raises:
        StoreUnavailable: The revision's own table is gone: it was dropped after its row was read.
        InvalidRequest: A linked table is gone, or a column of a key field is missing or of a type that cannot hold it.
    """

    def __init__(
        self, group: FeatureGroup, revision: Revision, stored: Sequence[StoredColumn], dialect: Dialect
    ) -> None:
        self.group = group
        self.name = revision.table
        self.table = quote_name(revision.table, dialect.quote)
        self._dialect = dialect
        self._linked = revision.linked
        self._stored = {each.name.lower(): each for each in stored}
        if not stored and not revision.linked:
            raise StoreUnavailable(f"revision {revision.id} of group {group.name} was dropped meanwhile: do it again")
        if not stored:
            raise InvalidRequest(f"table {revision.table}, linked as a revision of group {group.name}, is not there")
        self.keys = [self._expression(each.name, each.type, "key field", dialect.linked_key) for each in group.keys]
        self.values: dict[str, str] = {}
        self.missing: dict[str, Plain] = {}
        for feature in group.features:
            if feature.name.lower() in self._stored:
                self.values[feature.name] = self._expression(
                    feature.name, feature.type, "feature", dialect.linked_value
                )
            else:
                self.missing[feature.name] = feature.default if feature.has_default else None

    def _expression(self, name: str, kind: ValueType, what: str, linked: _Linked) -> str:
        quoted = quote_name(name, self._dialect.quote)
        if not self._linked:
            return quoted
        column = self._stored.get(name.lower())
        if column is None:
            raise InvalidRequest(f"table {self.name} has no column {name}, a {what} of group {self.group.name}")
        expression = linked(column, quoted, kind)
        if expression is None:
            raise InvalidRequest(
                f"table {self.name}: column {name} is of type {column.type}, which cannot hold the {what} of that name "
                f"of group {self.group.name}, {kind}"
            )
        return expression

    def expressions(self, features: Iterable[str]) -> list[str]:
        """Expressions of the key fields, then of those of the features that the table has."""
        return [*self.keys, *(self.values[name] for name in features if name in self.values)]

    def page(self, after: tuple[Plain, ...] | None, limit: int) -> sa.Select[Any]:
        """Rows in key order, from the first key greater than `after`: keys, then features that the table has."""
        keys = self._key_columns()
        values: list[sa.ColumnElement[Any]] = [
            sa.literal_column(self.values[each.name], self._dialect.value_type(each.type))
            for each in self.group.features
            if each.name in self.values
        ]
        # Labels: two expressions without a name would be taken for one.
        named = [each.label(f"c{at}") for at, each in enumerate([*keys, *values])]
        query = sa.select(*named).select_from(sa.text(self.table)).order_by(*keys).limit(limit)
        return query if after is None else query.where(self._dialect.after(keys, after))

    async def which(self, connection: AsyncConnection, keys: Sequence[tuple[Plain, ...]]) -> set[tuple[Plain, ...]]:
        """Those of the keys that the table has a row of."""
        columns = self._key_columns()
        found: set[tuple[Plain, ...]] = set()
        for at in range(0, len(keys), _KEYS_PER_STATEMENT):
            same = [
                sa.and_(*(column == part for column, part in zip(columns, key, strict=True)))
                for key in keys[at : at + _KEYS_PER_STATEMENT]
            ]
            query = sa.select(*(each.label(f"c{at}") for at, each in enumerate(columns)))
            query = query.select_from(sa.text(self.table)).where(sa.or_(*same))
            found.update(tuple(row) for row in await connection.execute(query))
        return found

    def _key_columns(self) -> list[sa.ColumnElement[Any]]:
        return [
            sa.literal_column(text, self._dialect.key_type(each.type))
            for text, each in zip(self.keys, self.group.keys, strict=True)
        ]

    def row(self, found: Sequence[Any]) -> RevisionRow:
        """A row of `page` in plain form."""
        width = len(self.keys)
        if not self.missing:
            return RevisionRow(tuple(found[:width]), tuple(found[width:]))
        there = iter(found[width:])
        values = tuple(
            self.missing[each.name] if each.name in self.missing else next(there) for each in self.group.features
        )
        return RevisionRow(tuple(found[:width]), values)
