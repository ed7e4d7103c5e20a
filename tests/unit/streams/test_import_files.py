"""Files of every format are read in bounded batches, with every row once and in order."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import feather, ipc, parquet

from oomstream.schemas.errors import InvalidImport
from oomstream.streams import import_files
from oomstream.streams.csv_rows import RowBatch
from oomstream.streams.import_files import file_sha256, row_batches

ROWS = 2_500


def batches_of(path: Path) -> list[RowBatch]:
    """All batches of a file."""

    async def read() -> list[RowBatch]:
        async with aclosing(row_batches(path)) as batches:
            return [batch async for batch in batches]

    return asyncio.run(read())


def write(path: Path, table: pa.Table) -> Path:
    """Write a table in the format of the path's suffix."""
    match path.suffix:
        case ".csv":
            rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
            path.write_text("\n".join(["a,b", *(f"{a},{b}" for a, b in rows)]), encoding="utf-8")
        case ".parquet" | ".pq":
            parquet.write_table(table, path, row_group_size=900)
        case ".arrow":
            with ipc.new_file(str(path), table.schema) as file:
                file.write_table(table, max_chunksize=700)
        case ".arrows":
            with ipc.new_stream(str(path), table.schema) as stream:
                stream.write_table(table, max_chunksize=700)
        case _:
            feather.write_feather(table, str(path), compression="zstd")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".pq", ".arrow", ".arrows", ".feather", ".PARQUET"])
@pytest.mark.parametrize("rows", [ROWS, 0])
def test_every_row_once_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, rows: int) -> None:
    """Batches follow each other without a gap, are bounded, and say how far the file is read; also of no rows."""
    monkeypatch.setattr(import_files, "MAX_BATCH_ROWS", 400)
    monkeypatch.setattr("oomstream.streams.csv_rows.CHUNK_BYTES", 2_000)
    table = pa.table({"a": pa.array(range(rows), pa.int64()), "b": pa.array([f"t{at}" for at in range(rows)])})
    path = write(tmp_path / f"file{suffix.lower()}", table).rename(tmp_path / f"file{suffix}")
    batches = batches_of(path)
    assert {each.header for each in batches} == {("a", "b")}
    assert [row for each in batches for row in range(each.first, each.first + each.num_rows)] == list(range(rows))
    texts = [value for each in batches for value in each.columns[1].to_pylist()]
    assert texts == [f"t{at}" for at in range(rows)]
    assert all(each.num_rows <= 400 for each in batches)
    if rows:
        assert len(batches) >= 6
        assert path.stat().st_size * 0.9 < sum(each.num_bytes for each in batches) <= path.stat().st_size
        assert (
            batches[-1].place(0)
            == f"{'line' if suffix == '.csv' else 'row'} {batches[-1].first + 1 + (suffix == '.csv')}"
        )
    else:
        assert [each.num_rows for each in batches] == [0]


def test_long_rows_come_a_few_at_a_time(tmp_path: Path) -> None:
    """The bytes of a batch are bounded too, also where a dictionary holds a long text once for many rows."""
    long = "x" * 1_000_000
    plain = pa.table({"a": [long] * 40})
    packed = pa.table({"a": pa.array([long] * 40).dictionary_encode()})
    for name, table in (("plain.arrow", plain), ("packed.arrow", packed), ("plain.parquet", plain)):
        if name.endswith(".parquet"):
            parquet.write_table(table, tmp_path / name, use_dictionary=False, compression="none")
        else:
            write(tmp_path / name, table)
        batches = batches_of(tmp_path / name)
        assert max(each.num_rows for each in batches) <= 4, name
        assert sum(each.num_rows for each in batches) == 40


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    """Offsets of text that lead out of their buffer never reach Python, and bytes cut off are said to be."""
    column = pa.array(["abc"] * 100)
    validity, offsets, data = column.buffers()
    assert offsets is not None
    wrong = bytearray(offsets.to_pybytes())
    wrong[40:44] = (1 << 30).to_bytes(4, "little")
    damaged = pa.Array.from_buffers(pa.string(), 100, [validity, pa.py_buffer(bytes(wrong)), data])
    path = write(tmp_path / "a.arrow", pa.table({"a": damaged}))
    with pytest.raises(InvalidImport, match=r"^a.arrow: column 'a' is damaged at row 1 or one of the next$"):
        batches_of(path)
    whole = write(tmp_path / "b.parquet", pa.table({"a": column})).read_bytes()
    (tmp_path / "c.parquet").write_bytes(whole[:-20])
    with pytest.raises(InvalidImport, match=r"cannot read .*c.parquet: not a readable .parquet file"):
        batches_of(tmp_path / "c.parquet")


def test_sha256(tmp_path: Path) -> None:
    """A file's hash is that of its bytes."""
    raw = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(raw)
    assert asyncio.run(file_sha256(tmp_path / "a")) == hashlib.sha256(raw).hexdigest()
