"""How dead letters are listed on a terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest

from oomstream.agents.cli.dlq import for_terminal
from oomstream.agents.cli.main import main
from oomstream.agents.cli.output import Listing, OutputFormat, print_listing
from oomstream.streams.dead_letters import DeadLetter


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
    columns = ["TOPIC", "PARTITION", "OFFSET", "TIME", "REASON", "MESSAGE"]
    listing = for_terminal(Listing(columns, [["weather", 7, 123456, time, "event_time_in_future", message]]))
    out = _Terminal()
    print_listing(listing, form, out)
    lines = out.getvalue().splitlines()
    assert max(len(line.replace("\x1b[1m", "").replace("\x1b[0m", "")) for line in lines) <= 80
    assert any("weather 7 123456" in line and "2026-01-01T12:30:01Z" in line for line in lines)
    assert all(any(word in line for line in lines) for word in message.split())


def test_the_first_in_order_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Letters come in order of topic, partition and offset however they were read; --limit keeps the first of them."""
    places = [("b", 0, 1), ("a", 1, 5), ("a", 0, 10), ("a", 0, 9)]
    letters = [
        DeadLetter(topic, "id", partition, offset, 0, "decode", "malformed_json", "no JSON", None, b"x", ())
        for topic, partition, offset in places
    ]
    monkeypatch.setattr("oomstream.agents.cli.dlq._letters", lambda _: iter(letters))
    assert main(["dlq", "list", "--limit", "3", "-o", "csv"]) == 0
    printed = capsys.readouterr()
    assert [line.rsplit(",", 3)[0] for line in printed.out.splitlines()[1:]] == ["a,0,9", "a,0,10", "a,1,5"]
    assert printed.err == "(the first 3 in order of topic, partition and offset; for more see --limit)\n"
    assert main(["dlq", "list", "--limit", "4", "-o", "csv"]) == 0
    assert capsys.readouterr().err == ""
