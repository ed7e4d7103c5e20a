"""The result of a point-in-time join: the label rows as they came, with features beside them."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson
import pyarrow as pa

from oomstream.query.arrow import Chunked, cast
from oomstream.query.labels import Labels
from oomstream.schemas.errors import InvalidRequest

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl


class TrainingSet:
    """Label rows, in the order and the number in which they came, with one column per feature.

    The labels' own columns are given back in the form and with the types that they came with. Feature columns are
    named ``group.feature`` and have the feature's exact type; null says that no value was valid, or that null was the
    value.
    """

    def __init__(self, labels: Labels, features: pa.Table) -> None:
        self._labels = labels
        self._features = features

    def __len__(self) -> int:
        return int(self._features.num_rows)

    @property
    def features(self) -> pa.Table:
        """The feature columns alone, one row per label row."""
        return self._features

    def to_arrow(self) -> pa.Table:
        """Everything as an Arrow table.

        Raises:
            InvalidLabels: The labels came from pandas and a column of theirs has no single Arrow type.
        """
        return self._labels.to_arrow(self._features)

    def to_pandas(self) -> pd.DataFrame:
        """Everything as a pandas DataFrame; pandas labels keep columns, dtypes and index, integers stay exact."""
        return self._labels.to_pandas(self._features)

    def to_polars(self) -> pl.DataFrame:
        """Everything as a polars DataFrame; polars labels keep their columns and types."""
        return self._labels.to_polars(self._features)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write a parquet file; it appears at its path when it is complete.

        Raises:
            InvalidRequest: The file cannot be written; names it.
        """
        from pyarrow import parquet

        table = self.to_arrow()
        with appearing(Path(path)) as file:
            parquet.write_table(table, file)

    def to_feather(self, path: str | os.PathLike[str]) -> None:
        """Write an Arrow file (Feather); it appears at its path when it is complete.

        Raises:
            InvalidRequest: The file cannot be written; names it.
        """
        from pyarrow import feather

        table = self.to_arrow()
        with appearing(Path(path)) as file:
            feather.write_feather(table, file)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV file; null is an empty field, arrays are JSON, bytes are base64.

        Raises:
            InvalidRequest: The file cannot be written; names it.
        """
        from pyarrow import csv

        table = csv_table(self.to_arrow())
        with appearing(Path(path)) as file:
            csv.write_csv(table, file)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a file in the format that its suffix names: .parquet, .arrow, .feather or .csv.

        Raises:
            InvalidRequest: Another suffix, or the file cannot be written; names it.
        """
        writers: dict[str, Callable[[str | os.PathLike[str]], None]] = {
            ".parquet": self.to_parquet,
            ".arrow": self.to_feather,
            ".feather": self.to_feather,
            ".csv": self.to_csv,
        }
        writer = writers.get(Path(path).suffix.lower())
        if writer is None:
            raise InvalidRequest(f"cannot write {path}: its suffix is none of {', '.join(sorted(writers))}")
        writer(path)


@contextmanager
def appearing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes its name when it is complete."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    except OSError as exc:
        raise InvalidRequest(f"cannot write {path}: {exc.strerror or exc}") from exc
    finally:
        with suppress(OSError):
            partial.unlink()


def csv_table(table: pa.Table) -> pa.Table:
    """A table as CSV files hold it: arrays as JSON, bytes as base64, decimals as text."""
    return pa.Table.from_arrays([_csv_column(column) for column in table.columns], names=table.column_names)


def _csv_column(column: Chunked) -> Chunked:
    kind = column.type
    if pa.types.is_decimal(kind):
        return cast(column, pa.string())
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return pa.chunked_array([pa.array([_csv_text(value) for value in column.to_pylist()], pa.string())])
    return column


def _csv_text(value: Any) -> str | None:
    if value is None or isinstance(value, bytes):
        return None if value is None else base64.b64encode(value).decode()
    return orjson.dumps(value, default=_json_form).decode()


def _json_form(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
