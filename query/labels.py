"""Label tables: the rows that a training set is made for, in whatever form they come.

A label table is never rebuilt: the form it came in keeps its own columns, types and (for pandas) index, and only the
key columns and the label time are read out of it as Arrow.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pyarrow as pa

from oomstream.query.arrow import Chunked, cast, chunked, pc
from oomstream.query.columns import to_pandas
from oomstream.schemas.errors import InvalidLabels, InvalidRequest

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    from pyarrow.csv import InvalidRow

Column: TypeAlias = "Chunked | list[Any]"
"""One column of labels: Arrow, or a list where its Python objects are of no single Arrow type."""


class Labels(ABC):
    """A label table in one form."""

    @property
    @abstractmethod
    def names(self) -> Sequence[Any]:
        """Column names in order; pandas allows some that are not text, and repeated ones."""

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """Number of rows."""

    @abstractmethod
    def column(self, name: str) -> Column:
        """One column, whose name is known to be there once."""

    @abstractmethod
    def to_arrow(self, features: pa.Table) -> pa.Table:
        """The labels with feature columns beside them."""

    def to_pandas(self, features: pa.Table) -> pd.DataFrame:
        """The labels with feature columns beside them."""
        return to_pandas(self.to_arrow(features))

    def to_polars(self, features: pa.Table) -> pl.DataFrame:
        """The labels with feature columns beside them."""
        import polars as pl

        return pl.DataFrame(self.to_arrow(features))


class ArrowLabels(Labels):
    """Labels in an Arrow table."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    @property
    def names(self) -> Sequence[Any]:
        """Column names in order."""
        names: list[str] = self._table.column_names
        return names

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return int(self._table.num_rows)

    def column(self, name: str) -> Column:
        """One column."""
        return self._table.column(name)

    def to_arrow(self, features: pa.Table) -> pa.Table:
        """The same columns, then the features."""
        return _beside(self._table, features)


class PandasLabels(Labels):
    """Labels in a pandas DataFrame, whose columns, dtypes and index are kept as they are."""

    def __init__(self, frame: pd.DataFrame) -> None:
        if frame.columns.nlevels > 1:
            raise InvalidLabels("labels: a DataFrame with several levels of column names cannot be joined")
        self._frame = frame

    @property
    def names(self) -> Sequence[Any]:
        """Column names in order."""
        return list(self._frame.columns)

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self._frame)

    def column(self, name: str) -> Column:
        """One column; NaN and NaT are nulls."""
        import pandas as pd

        series = self._frame[name]
        if series.dtype == object and pd.api.types.infer_dtype(series, skipna=True) not in _ALIKE:
            # Arrow would read a mix of zones, of naive times and dates, or of text and bytes in its own way.
            return _python_values(series)
        try:
            array = pa.array(series, from_pandas=True)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            return _python_values(series)
        return chunked(array)

    def to_arrow(self, features: pa.Table) -> pa.Table:
        """The columns as Arrow, without the index, then the features."""
        try:
            own = pa.Table.from_pandas(self._frame, preserve_index=False)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as exc:
            reason = " ".join(str(part) for part in exc.args[1:]) or type(exc).__name__
            raise InvalidLabels(f"labels: a pandas column has no single Arrow type ({reason})") from exc
        return _beside(own.replace_schema_metadata(None), features)

    def to_pandas(self, features: pa.Table) -> pd.DataFrame:
        """The same columns and index, then the features."""
        import pandas as pd

        added = to_pandas(features)
        added.index = self._frame.index
        return pd.concat([self._frame, added], axis=1)


class PolarsLabels(Labels):
    """Labels in a polars DataFrame, whose columns and types are kept as they are."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame

    @property
    def names(self) -> Sequence[Any]:
        """Column names in order."""
        return self._frame.columns

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self._frame.height

    def column(self, name: str) -> Column:
        """One column."""
        series = self._frame.get_column(name)
        if str(series.dtype) == "Object":
            return series.to_list()
        try:
            return chunked(series.to_arrow())
        except pa.ArrowException:  # Arrow has no integers of 128 bits
            return series.to_list()

    def to_arrow(self, features: pa.Table) -> pa.Table:
        """The columns as Arrow, then the features."""
        try:
            own = self._frame.to_arrow()
        except pa.ArrowException as exc:
            raise InvalidLabels(f"labels: a polars column has no Arrow type ({type(exc).__name__})") from exc
        return _beside(own, features)

    def to_polars(self, features: pa.Table) -> pl.DataFrame:
        """The same columns, then the features."""
        import polars as pl

        return self._frame.hstack(pl.DataFrame(features).get_columns())


def read_labels(labels: Any, *, text_columns: Mapping[str, pa.DataType] | None = None) -> Labels:
    """Take in a label table of any form that is understood.

    Args:
        labels: pandas or polars DataFrame (or LazyFrame), Arrow Table, RecordBatch or reader, anything else with an
            Arrow stream, a list of dicts, a dict of lists, or the path of a .csv, .parquet, .arrow or .feather file.
        text_columns: Types of columns that a CSV file must not have guessed, such as keys, by name.

    Raises:
        InvalidLabels: The form is not one of these, or the file cannot be read; names what it is.
    """
    if isinstance(labels, str | os.PathLike):
        return ArrowLabels(_read_file(Path(labels), text_columns or {}))
    library = frame_library(labels)
    if library == "pandas":
        return PandasLabels(labels)
    if library == "polars":
        return PolarsLabels(labels.lazy().collect())
    try:
        if isinstance(labels, pa.Table):
            return ArrowLabels(labels)
        if isinstance(labels, pa.RecordBatch):
            return ArrowLabels(pa.Table.from_batches([labels]))
        if isinstance(labels, Mapping):
            return ArrowLabels(pa.table({name: list(values) for name, values in labels.items()}))
        if isinstance(labels, list) and all(isinstance(row, Mapping) for row in labels):
            return ArrowLabels(_table_of_rows(labels))
        if hasattr(labels, "__arrow_c_stream__"):
            return ArrowLabels(pa.table(labels))
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as exc:
        raise InvalidLabels(f"labels: the columns do not make a table ({type(exc).__name__})") from exc
    raise InvalidLabels(
        f"labels: {type(labels).__name__} is no type of table that can be joined; pass a pandas or polars DataFrame, "
        "an Arrow table, a list of dicts, or the path of a .csv, .parquet, .arrow or .feather file"
    )


def key_lists(table: Any) -> dict[str, list[Any]]:
    """The columns of a frame or an Arrow table as lists of Python values, for a request of online values.

    Integers that pandas turned into floats because of a null beside them are integers again.

    Raises:
        InvalidRequest: It is not such a table, or has a column twice.
    """
    try:
        rows = read_labels(table)
        if len(set(rows.names)) < len(rows.names):
            raise InvalidLabels("labels: there is more than one column of a name")
        return {str(name): _key_list(rows.column(name)) for name in rows.names}
    except InvalidLabels as exc:
        raise InvalidRequest(str(exc).replace("labels:", "entity_rows:", 1)) from exc


def _key_list(column: Column) -> list[Any]:
    if isinstance(column, list):
        return column
    if pa.types.is_timestamp(column.type):
        # Nanoseconds would come as a class of pandas, or not at all.
        whole: Chunked = pc.cast(column, pa.timestamp("us", column.type.tz), safe=False)
        return whole.to_pylist()
    if not pa.types.is_floating(column.type):
        return column.to_pylist()
    values = (None if value is None or value != value else value for value in column.to_pylist())
    return [int(value) if value is not None and value.is_integer() else value for value in values]


def frame_library(table: Any) -> str | None:
    """``pandas`` or ``polars`` if this is a DataFrame (or LazyFrame) of theirs or of a subclass, else None.

    It goes by names: a library is not loaded for this, and one that another thread is still importing is in
    `sys.modules` before it has any classes.
    """
    for base in type(table).__mro__:
        library = base.__module__.partition(".")[0]
        if base.__name__ in _FRAMES.get(library, ()):
            return library
    return None


def _table_of_rows(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def _read_file(path: Path, text_columns: Mapping[str, pa.DataType]) -> pa.Table:
    suffix = path.suffix.lower()
    readers: dict[str, Callable[[], pa.Table]] = {
        ".csv": lambda: _read_csv(path, text_columns),
        ".parquet": lambda: _read_parquet(path),
        ".arrow": lambda: _read_ipc(path),
        ".feather": lambda: _read_ipc(path),
    }
    if suffix not in readers:
        raise InvalidLabels(f"labels: {path} is none of {', '.join(sorted(readers))}")
    try:
        return readers[suffix]()
    except (OSError, pa.ArrowException) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else f"not a readable {suffix} file"
        if isinstance(exc, pa.ArrowException) and suffix == ".csv":
            reason += f" ({_csv_fault(path, exc)})"
        raise InvalidLabels(f"labels: cannot read {path}: {reason}") from exc


def _csv_fault(path: Path, exc: pa.ArrowException) -> str:
    """What is wrong with a CSV file, without its values, which Arrow's own message would show."""
    from pyarrow import csv

    if not path.read_bytes().strip():
        return "it is empty"
    found: list[tuple[int | None, int, int]] = []

    def note(row: InvalidRow) -> Literal["error"]:
        found.append((row.number, row.expected_columns, row.actual_columns))
        return "error"

    # Only a reader of one thread knows the numbers of rows.
    with contextlib.suppress(pa.ArrowException), path.open("rb") as file:
        csv.read_csv(
            file,
            read_options=csv.ReadOptions(use_threads=False),
            parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
        )
    if not found:
        return "it is not UTF-8 text" if "UTF8" in str(exc) else type(exc).__name__
    number, expected, actual = found[0]
    where = "a row" if number is None else f"row {number} (from 1, the header)"
    return f"{where} has {actual} columns where the header has {expected}"


def _read_parquet(path: Path) -> pa.Table:
    from pyarrow import parquet

    with path.open("rb") as file:
        return parquet.read_table(file)


def _read_ipc(path: Path) -> pa.Table:
    from pyarrow import feather

    with path.open("rb") as file:
        return feather.read_table(file)


def _read_csv(path: Path, text_columns: Mapping[str, pa.DataType]) -> pa.Table:
    """Read a CSV file, guessing a type only where that loses nothing: ``007`` stays text."""
    from pyarrow import csv

    with path.open("rb") as file:
        header = csv.open_csv(file).schema.names
    if not header:
        raise InvalidLabels(f"labels: {path} has no columns")
    options = csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False)
    with path.open("rb") as file:
        texts = csv.read_csv(file, convert_options=options, parse_options=csv.ParseOptions(newlines_in_values=True))
    columns = [_csv_column(texts.column(at), text_columns.get(name)) for at, name in enumerate(texts.column_names)]
    return pa.Table.from_arrays(columns, names=texts.column_names)


def _csv_column(texts: Chunked, wanted: pa.DataType | None) -> Chunked:
    empty = pc.equal(texts, "")
    filled = pc.if_else(empty, pa.scalar(None, pa.string()), texts)
    if wanted is not None:
        try:
            return cast(filled, wanted)
        except pa.ArrowInvalid:
            return texts
    if filled.null_count == len(filled):
        return texts
    for guess in (_as_integers, _as_booleans, _as_numbers):
        column = guess(filled)
        if column is not None:
            return column
    return texts


def _as_integers(texts: Chunked) -> Chunked | None:
    try:
        numbers = cast(texts, pa.int64())
    except pa.ArrowInvalid:
        return None
    same = pc.all(pc.equal(cast(numbers, pa.string()), texts)).as_py()
    return numbers if same in (True, None) else None


def _as_booleans(texts: Chunked) -> Chunked | None:
    known = pc.is_in(texts, value_set=pa.array(["true", "false", "True", "False", "TRUE", "FALSE"]), skip_nulls=False)
    if not pc.all(pc.or_(known, pc.is_null(texts))).as_py():
        return None
    return cast(texts, pa.bool_())


def _as_numbers(texts: Chunked) -> Chunked | None:
    # A number with zeros in front is a code, and one of 17 digits an id: neither is a quantity.
    if pc.any(pc.match_substring_regex(texts, r"^[+-]?(0\d|\d{17})")).as_py():
        return None
    try:
        return cast(texts, pa.float64())
    except pa.ArrowInvalid:
        return None


_FRAMES = {"pandas": ("DataFrame",), "polars": ("DataFrame", "LazyFrame")}

_ALIKE = frozenset({"string", "bytes", "integer", "floating", "mixed-integer-float", "boolean", "empty"})
"""What pandas finds in an object column that Arrow takes value by value."""


def _python_values(series: pd.Series[Any]) -> list[Any]:
    missing = series.isna().tolist()
    return [None if gone else value for gone, value in zip(missing, series.tolist(), strict=True)]


def _beside(own: pa.Table, features: pa.Table) -> pa.Table:
    for name in features.column_names:
        own = own.append_column(features.schema.field(name), features.column(name))
    return own
