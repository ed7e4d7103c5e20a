"""The one home of how listings are printed."""

from __future__ import annotations

import base64
import csv
import io
import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal, TextIO

EMPTY = "<NULL>"
"""What a listing that was asked for null marks prints for null (as oomcli does in wide csv)."""


class OutputFormat(StrEnum):
    """Values of `-o`."""

    ASCII_TABLE = "ascii_table"
    COLUMN = "column"
    CSV = "csv"
    JSON = "json"
    YAML = "yaml"


@dataclass(frozen=True, slots=True)
class Listing:
    """Rows to print.

    Attributes:
        columns: Names, in order.
        rows: One value per column: None, bool, int, float, str, bytes, Decimal, datetime, date or a list of those.
        null: Text for null where the format has none of its own.
        documents: What `-o yaml` prints instead of the rows: one mapping per row.
        detail: What `-o json` adds to each row: one mapping per row.
        unbroken: Columns that a narrow terminal does not wrap.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    null: str = ""
    documents: Sequence[dict[str, Any]] | None = None
    detail: Sequence[dict[str, Any]] | None = None
    unbroken: Collection[str] = ()


def print_listing(listing: Listing, form: OutputFormat, out: TextIO | None = None) -> None:
    """Print a listing to standard output (or `out`)."""
    stream = out or sys.stdout
    match form:
        case OutputFormat.ASCII_TABLE:
            _print_table(listing, stream, boxed=True)
        case OutputFormat.COLUMN:
            _print_table(listing, stream, boxed=False)
        case OutputFormat.CSV:
            print_csv(listing.columns, listing.rows, stream, null=listing.null)
        case OutputFormat.JSON:
            json.dump(_objects(listing, listing.detail), stream, indent=2, ensure_ascii=False)
            stream.write("\n")
        case OutputFormat.YAML:
            stream.write(_yaml(listing.documents if listing.documents is not None else _objects(listing)))


def print_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]], out: TextIO, *, null: str = "") -> None:
    """Print rows as CSV with a header; rows may be a generator, so that memory stays bounded."""
    csv_writer(columns, out, null=null)(rows)


def csv_writer(columns: Sequence[str], out: TextIO, *, null: str = "") -> Callable[[Iterable[Sequence[Any]]], None]:
    """Print the header of CSV; gives what prints rows below it, as often as it is called."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    return lambda rows: writer.writerows([null if each is None else text_of(each) for each in row] for row in rows)


def text_of(value: Any) -> str:
    """Text of a value that is not null, as csv and tables print it and `push` and keys take it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return json.dumps([plain_json(each) for each in value], ensure_ascii=False)
    return str(value)


def counted(number: int, one: str, many: str) -> str:
    """A number with the word that fits it: ``1 row``, ``4,040 rows``."""
    return f"{number:,} {one if number == 1 else many}"


@contextmanager
def spinner(text: str) -> Iterator[Callable[[str], None]]:
    """A spinner beside a text, and what changes the text, on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status(text) as shown:
        yield shown.update


def time_text(time: datetime) -> str:
    """RFC 3339 in UTC, with only as many digits of a second as there are."""
    text = time.astimezone(UTC).isoformat().removesuffix("+00:00")
    return (text.rstrip("0") if "." in text else text) + "Z"


def plain_json(value: Any) -> Any:
    """A value in terms of JSON."""
    if isinstance(value, list):
        return [plain_json(each) for each in value]
    if isinstance(value, datetime | date | bytes | Decimal):
        return text_of(value)
    return value


def _objects(listing: Listing, detail: Sequence[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    names = [name.lower() if name.isupper() else name for name in listing.columns]
    objects = [dict(zip(names, map(plain_json, row), strict=True)) for row in listing.rows]
    if detail is not None:
        objects = [{**each, **more} for each, more in zip(objects, detail, strict=True)]
    return objects


def _yaml(documents: Sequence[dict[str, Any]]) -> str:
    from oomstream.schemas.yaml_text import yaml_text

    return yaml_text(documents)


def _print_table(listing: Listing, out: TextIO, *, boxed: bool) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.ASCII2 if boxed else None, pad_edge=boxed, header_style="bold", show_edge=boxed)
    for at, name in enumerate(listing.columns):
        values = [row[at] for row in listing.rows if row[at] is not None]
        numbers = all(isinstance(each, int | float | Decimal) and not isinstance(each, bool) for each in values)
        justify: Literal["left", "right"] = "right" if values and numbers else "left"
        table.add_column(Text(name), justify=justify, overflow="fold", no_wrap=name in listing.unbroken)
    for row in listing.rows:
        table.add_row(*(Text(listing.null if value is None else text_of(value)) for value in row))
    console = Console(file=out, highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        # A file or a pipe has no width: whoever reads it wants each row on a line of its own.
        text = io.StringIO()
        Console(file=text, width=1_000_000, highlight=False).print(table)
        out.write("".join(line.rstrip() + "\n" for line in text.getvalue().splitlines()))
    else:
        console.print(table)
