"""Files with the events of any group, as a person would write them: CSV, parquet, Arrow."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
from pyarrow import feather, ipc, parquet

from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.layout import read_fields
from oomstream.schemas.types import Kind, ValueType
from tests.unit.schemas.definitions import json_form

SUFFIXES = (".csv", ".parquet", ".arrow", ".arrows", ".feather")


def kinds_of(group: FeatureGroup) -> dict[str, ValueType]:
    """Types of a group's fields by name; the event time is a time, whatever its field is."""
    kinds = {each.name: each.type for each in read_fields(group.schema, where="test")}
    if group.event_time is not None:
        kinds[group.event_time.name] = ValueType(Kind.TIMESTAMP_MICROS)
    return kinds


def timed(group: FeatureGroup, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose event time is a datetime instead of an integer in the field's unit."""
    if group.event_time is None:
        return [dict(row) for row in rows]
    name, unit_us = group.event_time.name, group.event_time.unit.microseconds
    start = datetime(1970, 1, 1, tzinfo=UTC)
    return [{**row, name: start + timedelta(microseconds=row[name] * unit_us)} for row in rows]


def cell(kind: ValueType, value: Any) -> str:
    """What a CSV file holds for a value in python form."""
    form = json_form(kind, value)
    if form is None:
        return ""
    return form if isinstance(form, str) else orjson.dumps(form).decode()


def csv_bytes(names: Sequence[str], rows: Sequence[Sequence[str]], delimiter: str = ",") -> bytes:
    """A CSV file in which every cell is quoted."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return text.getvalue().encode()


def write_file(
    path: Path, group: FeatureGroup, rows: Sequence[Mapping[str, Any]], names: Sequence[str], delimiter: str = ","
) -> None:
    """Write rows in python form, with columns in the given order, in the format of the path's suffix."""
    kinds = kinds_of(group)
    if path.suffix == ".csv":
        cells = [[cell(kinds[name], row[name]) for name in names] for row in rows]
        path.write_bytes(csv_bytes(names, cells, delimiter))
        return
    columns = [pa.array([row[name] for row in rows], kinds[name].arrow()) for name in names]
    table = pa.Table.from_arrays(columns, names=list(names))
    match path.suffix:
        case ".parquet":
            parquet.write_table(table, path)
        case ".arrow":
            with ipc.new_file(str(path), table.schema) as file:
                file.write_table(table, max_chunksize=3)
        case ".arrows":
            with ipc.new_stream(str(path), table.schema) as stream:
                stream.write_table(table, max_chunksize=3)
        case _:
            feather.write_feather(table, str(path))
