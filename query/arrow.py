"""Arrow as the modules of this room use it: type names with their parameters, and a few functions it lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute

Array: TypeAlias = "pa.Array[Any]"
Chunked: TypeAlias = "pa.ChunkedArray[Any]"

pc: Any = pyarrow.compute
"""Arrow's functions; their stubs do not know chunked columns everywhere, nor the newer functions."""


def table_of(columns: Mapping[str, Array | Chunked]) -> pa.Table:
    """A table of named columns."""
    return pa.Table.from_arrays(list(columns.values()), names=list(columns))


def cast(column: Chunked, kind: pa.DataType) -> Chunked:
    """A column as another type.

    Raises:
        pyarrow.ArrowInvalid: A value would be changed by it.
    """
    converted: Chunked = pc.cast(column, kind)
    return converted


def one_array(column: Array | Chunked) -> Array:
    """A column as one array; costs nothing where it is one already."""
    array: Any = column
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()
    one: Array = array
    return one


def chunked(array: Array | Chunked) -> Chunked:
    """An array as a column of one chunk; a column as it is."""
    if isinstance(array, pa.ChunkedArray):
        return array
    column: Chunked = pa.chunked_array([array])
    return column


def numbers(count: int) -> Array:
    """The int64 numbers from 0 up to `count`, without it."""
    ones = pa.repeat(pa.scalar(1, pa.int64()), count)
    counted: Array = pc.subtract(pc.cumulative_sum(ones), 1)
    return counted
