"""What the demo found, for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one run of the demo.

    Attributes:
        landings: Events of the group plane.
        measurements: Events of the group weather.
        history_rows: Rows in history, both groups.
        dead_letters: Events that were refused.
        planes: Entities with an online value, of the group plane.
        airports: Entities with an online value, of the group weather.
        stream_s: Seconds from the first event's production until the last one was in history.
        training_rows: Rows of the training set.
        training_s: Seconds that it took.
        late: Rows whose label is true.
        leaked: Rows into which a join on newest values would have leaked the future; see `leaked_rows`.
    """

    landings: int
    measurements: int
    history_rows: int
    dead_letters: int
    planes: int
    airports: int
    stream_s: float
    training_rows: int
    training_s: float
    late: int
    leaked: int

    @property
    def events(self) -> int:
        """Events of both groups."""
        return self.landings + self.measurements


def leaked_rows(
    labels: pa.Table, newest_plane: Mapping[str, datetime | None], newest_weather: Mapping[str, datetime | None]
) -> int:
    """How many label rows a join on the newest values would have given a value from after the label's time.

    Such a join gives every row what the online store holds now. A row counts when the newest landing of its plane, or
    the newest measurement at its airport, happened after the row's scheduled departure: then the joined value is not
    the one that was known at that time, but one from the future.

    Args:
        labels: Label rows with `event_timestamp`, `tailnum` and `origin`.
        newest_plane: Event time of the newest landing by tail number.
        newest_weather: Event time of the newest measurement by airport.
    """
    departure = labels["event_timestamp"].combine_chunks()
    future: Any = pa.array([False] * labels.num_rows)
    for column, newest in (("tailnum", newest_plane), ("origin", newest_weather)):
        keys: list[Any] = labels[column].to_pylist()
        times = pa.array([newest.get(key) for key in keys], departure.type)
        later: Any = pc.greater(times, departure)
        future = pc.or_(future, later.fill_null(False))
    return int(future.true_count)


def print_summary(console: Console, figures: Figures) -> None:
    """Print the figures as a table."""
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(justify="left", no_wrap=True)
    table.add_column(justify="right", style="bold", no_wrap=True)
    table.add_column(justify="left", style="dim")
    entities = figures.planes + figures.airports
    rate = figures.events / figures.stream_s
    leaks = "rows that a join on today's newest values\nwould fill from after their departure"
    rows = [
        ("events in", f"{figures.events:,}", f"{figures.landings:,} landings, {figures.measurements:,} of weather"),
        ("events/s", f"{rate:,.0f}", f"produced and ingested in {figures.stream_s:.1f} s"),
        ("history rows", f"{figures.history_rows:,}", "each event once"),
        ("dead letters", f"{figures.dead_letters:,}", "events that were refused"),
        ("online entities", f"{entities:,}", f"{figures.planes:,} planes, {figures.airports} airports"),
        ("training rows", f"{figures.training_rows:,}", f"flights at their departure, in {figures.training_s:.1f} s"),
        ("  late", f"{figures.late:,}", "the label: over 15 min late, or never arrived"),
        ("  leaks avoided", f"{figures.leaked:,}", leaks),
    ]
    for name, figure, note in rows:
        table.add_row(name, figure, note)
    console.print(table)


def print_values(console: Console, title: str, values: Mapping[str, object]) -> None:
    """Print one online read on a few lines."""
    text = Text(f"{title}  ", style="bold")
    text.append("  ".join(f"{name.partition('.')[2]} {value}" for name, value in values.items()), style="not bold")
    console.print(text)


def next_commands(folder: Path, command: str, setup: str, *, with_worker: bool) -> list[str]:
    """What to type after the demo; a test runs these lines as they are printed.

    Args:
        folder: The demo's.
        command: How a person calls the command.
        setup: Makes the commands find what the demo left.
        with_worker: Whether what is pushed goes to a broker, from which a worker must take it.
    """
    push = f"{command} push -g weather -k JFK --feature temp=70 --feature wind_speed=12"
    return [
        setup,
        f"{command} get online -k N14228 --feature plane.arr_delay,plane.dest",
        f"{command} status",
        f"{command} join --feature plane.arr_delay,weather.wind_gust \\",
        f"    --input-file {folder / 'labels.parquet'} -O {folder / 'train.csv'}",
        *([f"{command} worker 2> {folder / 'worker.log'} &"] if with_worker else []),
        f"{push} --wait" if with_worker else push,
        f"{command} get online -k JFK,EWR --feature weather.temp,weather.wind_speed",
        *(["kill %1  # the worker"] if with_worker else []),
    ]
