"""Feature columns: from the plain form, in which stores hold values, to the Arrow types that users get."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from oomstream.query.arrow import Chunked, cast
from oomstream.schemas.types import Kind, ValueType

if TYPE_CHECKING:
    import pandas as pd


SCAN_CELLS = 1_000_000
"""Cells of one scanned table, about: wide groups are scanned in fewer rows at a time."""

SCAN_ROWS = 100_000
"""Rows of one scanned table at most."""

PART_ROWS = 200_000
"""The same of a scan in parts, whose tables a store is meant to read without making Python objects of them."""

_PLAIN: dict[Kind, pa.DataType] = {
    Kind.BOOLEAN: pa.bool_(),
    Kind.FLOAT: pa.float64(),
    Kind.DOUBLE: pa.float64(),
    Kind.BYTES: pa.binary(),
}
_INTEGERS = frozenset({Kind.INT, Kind.LONG, Kind.DATE, Kind.TIMESTAMP_MILLIS, Kind.TIMESTAMP_MICROS})


def plain_type(kind: ValueType) -> pa.DataType:
    """Arrow type of a feature's column in a scan (see `oomstream.stores.base.Cut.scan`)."""
    return pa.int64() if kind.kind in _INTEGERS else _PLAIN.get(kind.kind, pa.string())


def scan_rows(columns: int, most: int = SCAN_ROWS) -> int:
    """Rows to scan at a time, for so many columns."""
    return max(1_000, min(most, SCAN_CELLS // columns))


def typed_column(plain: Chunked, kind: ValueType) -> Chunked:
    """Arrow column of a feature's own type, from a column in plain form.

    Args:
        plain: bool, int64, float64, string or binary, nulls allowed (see `oomstream.stores.base.Cut.scan`).
        kind: The feature's type.
    """
    match kind.kind:
        case Kind.ARRAY:
            return _lists(plain, kind)
        case Kind.DATE:
            return cast(cast(plain, pa.int32()), pa.date32())
    return cast(plain, kind.arrow())


def _lists(plain: Chunked, kind: ValueType) -> Chunked:
    assert kind.item is not None
    chunks: Any = []
    for texts in _pieces(plain):
        if kind.item.kind not in _READ_ITEM_BY_ITEM:
            # One parse for the whole chunk: a call per value would cost more than the parsing.
            values = orjson.loads(f"[{','.join('null' if text is None else text for text in texts)}]")
        else:
            values = [None if text is None else kind.python_from_plain(text) for text in texts]
        chunks.append(pa.array(values, kind.arrow()))
    arrow: Any = kind.arrow()
    lists: Chunked = pa.chunked_array(chunks, arrow)
    return lists


def _pieces(plain: Chunked) -> Iterator[list[str | None]]:
    """A few rows at a time: as Python objects, vectors take many times the room that they take in Arrow."""
    for chunk in plain.chunks:
        for start in range(0, len(chunk), _LISTS_AT_ONCE):
            yield chunk.slice(start, _LISTS_AT_ONCE).to_pylist()


_LISTS_AT_ONCE = 5_000

_READ_ITEM_BY_ITEM = frozenset({Kind.BYTES, Kind.DATE, Kind.TIMESTAMP_MILLIS, Kind.TIMESTAMP_MICROS, Kind.DECIMAL})
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
