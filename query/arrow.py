"""Arrow as the modules of this room use it: what all rooms share, and a few functions it lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from oomstream.schemas.arrow import Array as Array
from oomstream.schemas.arrow import Chunked as Chunked
from oomstream.schemas.arrow import cast as cast
from oomstream.schemas.arrow import pc as pc
from oomstream.schemas.arrow import plain_layout as plain_layout


def table_of(columns: Mapping[str, Array | Chunked]) -> pa.Table:
    """A table of named columns."""
    return pa.Table.from_arrays(list(columns.values()), names=list(columns))


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


def take(column: Chunked, order: Array) -> Chunked:
    """Values by row number, null for null; also of text that is longer in all than one Arrow array may be."""
    try:
        taken: Chunked = column.take(order)
    except pa.ArrowInvalid:
        if column.type not in _WIDE:
            raise
        taken = take_in_pieces(column, order)
    return taken


def take_in_pieces(column: Chunked, order: Array, rows: int = 1_000) -> Chunked:
    """Text or bytes by row number, in arrays of a few rows: of 1 MiB at most each, as events are, they stay small."""
    # A wide array has room for all of it; the pieces that are taken out of it are short enough to be narrow again.
    values = one_array(cast(column, _WIDE[column.type]))
    pieces: Any = [pc.cast(values.take(order.slice(start, rows)), column.type) for start in range(0, len(order), rows)]
    kind: Any = column.type
    taken: Chunked = pa.chunked_array(pieces, kind)
    return taken


_WIDE: dict[pa.DataType, pa.DataType] = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}
