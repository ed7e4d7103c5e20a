"""How listings are printed."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
import yaml

from oomstream.agents.cli.output import Listing, OutputFormat, print_listing, time_text

VALUES: list[Any] = [
    None,
    True,
    3,
    0.1,
    'a,"b"\nc',
    b"\x00\xff",
    Decimal("1.20"),
    datetime(2013, 7, 1, 12, 0, 0, 500_000, UTC),
    date(2013, 7, 1),
    [1.5, 2.0],
]
COLUMNS = [f"c{at}" for at in range(len(VALUES))]


def printed(listing: Listing, form: OutputFormat) -> str:
    """What a listing prints."""
    out = io.StringIO()
    print_listing(listing, form, out)
    return out.getvalue()


def test_csv_quotes_what_needs_it() -> None:
    """Csv holds every type as text, null as nothing, and quotes commas, quotes and line ends."""
    text = printed(Listing(COLUMNS, [VALUES]), OutputFormat.CSV)
    assert text == (
        "c0,c1,c2,c3,c4,c5,c6,c7,c8,c9\n"
        ',true,3,0.1,"a,""b""\nc",AP8=,1.20,2013-07-01T12:00:00.5Z,2013-07-01,"[1.5, 2.0]"\n'
    )


def test_json_is_a_list_of_objects_with_typed_values() -> None:
    """Json keeps null, booleans, numbers and lists; times, dates, bytes and decimals are text."""
    (row,) = json.loads(printed(Listing(COLUMNS, [VALUES]), OutputFormat.JSON))
    assert [row["c0"], row["c1"], row["c2"], row["c3"], row["c9"]] == [None, True, 3, 0.1, [1.5, 2.0]]
    assert [row["c5"], row["c6"], row["c7"]] == ["AP8=", "1.20", "2013-07-01T12:00:00.5Z"]


def test_yaml_of_one_row_is_the_object_and_of_several_items() -> None:
    """As in oomcli, one row prints as an object, several under `items:` with dashes indented by two."""
    assert yaml.safe_load(printed(Listing(["NAME"], [["a"]]), OutputFormat.YAML)) == {"name": "a"}
    several = printed(Listing(["NAME"], [["a"], ["b"]]), OutputFormat.YAML)
    assert several == "items:\n  - name: a\n  - name: b\n"


def test_ascii_table_in_a_pipe_is_as_wide_as_its_values() -> None:
    """A table that goes to a file is not wrapped or cut at some width, and has no spaces at line ends."""
    text = printed(Listing(["NAME", "N"], [["x" * 300, 7]]), OutputFormat.ASCII_TABLE)
    assert "| " + "x" * 300 + " | 7 |\n" in text
    assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("form", [OutputFormat.ASCII_TABLE, OutputFormat.COLUMN])
def test_tables_print_markup_and_emoji_codes_as_they_are(form: OutputFormat) -> None:
    """A value that looks like rich markup is printed literally."""
    assert "[bold]x[/bold] :smile:" in printed(Listing(["A"], [["[bold]x[/bold] :smile:"]]), form)


@pytest.mark.parametrize("form", list(OutputFormat))
def test_no_rows_print_no_rows(form: OutputFormat) -> None:
    """A listing with no rows prints its header (or an empty list) and does not fail."""
    text = printed(Listing(["NAME", "N"], []), form)
    assert {OutputFormat.JSON: "[]\n", OutputFormat.YAML: "items: []\n", OutputFormat.CSV: "NAME,N\n"}.get(
        form, text
    ) == text
    assert "NAME" in text or form in {OutputFormat.JSON, OutputFormat.YAML}


def test_null_mark_is_printed_for_null_only() -> None:
    """The null mark of wide csv does not replace empty text."""
    assert printed(Listing(["A", "B"], [[None, ""]], null="<NULL>"), OutputFormat.CSV) == "A,B\n<NULL>,\n"


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (datetime(2013, 7, 1, 12, tzinfo=UTC), "2013-07-01T12:00:00Z"),
        (datetime(2013, 7, 1, 12, 0, 0, 120, UTC), "2013-07-01T12:00:00.00012Z"),
        (datetime.fromisoformat("2013-07-01T12:00:00+02:00"), "2013-07-01T10:00:00Z"),
    ],
)
def test_times_are_rfc_3339_in_utc(time: datetime, text: str) -> None:
    """Times print in UTC with as many digits of a second as there are."""
    assert time_text(time) == text
