"""Rows of a CSV file out of its bytes, a bounded number at a time, with the physical line of each.

The dialect is RFC 4180's: cells are separated by one delimiter; a cell that holds a delimiter, a line's end or a
quotation mark stands in quotation marks, in which a mark is doubled. Lines end with LF, CRLF or CR, and empty ones are
left out. A quotation mark anywhere else is an error, and so is a row of another number of cells than the header: a
reader that guesses there would give values to wrong columns.

Arrow parses; what it does not tell (lines, marks out of place) is worked out here, in most chunks by counting.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import csv

from oomstream.schemas.arrow import Chunked
from oomstream.schemas.errors import InvalidImport

CHUNK_BYTES = 1 << 20
"""About how many bytes of rows are taken together."""

MAX_ROW_BYTES = 16 << 20
"""Longest row that is read; a row of a group is accepted up to 1 MiB, and text can take more than its value."""

_BOM = b"\xef\xbb\xbf"
_QUOTE = b'"'


class RowBatch(NamedTuple):
    """Some rows of a file.

    Attributes:
        header: Names of the columns.
        first: Number of the first row, from 0.
        columns: One for each name.
        num_rows: How many rows there are; 0 only where the file has none at all.
        num_bytes: How long they are in the file.
        is_text: Whether the columns hold cells of a CSV file.
        place: Where a row of the batch, by its number from 0, stands in the file, for messages.
    """

    header: tuple[str, ...]
    first: int
    columns: Sequence[Chunked]
    num_rows: int
    num_bytes: int
    is_text: bool
    place: Callable[[int], str]


class CsvRows:
    """Takes bytes of a CSV file as they come, and gives its rows.

    Args:
        where: Names the file, for messages.
        delimiter: What separates cells, one ASCII character.

    Raises:
        InvalidImport: The delimiter cannot be one.
    """

    def __init__(self, where: str, delimiter: str = ",") -> None:
        if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
            raise InvalidImport(
                f"{where}: a delimiter is one ASCII character, and neither a quotation mark nor a line's end"
            )
        self._header: tuple[str, ...] = ()
        self._where = where
        self._delimiter = delimiter
        self._syntax = _Syntax(delimiter)
        self._waiting: list[bytes] = []
        self._size = 0
        self._enough = CHUNK_BYTES
        self._line = 1
        self._row = 0
        self._begun = False

    def feed(self, data: bytes) -> list[RowBatch]:
        """Take more bytes; gives batches of whole rows, once there are enough for one.

        Raises:
            InvalidImport: The bytes are no CSV text; names the line.
        """
        self._waiting.append(data)
        self._size += len(data)
        batches: list[RowBatch] = []
        while self._size >= self._enough:
            waiting = b"".join(self._waiting)
            cut = self._syntax.cut(waiting[: self._enough])
            if cut:
                batches += self._batch(waiting[:cut])
                self._enough = CHUNK_BYTES
            elif self._enough >= MAX_ROW_BYTES:
                self._check_quotes(waiting)
                raise InvalidImport(f"{self._where}: line {self._line}: the row is longer than {MAX_ROW_BYTES} bytes")
            else:
                self._enough *= 2
            self._waiting = [waiting[cut:]]
            self._size -= cut
        return batches

    def end(self) -> list[RowBatch]:
        """Give the last rows; a batch of none if the file has none at all.

        Raises:
            InvalidImport: As `feed`, or there is no header.
        """
        batches = self._batch(b"".join(self._waiting))
        self._waiting.clear()
        if not self._header:
            raise InvalidImport(f"{self._where}: the file is empty: it needs a header")
        if not self._row:
            none: Any = [pa.chunked_array([], pa.string())] * len(self._header)
            return [RowBatch(self._header, 0, none, 0, 0, True, str)]
        return batches

    def _batch(self, chunk: bytes) -> list[RowBatch]:
        if not self._begun:
            self._begun = True
            chunk = chunk.removeprefix(_BOM)
        self._check_quotes(chunk)
        if not self._header:
            chunk = self._take_header(chunk)
        line, row = self._line, self._row
        self._line += _lines(chunk)
        if not chunk.strip(b"\r\n"):
            return []
        columns = self._parse(chunk, len(self._header), line)
        self._row += len(columns[0])
        place = partial(self._syntax.place, chunk, line)
        return [RowBatch(self._header, row, columns, len(columns[0]), len(chunk), True, place)]

    def _take_header(self, chunk: bytes) -> bytes:
        """Read the header; gives what comes after it."""
        for start, end in self._syntax.rows(chunk):
            row = chunk[start:end]
            self._line += _lines(chunk[:start])
            names = self._parse(row, self._syntax.cells(row), self._line)
            self._header = tuple(str(column[0].as_py()) for column in names)
            rest = chunk[start:]
            after = self._syntax.after_row(rest)
            self._line += _lines(rest[:after])
            return rest[after:]
        self._line += _lines(chunk)
        return b""

    def _parse(self, chunk: bytes, cells: int, line: int) -> list[Chunked]:
        """Columns of text of some rows."""
        names = list(map(str, range(cells)))
        try:
            table = csv.read_csv(
                BytesIO(chunk),
                read_options=csv.ReadOptions(use_threads=False, column_names=names, block_size=len(chunk) + 1),
                parse_options=csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
                convert_options=csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
                ),
            )
        except pa.ArrowInvalid:
            raise self._fault(chunk, cells, line) from None  # Arrow's message holds the row
        columns: list[Chunked] = table.columns
        return columns

    def _check_quotes(self, chunk: bytes) -> None:
        at = self._syntax.misplaced_quote(chunk)
        if at is not None:
            raise InvalidImport(
                f"{self._where}: line {self._line + _lines(chunk[:at])}: a quotation mark stands where none may, or is "
                "never closed (a cell that holds one stands in quotation marks, and has it twice)"
            )

    def _fault(self, chunk: bytes, cells: int, line: int) -> InvalidImport:
        """Why rows cannot be parsed: the first of them with another number of cells, or that is not text."""
        for start, end in self._syntax.rows(chunk):
            row = chunk[start:end]
            at_line = line + _lines(chunk[:start])
            found = self._syntax.cells(row)
            if found != cells:
                count = "1 cell" if found == 1 else f"{found} cells"
                return InvalidImport(
                    f"{self._where}: line {at_line} has {count}, but the header has {cells} (the delimiter is "
                    f"{self._delimiter!r})"
                )
            try:
                row.decode()
            except UnicodeDecodeError as exc:
                at = self._syntax.cells(row[: exc.start]) - 1
                column = f", column {self._header[at]!r}" if self._header else ""
                return InvalidImport(f"{self._where}: line {at_line}{column} is not UTF-8 text")
        return InvalidImport(f"{self._where}: line {line} or one of the next cannot be read as CSV text")


class _Syntax:
    """Where rows and cells end, for one delimiter."""

    def __init__(self, delimiter: str) -> None:
        own = re.escape(delimiter.encode())
        quoted = rb'"[^"]*+(?:""[^"]*+)*+"'
        self._quoted = re.compile(rb"(?:(?<=[" + own + rb"\r\n])|\A)" + quoted + rb"(?=[" + own + rb"\r\n]|\Z)")
        self._row = re.compile(rb'(?:[^"\r\n]++|' + quoted + rb")*+")
        self._delimiter = delimiter.encode()

    def cut(self, chunk: bytes) -> int:
        """Where the last whole row ends, behind its LF; 0 if none does.

        A line's end is one of a row if an even number of quotation marks comes before it.
        """
        end = chunk.rfind(b"\n")
        is_odd = chunk.count(_QUOTE, 0, end + 1) & 1
        while end >= 0 and is_odd:
            # Every line's end behind the last mark is in the same cell.
            mark = chunk.rfind(_QUOTE, 0, end)
            before = chunk.rfind(b"\n", 0, mark)
            is_odd ^= chunk.count(_QUOTE, before + 1, end) & 1
            end = before
        return end + 1

    def misplaced_quote(self, chunk: bytes) -> int | None:
        """Where the first quotation mark is that neither opens nor closes a cell, nor is doubled within one."""
        if _QUOTE not in chunk or _QUOTE not in self._quoted.sub(b"", chunk):
            return None
        at = chunk.find(_QUOTE)
        while (found := self._quoted.match(chunk, at)) is not None:
            at = chunk.find(_QUOTE, found.end())
        return at

    def rows(self, chunk: bytes) -> Iterator[tuple[int, int]]:
        """Where each row begins and ends, its line's end not included; empty lines are left out."""
        at = 0
        while at < len(chunk):
            end = self._end(chunk, at)
            if end > at:
                yield at, end
            at = _behind_line_end(chunk, end)

    def place(self, chunk: bytes, line: int, row: int) -> str:
        """The line at which a row of a chunk begins, of which the first line has the number `line`."""
        start, _ = next(islice(self.rows(chunk), row, None))
        return f"line {line + _lines(chunk[:start])}"

    def after_row(self, chunk: bytes) -> int:
        """Where the first row's line ends."""
        return _behind_line_end(chunk, self._end(chunk, 0))

    def cells(self, row: bytes) -> int:
        """Number of cells of one row, or of its beginning."""
        bare = self._quoted.sub(b"", row).partition(_QUOTE)[0]
        return bare.count(self._delimiter) + 1

    def _end(self, chunk: bytes, at: int) -> int:
        found = self._row.match(chunk, at)
        assert found is not None  # it matches nothing, too
        return found.end()


def _behind_line_end(chunk: bytes, at: int) -> int:
    return at + (2 if chunk[at : at + 2] == b"\r\n" else 1)


def _lines(chunk: bytes) -> int:
    """Ends of lines in some bytes."""
    return chunk.count(b"\n") + (chunk.count(b"\r") - chunk.count(b"\r\n") if b"\r" in chunk else 0)
