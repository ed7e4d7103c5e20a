"""Whether a table of a user's can be a revision.

Source:
    oomcli.md (import --table-link).
"""

from __future__ import annotations

import re
from collections.abc import Collection

from sqlalchemy.ext.asyncio import AsyncConnection

from oomstream.schemas.errors import InvalidRequest
from oomstream.schemas.groups import FeatureGroup
from oomstream.stores.revisions import Revision
from oomstream.stores.sql.dialects import Dialect
from oomstream.stores.sql.revision_tables import RevisionForm, stored_columns

_NAME = re.compile(r"[A-Za-z0-9_$-]{1,64}", re.ASCII)


async def check_linked(
    connection: AsyncConnection, group: FeatureGroup, table: str, dialect: Dialect, ours: Collection[str]
) -> None:
    """Make sure that a table has a column for each field, and values that its fields can hold; one pass and a sort.

    Args:
        connection: A transaction.
        group: The group whose revision it shall be.
        table: The table.
        dialect: The engine.
        ours: Names of tables that are not the user's.

    Raises:
        InvalidRequest: It is not so; names the table, and the column.
    """
    where = f"table {table[:80]}"
    if not _NAME.fullmatch(table):
        raise InvalidRequest(
            f"{where}: a linked table's name is 1 to 64 letters, digits, _, $ and -, no database before it"
        )
    if table.lower() in {each.lower() for each in ours}:
        raise InvalidRequest(f"{where} is one of oomstream's own: link a table that is yours")
    stored = await stored_columns(connection, table, dialect)
    if not stored:
        raise InvalidRequest(f"{where} is not there: a linked table must be in the history database")
    form = RevisionForm(group, Revision(0, group.id, 0, False, table, linked=True), stored, dialect)
    if form.missing:
        raise InvalidRequest(f"{where} has no column {next(iter(form.missing))}, a feature of group {group.name}")
    await _refuse_misfits(connection, form, where, dialect)
    keys = ", ".join(form.keys)
    twins = f"SELECT 1 FROM {form.table} GROUP BY {keys} HAVING COUNT(*) > 1 LIMIT 1"  # noqa: S608 - quoted names
    if (await connection.exec_driver_sql(twins)).first() is not None:
        named = ", ".join(group.key_names)
        raise InvalidRequest(f"{where}: some key ({named}) is there twice: a revision has one row per entity")


async def _refuse_misfits(connection: AsyncConnection, form: RevisionForm, where: str, dialect: Dialect) -> None:
    columns: list[tuple[str, str, str]] = []
    for key, text in zip(form.group.keys, form.keys, strict=True):
        columns.append((key.name, f"{text} IS NULL", "null, but is part of the key"))
        wrong = dialect.misfit(text, key.type, key=True)
        columns.append(
            (key.name, f"{text} IS NOT NULL AND {wrong}", f"something that the key field of type {key.type} cannot be")
        )
    for feature in form.group.features:
        text = form.values[feature.name]
        if not feature.nullable:
            columns.append((feature.name, f"{text} IS NULL", "null, but the feature is not nullable"))
        wrong = dialect.misfit(text, feature.type, key=False)
        columns.append(
            (
                feature.name,
                f"{text} IS NOT NULL AND {wrong}",
                f"something that the feature of type {feature.type} cannot be",
            )
        )
    counts = ", ".join(f"MAX(CASE WHEN {condition} THEN 1 ELSE 0 END)" for _, condition, _ in columns)
    found = (await connection.exec_driver_sql(f"SELECT {counts} FROM {form.table}")).one()  # noqa: S608 - our own words
    for hit, (name, _, what) in zip(found, columns, strict=True):
        if hit:
            raise InvalidRequest(f"{where}: column {name} holds {what}")
