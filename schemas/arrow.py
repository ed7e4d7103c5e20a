"""Arrow as the rooms use it: type names with their parameters, a few functions, and one plain layout."""

from __future__ import annotations

from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute

Array: TypeAlias = "pa.Array[Any]"
Chunked: TypeAlias = "pa.ChunkedArray[Any]"

pc: Any = pyarrow.compute
"""Arrow's functions; their stubs do not know chunked columns everywhere, nor the newer functions."""


def cast(column: Chunked, kind: pa.DataType) -> Chunked:
    """A column as another type.

    Raises:
        pyarrow.ArrowInvalid: A value would be changed by it.
    """
    converted: Chunked = pc.cast(column, kind)
    return converted


def plain_layout(column: Chunked) -> Chunked:
    """The same values without dictionaries, and text and bytes in the layouts `string` and `binary`.

    Raises:
        pyarrow.ArrowInvalid: The text or the bytes are too long for that layout.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = cast(column, kind)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return cast(column, pa.string())
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        return cast(column, pa.binary())
    return column
