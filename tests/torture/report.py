"""What a person sees of a run: a line while it goes on, a table at its end, and where to look if anything is wrong."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.torture.run import Result, State
from tests.torture.schedule import LEFT_OUT, Options, Step
from tests.torture.verifier import Findings

_EVERY_S = 10.0
_SHOWN = 3
_LONGEST = 600


class Progress:
    """Says how far a run is: on a terminal in one line that changes, else now and then.

    Args:
        console: Where.
        options: What was asked for.
    """

    def __init__(self, console: Console, options: Options) -> None:
        self._console = console
        self._options = options
        self._began = self._said = time.monotonic()
        self._status = console.status("starting …") if console.is_terminal else None

    def tell(self, state: State) -> None:
        """Say it."""
        done, now = state.tally, time.monotonic()
        what = "waiting for the rest" if state.step is None else _short(state.step)
        line = (
            f"{done.kills:,} of {self._options.kills:,} kills, {done.freezes.total()} freezes, "
            f"{done.restarts.total()} restarts, {done.cuts.total()} cuts, {state.ingested:,} of {state.produced:,} "
            f"records ingested, {now - self._began:.0f} s"
        )
        if self._status is not None:
            self._status.update(Text(f"{line}: {what}"))
        elif now - self._said >= _EVERY_S or state.step is None:
            self._said = now
            self._console.print(Text(line), soft_wrap=True)

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()


def _short(step: Step) -> str:
    return "; ".join(str(each) for each in (step.deed, *step.victims) if each is not None)


def print_result(console: Console, options: Options, result: Result, folder: Path) -> None:
    """The table, and if anything is wrong the first differences and where to look."""
    tally, found = result.tally, result.findings
    counts = found.counts
    seconds, verifying = result.seconds
    points = _listed(tally.points)
    where = "Kafka, TiDB, TiKV" if options.servers else "embedded broker, SQLite"
    table = Table(title=f"torture, seed {options.seed}: {where}", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("how many", justify="right")
    table.add_column("more")
    if tally.missed:
        points += f" (random where a point was not reached in time: {_listed(tally.missed)})"
    rows = [
        ("kills", tally.kills, f"in {seconds:.0f} s, {options.workers} workers: {points}"),
        ("freezes", tally.freezes.total(), f"past the session timeout, then thawed: {_listed(tally.freezes)}"),
        ("fenced", tally.fenced, "times that a worker that thawed was refused"),
        ("drains", tally.drains, "SIGTERM under load"),
        ("group changed", tally.offsets.total(), f"offsets of the consumer group: {_listed(tally.offsets)}"),
    ]
    if options.servers:
        rows += [
            ("partitions added", tally.partitions, ""),
            ("restarts", tally.restarts.total(), f"of servers, under load: {_listed(tally.restarts)}"),
            ("cuts", tally.cuts.total(), f"servers cut off for a while, under load: {_listed(tally.cuts)}"),
        ]
    rows += [
        (
            "events",
            found.events,
            f"in {found.records:,} records, of {found.entities:,} entities; read in {verifying:.0f} s",
        ),
        ("lost", counts["lost"], "events with no row in history"),
        ("doubled", counts["doubled"], "rows of history that no event accounts for"),
        ("wrong rows", counts["wrong rows"], "rows of history that say something else than their event"),
        ("differing keys", counts["differing keys"], "entities whose online row is not that of the greatest version"),
        ("dead letters", found.letters, f"{found.expected_letters:,} expected; {found.letters_written:,} written"),
        ("ended by themselves", len(tally.unasked), "workers that nobody had asked to end"),
        *((name, count, _MORE[name]) for name, count in counts.items() if name in _MORE and count),
    ]
    wrong = {"ended by themselves", "lost", "doubled", "wrong rows", "differing keys", *_MORE}
    for name, count, more in rows:
        bad = (name in wrong and count) or (name == "dead letters" and count != found.expected_letters)
        table.add_row(name, f"{count:,}", more, style="bold red" if bad else "")
    console.print(table)
    if not options.servers:
        console.print(f"left out: {LEFT_OUT}")
    if not result.right:
        _print_wrong(console, options, found, result.tally.unasked, folder)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"


_MORE = {
    "letters missing": "records that must be dead letters and are not",
    "letters unasked": "dead letters of events, or of nothing",
    "letters wrong": "dead letters with another reason, key, value or headers than the record's",
    "behind": "partitions whose positions are not at the end",
    "misjudged": "records that the verifier takes for something else than the producers meant",
    "log": "acknowledged records that the topic does not hold, or holds otherwise",
}


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text):,} characters)"


def _print_wrong(console: Console, options: Options, found: Findings, unasked: list[str], folder: Path) -> None:
    """The first differences with both sides, and the folder."""
    for name, count in found.counts.items():
        for each in [each for each in found.first if each.what == name][:_SHOWN]:
            where, expected, there = each.where, _shortened(each.expected), _shortened(each.found)
            console.print(Text(f"{name}: {where}\n  expected {expected}\n  found    {there}"), soft_wrap=True)
        if count > _SHOWN:
            console.print(f"  and {count - _SHOWN:,} more {name}")
    for line in unasked:
        console.print(Text(f"ended by itself: {line}"), soft_wrap=True)
    stores = "" if options.servers else "the stores (data), "
    console.print(
        Text(f"WRONG. Kept in {folder}: {stores}what every worker wrote (logs), every record that the broker ")
        + Text("acknowledged and what it was meant to be (produced.db), and the plan (plan.txt)."),
        style="bold red",
        soft_wrap=True,
    )
