"""Rows of CSV files: the cells that were written, the lines they stand at, and what is no CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomstream.schemas.errors import InvalidImport
from oomstream.streams import csv_rows
from oomstream.streams.csv_rows import CsvRows, RowBatch

CELLS = st.text('ab,";\n\r é\0', max_size=8)


def read(data: bytes, step: int | None = None, delimiter: str = ",") -> list[RowBatch]:
    """All batches of a file that comes in pieces of `step` bytes."""
    rows = CsvRows("f.csv", delimiter)
    step = step or max(len(data), 1)
    batches: list[RowBatch] = []
    for start in range(0, len(data), step):
        batches += rows.feed(data[start : start + step])
    return batches + rows.end()


def rows_of(batches: list[RowBatch]) -> list[tuple[Any, ...]]:
    """The rows of all batches."""
    return [row for each in batches for row in zip(*(column.to_pylist() for column in each.columns), strict=True)]


@settings(deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(1, 100), st.sampled_from([8, 64, 1 << 20]))
def test_what_a_writer_wrote_is_read(data: st.DataObject, width: int, step: int, chunk: int) -> None:
    """Any rows that Python's writer writes are read, however the bytes are cut, and each row's line is the reader's."""
    rows = data.draw(st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1, max_size=12))
    if width == 1:
        rows = [[cell or "x"] for (cell,) in rows]
    text = io.StringIO(newline="")
    if data.draw(st.booleans()):
        writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    else:
        writer = csv.writer(text)
    writer.writerow(f"c{number}" for number in range(width))
    writer.writerows(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_rows, "CHUNK_BYTES", chunk)
        batches = read(text.getvalue().encode(), step)
    assert rows_of(batches) == [tuple(row) for row in rows]
    again = csv.reader(io.StringIO(text.getvalue(), newline=""))
    ends = [again.line_num for _ in again]
    assert [each.place(row) for each in batches for row in range(each.num_rows)] == [
        f"line {at + 1}" for at in ends[:-1]
    ]
    assert [each.first + row for each in batches for row in range(each.num_rows)] == list(range(len(rows)))


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        (b"a,b\n", []),
        (b"\xef\xbb\xbfa,b\r\n\r\n1,2\r\n\r\n", [("1", "2")]),
        (b"\n\na,b\r1,2\r3,4", [("1", "2"), ("3", "4")]),
        (b'"a","b"\n"x""y",""\n', [('x"y', "")]),
        (b"a,b\n NA ,null\n", [(" NA ", "null")]),
    ],
)
def test_forms_of_csv(data: bytes, rows: list[tuple[str, str]]) -> None:
    """A byte-order mark, empty lines, any end of line, no last one, and no row at all are all well."""
    batches = read(data)
    assert rows_of(batches) == rows
    assert {each.header for each in batches} == {("a", "b")}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "f.csv: the file is empty: it needs a header"),
        (b"\n\r\n", "f.csv: the file is empty: it needs a header"),
        (b"a,b\n1,2\nsecret\n", "f.csv: line 3 has 1 cell, but the header has 2"),
        (b'a,b\n"1\n\n",2\n1,2,secret\n', "f.csv: line 5 has 3 cells, but the header has 2"),
        (b'a,b\n1,sec"ret\n', "f.csv: line 2: a quotation mark stands where none may"),
        (b'a,b\n1,"sec"ret\n', "f.csv: line 2: a quotation mark stands where none may"),
        (b'a,b\n"1"\n,2\n', "f.csv: line 2 has 1 cell"),
        (b'a,b\n\n1,"secret\n', "f.csv: line 3: a quotation mark stands where none may, or is never closed"),
        (b"a,b\n1,2\nx,secret\xff\n", "f.csv: line 3, column 'b' is not UTF-8 text"),
        (b"a\xff,b\n1,2\n", "f.csv: line 1 is not UTF-8 text"),
    ],
)
def test_what_is_no_csv(data: bytes, says: str) -> None:
    """What no writer of CSV writes is an error with its physical line, and never with a value."""
    with pytest.raises(InvalidImport) as error:
        read(data)
    assert str(error.value).startswith(says)
    assert "secret" not in str(error.value)
    assert error.value.__cause__ is None


@pytest.mark.parametrize("delimiter", ["", "::", '"', "\n", "é"])
def test_delimiters(delimiter: str) -> None:
    """A delimiter is one ASCII character that is not needed for something else."""
    with pytest.raises(InvalidImport, match="one ASCII character"):
        CsvRows("f.csv", delimiter)


def test_a_row_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quotation mark that is never closed does not take up the whole file: it is refused at the longest row."""
    monkeypatch.setattr(csv_rows, "CHUNK_BYTES", 1 << 10)
    monkeypatch.setattr(csv_rows, "MAX_ROW_BYTES", 1 << 14)
    taken: list[int] = []

    def feed(blocks: list[bytes]) -> None:
        rows = CsvRows("f.csv")
        taken.clear()
        for block in blocks:
            rows.feed(block)
            taken.append(len(block))

    with pytest.raises(InvalidImport, match="line 2: a quotation mark stands where none may, or is never closed"):
        feed([b'a\n"', *[b"x\n" * 500] * 1000])
    assert sum(taken) < 1 << 15
    with pytest.raises(InvalidImport, match="line 2: the row is longer than 16384 bytes"):
        feed([b"a\n", *[b"x" * 1000] * 1000])


def test_many_small_pieces_cost_little() -> None:
    """Rows that come one by one, as from a client that streams them, are not copied over and over."""
    rows = CsvRows("f.csv")
    batches = [batch for block in [b"a,b\n", *[b"1,2\n"] * 600_000] for batch in rows.feed(block)]
    assert sum(each.num_rows for each in [*batches, *rows.end()]) == 600_000
