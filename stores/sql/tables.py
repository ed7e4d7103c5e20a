"""Tables of the SQL stores: metadata and sources, and one history table per group.

Names that begin with ``_`` are ours in history tables; feature and key names never begin so.

Source:
    design.md, section 4 (sources) and section 6 (stored form).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, CreateTable

from oomstream.schemas.events import Event, Plain
from oomstream.schemas.groups import Feature, FeatureGroup
from oomstream.schemas.types import Kind
from oomstream.stores.base import HistoryRow
from oomstream.stores.forgetting import HASH_BYTES
from oomstream.stores.sql.dialects import Dialect, InsertText
from oomstream.stores.sql.text import quote_name

_BIG = sa.BigInteger


class MetaTables:
    """The metadata tables of one engine; `metadata` holds them all for CREATE.

    Attributes:
        meta: Single values by name: the pairing UUID and the format of the tables.
        counter: The last id given out per kind; AUTO_INCREMENT would jump.
        entity: Registered entities.
        feature_group: Registered groups with the newest definition's version.
        definition: Every published definition as its Avro schema.
        feature: Ids of features; a retired one keeps its row and its column.
        source: Sources with owner, position, lease and what the dead-letter limit remembers.
        lost_records: Ranges of sources that were skipped because the log no longer held them.
        revision: Revisions of batch groups, drafts and those being dropped included.
        sync: Online copies of revisions.
        forgotten: Marks of forgotten entities, by a hash of their keys.
        forgotten_key: Keys of entities forgotten lately, until their place in the online store is free.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.metadata = sa.MetaData()
        name, text = dialect.name_type, dialect.text_type()
        self.meta = self._table(
            "meta", sa.Column("name", name(), primary_key=True), sa.Column("value", text, nullable=False)
        )
        self.counter = self._table("counter", sa.Column("kind", name(), primary_key=True), *_numbers("value"))
        self.entity = self._table(
            "entity",
            _id(),
            sa.Column("name", name(), nullable=False, unique=True),
            sa.Column("doc", text, nullable=False),
            *_numbers("create_time", "modify_time"),
        )
        self.feature_group = self._table(
            "feature_group",
            _id(),
            sa.Column("name", name(), nullable=False, unique=True),
            *_numbers("entity_id", "version", "create_time", "modify_time"),
        )
        self.definition = self._table(
            "definition",
            _id("group_id"),
            _id("version"),
            sa.Column("fingerprint", dialect.binary_type(8), nullable=False),
            sa.Column("avro_schema", text, nullable=False),
            *_numbers("create_time"),
        )
        self.feature = self._table(
            "feature",
            _id(),
            sa.Column("group_id", _BIG, nullable=False),
            sa.Column("name", name(), nullable=False),
            sa.Column("retired", sa.Boolean, nullable=False),
            *_numbers("create_time", "modify_time"),
            sa.UniqueConstraint("group_id", "name"),
        )
        self.source = self._table(
            "source",
            _id(),
            sa.Column("kind", sa.Integer, nullable=False),
            sa.Column("name", name(1024), nullable=False),
            sa.Column("incarnation", name(), nullable=False),
            sa.Column("partition", sa.Integer, nullable=False),
            # previous_sequence is where the batch began that the last transaction wrote: the fence UPDATE keeps it,
            # so that the same transaction knows what was decided before it, with no earlier look at the row.
            *_numbers("owner", "previous_sequence", "next_sequence", "online_sequence", "last_ingest_time"),
            *_numbers("dlq_consecutive", "dlq_records", "dlq_letters", "lease_until"),
            sa.UniqueConstraint("kind", "incarnation", "partition", "name"),
        )
        self.lost_records = self._table(
            "lost_records", _id("source_id"), _id("start_sequence"), *_numbers("end_sequence", "time")
        )
        self.revision = self._table(
            "revision",
            _id(),
            *_numbers("group_id", "state", "revision_time"),
            sa.Column("anchored", sa.Boolean, nullable=False),
            sa.Column("moved", sa.Boolean, nullable=False),
            sa.Column("table_name", name(), nullable=False),
            sa.Column("linked", sa.Boolean, nullable=False),
            sa.Column("doc", text, nullable=False),
            *_numbers("version", "lease", "lease_until", "create_time", "modify_time"),
        )
        self.sync = self._table(
            "sync", _id(), *_numbers("group_id", "revision_id", "state", "until_time", "create_time")
        )

        self.forgotten = self._table(
            "forgotten",
            *_entity_key_hash(dialect),
            sa.Column("number", _BIG, nullable=False, index=True),
            *_numbers("time"),
        )
        self.forgotten_key = self._table(
            "forgotten_key",
            *_entity_key_hash(dialect),
            sa.Column("entity_key", dialect.binary_type(), nullable=False),
            *_numbers("held_until"),
        )

    def _table(self, name: str, *parts: Any) -> sa.Table:
        return sa.Table(name, self.metadata, *parts)


def make_missing(connection: sa.Connection, metadata: sa.MetaData) -> None:
    """Make the tables that are not there, and their indexes, beside others who may be doing the same.

    Whoever may not make tables can call it where nothing is missing.
    """
    inspector = sa.inspect(connection)
    for table in metadata.sorted_tables:
        if not inspector.has_table(table.name):
            # IF NOT EXISTS: it may be there by now, and a conflict over each of a dozen would use up the attempts.
            connection.execute(CreateTable(table, if_not_exists=True))
        for index in table.indexes:
            # Asked for apart: where DDL commits by itself, somebody may have been ended between table and index.
            if not inspector.has_index(table.name, str(index.name)):
                connection.execute(CreateIndex(index))


def _id(name: str = "id") -> sa.Column[int]:
    return sa.Column(name, _BIG, primary_key=True, autoincrement=False)


def _entity_key_hash(dialect: Dialect) -> list[sa.Column[Any]]:
    return [
        sa.Column("entity", dialect.name_type(), primary_key=True),
        sa.Column("key_hash", dialect.binary_type(HASH_BYTES), primary_key=True),
    ]


def _numbers(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, _BIG, nullable=False) for name in names]


def key_columns(group: FeatureGroup, dialect: Dialect) -> list[sa.Column[Any]]:
    """The key fields as the first columns of a primary key."""
    return [
        sa.Column(key.name, dialect.key_type(key.type), primary_key=True, autoincrement=False) for key in group.keys
    ]


def feature_column(feature: Feature, dialect: Dialect) -> sa.Column[Any]:
    """The column of a feature; its default, where the engine can keep it, also fills old rows when it is added."""
    default = None
    if feature.has_default and feature.default is not None:
        is_float = feature.type.kind in {Kind.FLOAT, Kind.DOUBLE}
        default = dialect.default_text(float(feature.default) if is_float else feature.default)
    words = None if default is None else sa.text(default)
    return sa.Column(feature.name, dialect.value_type(feature.type), nullable=True, server_default=words)


class HistoryTable:
    """The history table of one definition version of a group, and how events become its rows.

    Attributes:
        group: The definition.
        dialect: The engine.
        name: Name of the table.
        table: It, for expressions; columns in stored order (keys, ours, active features, retired features).
        insert: INSERT as text for the driver, columns in the order of `rows`; rows that are stored already stay.
        insert_new: The same for rows that are not stored; if one is, either it stays or the statement fails.
        filled: Default by name of the features whose default the engine cannot keep: null in a row that is no delete
            means that it was written before the feature was added, since such a feature is never nullable.
    """

    def __init__(self, group: FeatureGroup, dialect: Dialect) -> None:
        self.group = group
        self.dialect = dialect
        self.name = f"history_{group.name}"
        keys: list[Any] = list(key_columns(group, dialect))
        ours: list[Any] = [
            *(sa.Column(each, _BIG, primary_key=True, autoincrement=False) for each in ("_event_time", "_source")),
            sa.Column("_sequence", _BIG, primary_key=True, autoincrement=False),
            sa.Column("_ingest_time", _BIG, nullable=False),
            sa.Column("_deleted", sa.Boolean, nullable=False),
        ]
        self.filled: dict[str, Plain] = {}
        features: list[Any] = [self.feature_column(each) for each in (*group.features, *group.retired)]
        self.table = sa.Table(
            self.name, sa.MetaData(), *keys, *ours, *features, sqlite_with_rowid=False, mysql_row_format="DYNAMIC"
        )
        # Recovery reads a source's rows between two positions; without this every restart would scan the table.
        sa.Index(f"history_{group.name}_source", self.table.c["_source"], self.table.c["_sequence"])
        self.insert = self._insert_text()
        self.insert_new = self.insert._replace(tail="") if dialect.tries_plain_insert else self.insert
        self.no_values = (None,) * len(group.features)
        self._key_count = len(keys)

    def feature_column(self, feature: Feature) -> sa.Column[Any]:
        """The column of a feature; its default also fills old rows when the column is added."""
        column = feature_column(feature, self.dialect)
        if column.server_default is None and feature.has_default and feature.default is not None:
            self.filled[feature.name] = feature.default
        return column

    def quoted(self, name: str) -> str:
        """A column or table name as SQL text."""
        return quote_name(name, self.dialect.quote)

    def _insert_text(self) -> InsertText:
        names = [*self.group.key_names, "_event_time", "_source", "_sequence", "_ingest_time", "_deleted"]
        names += [feature.name for feature in self.group.features]
        columns = ", ".join(map(self.quoted, names))
        places = ", ".join([self.dialect.parameter] * len(names))
        kept = self.dialect.insert_or_keep(self.quoted(names[0]))
        head = f"INSERT INTO {self.quoted(self.name)} ({columns}) VALUES"
        return InsertText(head, f"({places})", kept)

    def rows(self, events: Sequence[Event], source_id: int, ingest_time_us: int) -> list[tuple[Plain, ...]]:
        """Parameters of `insert`, one row an event."""
        no_values = self.no_values
        return [
            (*key, time_us, source_id, sequence, ingest_time_us, deleted, *(no_values if deleted else values))
            for sequence, key, _, time_us, deleted, values, _ in events
        ]

    @property
    def keys(self) -> list[sa.Column[Any]]:
        """The key columns in order."""
        return [self.table.c[name] for name in self.group.key_names]

    @property
    def columns(self) -> list[sa.Column[Any]]:
        """What `history_row` wants selected, in this order."""
        ours = ("_event_time", "_source", "_sequence", "_ingest_time", "_deleted")
        names = (*self.group.key_names, *ours, *(feature.name for feature in self.group.features))
        return [self.table.c[name] for name in names]

    def history_row(self, row: Any) -> HistoryRow:
        """A selected row of `columns` in plain form; a delete has no values, whatever a later default filled in."""
        at = self._key_count
        time_us, source_id, sequence, ingest_time_us, deleted = row[at : at + 5]
        values = self.no_values if deleted else tuple(row[at + 5 :])
        if self.filled and not deleted:
            values = tuple(
                self.filled.get(feature.name) if value is None else value
                for feature, value in zip(self.group.features, values, strict=True)
            )
        return HistoryRow(tuple(row[:at]), time_us, source_id, sequence, ingest_time_us, bool(deleted), values)
