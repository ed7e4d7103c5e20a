"""How dead letters are listed on a terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest

from oomstream.agents.cli.dlq import COLUMNS, for_terminal
from oomstream.agents.cli.output import Listing, OutputFormat, print_listing


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("form", [OutputFormat.ASCII_TABLE, OutputFormat.COLUMN])
def test_a_listing_of_dead_letters_fits_a_terminal(form: OutputFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    """On 80 columns what `dlq show` takes and the time stay whole; the message wraps between words."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    time = datetime(2026, 1, 1, 12, 30, 1, 123_000, tzinfo=UTC)
    message = "field price is longer than the largest number that a double can hold"
    row = ["weather", 7, 123456, time, "replayed", "event_time_in_future", message]
    listing = for_terminal(Listing(COLUMNS, [row]))
    out = _Terminal()
    print_listing(listing, form, out)
    lines = out.getvalue().splitlines()
    assert max(len(line.replace("\x1b[1m", "").replace("\x1b[0m", "")) for line in lines) <= 80
    assert any("weather 7 123456" in line and "2026-01-01T12:30:01Z" in line for line in lines)
    assert all(any(word in line for line in lines) for word in [*message.split(), "(replayed)"])
