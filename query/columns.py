"""Feature columns: from the plain form, in which stores hold values, to the Arrow types that users get."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from oomstream.schemas.types import Kind, ValueType

if TYPE_CHECKING:
    import pandas as pd


def typed_column(plain: pa.ChunkedArray, kind: ValueType) -> pa.ChunkedArray:
    """Arrow column of a feature's own type, from a column in plain form.

    Args:
        plain: bool, int64, float64, string or binary, nulls allowed (see `oomstream.stores.base.Cut.scan`).
        kind: The feature's type.
    """
    match kind.kind:
        case Kind.ARRAY:
            return _lists(plain, kind)
        case Kind.DATE:
            return pc.cast(pc.cast(plain, pa.int32()), pa.date32())
    return pc.cast(plain, kind.arrow())


def _lists(plain: pa.ChunkedArray, kind: ValueType) -> pa.ChunkedArray:
    assert kind.item is not None
    chunks: list[pa.Array] = []
    for chunk in plain.chunks:
        # One parse for the whole chunk: a call per value would cost more than the parsing.
        texts = pc.fill_null(chunk, "null").to_pylist()
        values: list[list[Any] | None] = orjson.loads(f"[{','.join(texts)}]")
        if not kind.item.is_identity or kind.item.kind in _READ_ITEM_BY_ITEM:
            values = [
                None if value is None else kind.python_from_plain(text)
                for value, text in zip(values, texts, strict=True)
            ]
        chunks.append(pa.array(values, kind.arrow()))
    return pa.chunked_array(chunks, kind.arrow())


_READ_ITEM_BY_ITEM = frozenset({Kind.BYTES, Kind.DATE, Kind.TIMESTAMP_MICROS})
"""Kinds whose items stand in JSON in another form than Arrow takes."""


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """A DataFrame with exact values: integers and booleans with nulls stay what they are (Int64, boolean)."""
    import pandas as pd

    exact: dict[pa.DataType, Any] = {
        pa.bool_(): pd.BooleanDtype(),
        pa.int8(): pd.Int8Dtype(),
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.uint8(): pd.UInt8Dtype(),
        pa.uint16(): pd.UInt16Dtype(),
        pa.uint32(): pd.UInt32Dtype(),
        pa.uint64(): pd.UInt64Dtype(),
    }
    mapper: Callable[[pa.DataType], Any] = exact.get
    return table.to_pandas(types_mapper=mapper, ignore_metadata=True, date_as_object=True)
