"""Training sets of few labels against much history: the row of each label is looked up, and no other is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pyarrow as pa

from oomstream.query.arrow import one_array, pc, table_of, take
from oomstream.schemas.events import Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.stores.base import Cut


async def seek_features(
    cut: Cut,
    group: FeatureGroup,
    features: Sequence[str],
    labels: pa.Table,
    schema: pa.Schema,
    *,
    keys: Sequence[tuple[Plain, ...]] | None,
    rows: int,
    batch_rows: int,
) -> pa.Table | None:
    """Look up the row of every label, if the store would rather do that than scan.

    Args:
        cut: Where to read.
        group: The group, of category stream.
        features: Names of its features.
        labels: Labels without null keys: columns k0, k1, … (plain keys), t (int64 us), r (row number, int64).
        schema: Names and plain types of the features.
        keys: The entities of the labels where they are few.
        rows: Rows of the whole label table.
        batch_rows: Rows to read at a time.

    Returns:
        The features in plain form, one row per row of the label table, in its order; null where there is no row, or
        where it is a delete or too old. None if the store gives nothing but a scan.
    """
    moments = labels.drop_columns(["r"])
    found = await cut.seek(group, features, moments, keys=keys, max_age_us=group.ttl_us, batch_rows=batch_rows)
    if found is None:
        return None
    tables = [pa.schema([pa.field("_moment", pa.int64()), *schema]).empty_table()]
    try:
        # Whether a row is a delete does not matter here: its values are null.
        tables += [each.drop_columns(["_deleted"]) async for each in found]
    finally:
        if isinstance(found, AsyncGenerator):
            await found.aclose()
    return await asyncio.to_thread(_in_order, pa.concat_tables(tables), labels, rows)


def _in_order(found: pa.Table, labels: pa.Table, rows: int) -> pa.Table:
    row = one_array(labels.column("r")).take(one_array(found.column("_moment")))
    place = pc.inverse_permutation(row, max_index=rows - 1)
    return table_of({name: take(found.column(name), place) for name in found.column_names[1:]})
