"""Label tables in every form: what is read out of them, and that the rest stays as it was."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest

from oomstream.query.label_columns import csv_key_type, key_column, label_times, once, time_column
from oomstream.query.labels import read_labels
from oomstream.query.training_set import TrainingSet
from oomstream.schemas.errors import InvalidLabels, InvalidRequest
from oomstream.schemas.groups import KeyField
from oomstream.schemas.types import Kind, ValueType

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
NOON_US = 1_714_564_800_000_000


def key(kind: Kind) -> KeyField:
    """A key field named k."""
    return KeyField("k", ValueType(kind))


def times_of(labels: Any) -> list[int]:
    """Label times of a table, in microseconds."""
    table = read_labels(labels)
    name = time_column(table, None)
    times: list[Any] = label_times(once(table, name), name).to_pylist()
    return times


def keys_of(labels: Any, kind: Kind) -> list[Any]:
    """Plain keys of a table's column k."""
    plain: list[Any] = key_column(once(read_labels(labels), "k"), key(kind), "k").to_pylist()
    return plain


def test_time_zones() -> None:
    """Case 40: aware times of any zone, naive times (= UTC), dates, ISO text with mixed offsets: one moment."""
    zone = timezone(timedelta(hours=5, minutes=30))
    local = NOON.astimezone(zone)
    mixed = [NOON, local, NOON.replace(tzinfo=None)]
    text = ["2024-05-01T12:00:00Z", "2024-05-01 17:30:00+05:30", "2024-05-01T12:00:00", "2024-05-01T12:00:00.000000"]
    assert times_of(pd.DataFrame({"event_timestamp": mixed}, dtype=object)) == [NOON_US] * 3
    assert times_of(pd.DataFrame({"event_timestamp": pd.to_datetime(["2024-05-01 12:00"])})) == [NOON_US]
    aware = pd.DataFrame({"event_timestamp": pd.to_datetime([NOON]).tz_convert("Asia/Kolkata")})
    assert times_of(aware) == [NOON_US]
    assert times_of({"event_timestamp": text}) == [NOON_US] * 4
    assert times_of(pd.DataFrame({"event_timestamp": text})) == [NOON_US] * 4
    assert times_of(pl.DataFrame({"event_timestamp": [local]})) == [NOON_US]
    midnight = NOON_US - 43_200_000_000
    assert times_of({"event_timestamp": [date(2024, 5, 1)]}) == [midnight]
    assert times_of(pd.DataFrame({"event_timestamp": [date(2024, 5, 1)]})) == [midnight]
    assert times_of({"event_timestamp": ["2024-05-01"]}) == [midnight]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_units_of_timestamps(unit: Any) -> None:
    """Timestamps of every unit are read exactly; nanoseconds are cut to the microsecond, before 1970 as well."""
    per_second = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[unit]
    column = pa.array([-per_second, 0, per_second], pa.timestamp(unit))
    assert times_of(pa.table({"event_timestamp": column})) == [-1_000_000, 0, 1_000_000]
    if unit == "ns":
        column = pa.array([-1, -1000, -1001, 999, 1000], pa.timestamp("ns"))
        assert times_of(pa.table({"event_timestamp": column})) == [-1, -1, -2, 0, 1]


def test_unix_milli() -> None:
    """`unix_milli` holds integer milliseconds, as oomstore has it; floats of whole milliseconds are as good."""
    assert times_of({"unix_milli": [NOON_US // 1000, -1]}) == [NOON_US, -1000]
    assert times_of(pd.DataFrame({"unix_milli": [float(NOON_US // 1000)]})) == [NOON_US]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"event_timestamp": [NOON, None]}, r"'event_timestamp', row 1 \(from 0\): the label time is null"),
        (pd.DataFrame({"event_timestamp": pd.to_datetime(pd.Series(["2024-05-01", None]))}), r"row 1 .*null"),
        (pd.DataFrame({"event_timestamp": [NOON, pd.NaT]}, dtype=object), r"row 1 .*null"),
        ({"event_timestamp": ["2024-05-01", None]}, r"row 1 .*null"),
        ({"event_timestamp": ["2024-05-01", "tomorrow"]}, r"row 1 .*ISO 8601"),
        ({"event_timestamp": [1714564800000]}, "whose unit nothing tells"),
        ({"unix_milli": [1.5]}, "not whole milliseconds"),
        ({"unix_milli": [0, None]}, r"'unix_milli', row 1 .*null"),
        ({"unix_milli": [1 << 62]}, r"row 0 .*years 1 to 9999"),
        (pa.table({"event_timestamp": pa.array([1 << 50], pa.timestamp("s"))}), r"row 0 .*years 1 to 9999"),
        ({"event_timestamp": [True]}, "of type bool, which is not a time"),
        ({"event_timestamp": [NOON], "unix_milli": [1]}, "both columns"),
        ({"x": [1]}, "no column 'event_timestamp' or 'unix_milli'"),
        (pd.DataFrame([[NOON, NOON]], columns=["event_timestamp"] * 2), "more than one column 'event_timestamp'"),
    ],
)
def test_wrong_label_times_are_named(labels: Any, message: str) -> None:
    """Case 46: a label time that is null, not a time or not there is an error that names column and row."""
    with pytest.raises(InvalidLabels, match=message):
        times_of(labels)


def test_timestamp_column_by_name() -> None:
    """`timestamp_column` names another column; one that is not there is named in the error."""
    table = read_labels({"when": [NOON], "event_timestamp": [NOON]})
    assert time_column(table, "when") == "when"
    with pytest.raises(InvalidLabels, match="'then'"):
        time_column(table, "then")


def test_keys_from_every_form() -> None:
    """Keys are read exactly from every type that can hold them; nulls stay nulls."""
    assert keys_of({"k": ["a", None, "é\0 "]}, Kind.STRING) == ["a", None, "é\0 "]
    assert keys_of(pd.DataFrame({"k": ["a", None, float("nan")]}, dtype=object), Kind.STRING) == ["a", None, None]
    assert keys_of(pd.DataFrame({"k": pd.Categorical(["a", "b", "a"])}), Kind.STRING) == ["a", "b", "a"]
    assert keys_of(pl.DataFrame({"k": pl.Series(["a", None], dtype=pl.Categorical)}), Kind.STRING) == ["a", None]
    assert keys_of(pa.table({"k": pa.array(["a"], pa.large_string())}), Kind.STRING) == ["a"]
    assert keys_of(pa.table({"k": pa.array(["a"], pa.string_view())}), Kind.STRING) == ["a"]
    assert keys_of({"k": [b"\0", None]}, Kind.BYTES) == [b"\0", None]
    assert keys_of(pa.table({"k": pa.array([b"ab"], pa.binary(2))}), Kind.BYTES) == [b"ab"]
    assert keys_of(pa.table({"k": pa.array([200], pa.uint8())}), Kind.INT) == [200]
    assert keys_of(pd.DataFrame({"k": [1, None]}), Kind.LONG) == [1, None]
    assert keys_of(pd.DataFrame({"k": pd.array([(1 << 53) + 1, None], "Int64")}), Kind.LONG) == [(1 << 53) + 1, None]
    assert keys_of(pd.DataFrame({"k": [1, None]}, dtype=object), Kind.LONG) == [1, None]
    day = date(1970, 1, 3)
    assert keys_of({"k": [day, None]}, Kind.DATE) == [2, None]
    assert keys_of(pd.DataFrame({"k": [day, None]}), Kind.DATE) == [2, None]
    assert keys_of(pd.DataFrame({"k": pd.to_datetime(pd.Series(["1970-01-03", None]))}), Kind.DATE) == [2, None]
    for kind in (Kind.STRING, Kind.BYTES, Kind.LONG, Kind.DATE):
        assert keys_of({"k": [None, None]}, kind) == [None, None]


@pytest.mark.parametrize(
    ("column", "kind", "row"),
    [
        (["a", 5], Kind.STRING, 1),
        ([None, 5], Kind.STRING, 1),
        (["1"], Kind.LONG, 0),
        ([1.0, 1.5], Kind.LONG, 1),
        ([2.0**60], Kind.LONG, 0),
        ([True], Kind.LONG, 0),
        ([0, 1 << 31], Kind.INT, 1),
        ([b"a"], Kind.STRING, 0),
        (["a"], Kind.BYTES, 0),
        (["1970-01-03"], Kind.DATE, 0),
        ([datetime(1970, 1, 3), datetime(1970, 1, 3, 1)], Kind.DATE, 1),
    ],
)
@pytest.mark.parametrize("form", ["pandas", "polars", "arrow"])
def test_wrong_keys_are_named(column: list[Any], kind: Kind, row: int, form: str) -> None:
    """A key that is not of the key's type is an error that names column and row, never a conversion."""
    labels: Any = pd.DataFrame({"k": pd.Series(column, dtype=object)})
    if form == "polars":
        labels = pl.DataFrame({"k": pl.Series(column, dtype=pl.Object if column == ["a", 5] else None, strict=False)})
    elif form == "arrow" and column != ["a", 5]:
        labels = pa.table({"k": column})
    with pytest.raises(InvalidLabels, match=rf"column 'k', row {row} \(from 0\)"):
        keys_of(labels, kind)


FEATURES = pa.table(
    {
        "g.long": pa.array([(1 << 53) + 1, None], pa.int64()),
        "g.flag": pa.array([True, None]),
        "g.when": pa.array([NOON, None], pa.timestamp("us", "UTC")),
        "g.day": pa.array([date(2024, 5, 1), None]),
        "g.number": pa.array([0.5, None]),
        "g.exact": pa.array([Decimal("1.50"), None], pa.decimal128(5, 2)),
        "g.bytes": pa.array([b"\0\xff", None]),
        "g.text": pa.array(["é", None]),
        "g.list": pa.array([[1.0, 2.0], None], pa.list_(pa.float64())),
    }
)


def test_pandas_columns_pass_through_unchanged() -> None:
    """Case 41: pandas labels keep every column, dtype and the index; features beside them are exact."""
    marker = object()
    frame = pd.DataFrame(
        {
            "object": pd.Series([marker, {"a": 1}], dtype=object),
            "category": pd.Categorical(["x", "y"], ordered=True),
            "delta": pd.to_timedelta([1, 2], unit="s"),
            "period": pd.period_range("2024-01", periods=2, freq="M"),
            "small": pd.Series([1, 2], dtype="int8"),
            "float": pd.Series([0.1, float("nan")], dtype="float32"),
            "when": pd.to_datetime([NOON, NOON]).tz_convert("America/New_York"),
            7: [1, 2],
        }
    )
    frame.index = pd.Index(["b", "b"], name="place")
    made = TrainingSet(read_labels(frame), FEATURES)
    out = made.to_pandas()
    pd.testing.assert_frame_equal(out[list(frame.columns)], frame)
    assert out["object"].iloc[0] is marker
    assert [str(out[name].dtype) for name in ("g.long", "g.flag", "g.when")] == [
        "Int64",
        "boolean",
        "datetime64[us, UTC]",
    ]
    assert out["g.long"].iloc[0] == (1 << 53) + 1
    assert out["g.exact"].iloc[0] == Decimal("1.50")
    assert out["g.day"].iloc[0] == date(2024, 5, 1)
    with pytest.raises(InvalidLabels, match="no single Arrow type"):
        made.to_arrow()


def test_arrow_columns_pass_through_unchanged() -> None:
    """Case 41: Arrow labels keep every column with its type."""
    table = pa.table(
        {
            "struct": pa.array([{"a": [1]}, None]),
            "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int8())),
            "dictionary": pa.array(["x", None]).dictionary_encode(),
            "decimal": pa.array([Decimal("1.1"), None], pa.decimal256(50, 1)),
            "time": pa.array([1, 2], pa.time64("ns")),
            "half": pa.array([1.5, None], pa.float16()),
        }
    )
    assert TrainingSet(read_labels(table), FEATURES).to_arrow().select(table.column_names).equals(table)
    batch = table.combine_chunks().to_batches()[0]
    assert TrainingSet(read_labels(batch), FEATURES).to_arrow().select(table.column_names).equals(table)


def test_polars_columns_pass_through_unchanged() -> None:
    """Case 41: polars labels keep every column with its type, from lazy frames as well."""
    frame = pl.DataFrame(
        {
            "enum": pl.Series(["a", None], dtype=pl.Enum(["a", "b"])),
            "duration": [timedelta(seconds=1), None],
            "list": [[1, 2], None],
            "small": pl.Series([1, None], dtype=pl.UInt8),
        }
    )
    for labels in (frame, frame.lazy()):
        out = TrainingSet(read_labels(labels), FEATURES).to_polars()
        assert out.select(frame.columns).equals(frame)
        assert out.select(frame.columns).schema == frame.schema
        assert out["g.long"].to_list() == [(1 << 53) + 1, None]


@pytest.mark.parametrize("form", ["pandas", "polars", "arrow", "rows"])
def test_every_form_gives_every_form(form: str) -> None:
    """Whatever form the labels had, the training set is to be had as Arrow, pandas and polars."""
    rows: dict[str, list[Any]] = {"k": ["a", "b"], "y": [1, 2]}
    labels: dict[str, Any] = {
        "pandas": pd.DataFrame(rows),
        "polars": pl.DataFrame(rows),
        "arrow": pa.table(rows),
        "rows": [{"k": "a", "y": 1}, {"k": "b", "y": 2}],
    }
    made = TrainingSet(read_labels(labels[form]), FEATURES)
    names = ["k", "y", *FEATURES.column_names]
    assert made.to_arrow().column_names == names
    assert list(made.to_pandas().columns) == names
    assert made.to_polars().columns == names
    assert made.to_polars()["y"].to_list() == made.to_pandas()["y"].tolist() == [1, 2]
    assert len(made) == 2


def test_files_are_read_and_written(tmp_path: Path) -> None:
    """Labels come from .csv, .parquet, .arrow and .feather files, and training sets are written to them."""
    made = TrainingSet(read_labels({"k": ["a", "b"]}), FEATURES)
    for suffix in (".parquet", ".arrow", ".feather"):
        made.write(tmp_path / f"out{suffix}")
        again = read_labels(tmp_path / f"out{suffix}").to_arrow(pa.table({}))
        assert again.equals(made.to_arrow())
    made.write(str(tmp_path / "out.csv"))
    assert (tmp_path / "out.csv").read_text().splitlines()[1:] == [
        '"a",9007199254740993,true,2024-05-01 12:00:00.000000Z,2024-05-01,0.5,"1.50","AP8=","é","[1.0,2.0]"',
        '"b",,,,,,,,,',
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.arrow", "out.csv", "out.feather", "out.parquet"]
    with pytest.raises(InvalidRequest, match=r"out\.xlsx: its suffix is none of"):
        made.write(tmp_path / "out.xlsx")
    with pytest.raises(InvalidRequest, match=r"nowhere.out\.csv: No such file"):
        made.write(tmp_path / "nowhere" / "out.csv")


def test_csv_guesses_lose_nothing(tmp_path: Path) -> None:
    """A CSV column is guessed to be a number only where its text is that number; keys have their own types."""
    path = tmp_path / "labels.csv"
    path.write_text(
        "k,event_timestamp,zip,id,count,share,flag,text,empty\n"
        "007,2024-05-01T14:00:00+02:00,01234,12345678901234567890,1,0.5,true,a,\n"
        ",2024-05-01 12:00:00,99999,12345678901234567891,,,,,\n"
    )
    types = {"k": csv_key_type(key(Kind.STRING))}
    table = read_labels(path, text_columns=types).to_arrow(pa.table({}))
    assert table.to_pydict() == {
        "k": ["007", None],
        "event_timestamp": ["2024-05-01T14:00:00+02:00", "2024-05-01 12:00:00"],
        "zip": ["01234", "99999"],
        "id": ["12345678901234567890", "12345678901234567891"],
        "count": [1, None],
        "share": [0.5, None],
        "flag": [True, None],
        "text": ["a", ""],
        "empty": ["", ""],
    }
    as_long = read_labels(path, text_columns={"k": csv_key_type(key(Kind.LONG))}).to_arrow(pa.table({}))
    assert as_long.column("k").to_pylist() == [7, None]
    broken = tmp_path / "broken.csv"
    broken.write_text("a,b\n1\n")
    with pytest.raises(InvalidLabels, match=r"broken\.csv: not a readable \.csv file"):
        read_labels(broken)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_library_that_another_thread_is_importing(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels are read while another thread has just begun to import pandas or polars, whose module is still empty."""
    monkeypatch.setitem(sys.modules, library, ModuleType(library))
    assert times_of([{"event_timestamp": NOON}]) == [NOON_US]


def test_frame_of_a_subclass() -> None:
    """A DataFrame of somebody's subclass is a DataFrame, and keeps its index."""

    class Frame(pd.DataFrame):
        pass

    table = read_labels(Frame({"k": [1]}, index=["x"]))
    assert list(table.to_pandas(pa.table({"f": [2]})).index) == ["x"]


@pytest.mark.parametrize("value", [10**30, -(10**30), 2**63, 10**18, 1e300])
@pytest.mark.parametrize(
    "make", [lambda v: [v], lambda v: pd.DataFrame({"unix_milli": [v]}), lambda v: pl.DataFrame({"unix_milli": [v]})]
)
def test_integers_that_are_no_times(make: Any, value: float) -> None:
    """A unix_milli that no calendar has, or no 64 bits hold, is a typed error in every form of table."""
    try:
        labels = make(value)
    except (OverflowError, TypeError):
        return  # this kind of table cannot hold it
    if isinstance(labels, list):
        labels = [{"unix_milli": value}]
    with pytest.raises(InvalidLabels):
        times_of(labels)


@pytest.mark.parametrize(
    "time",
    [
        datetime.min.replace(tzinfo=timezone(timedelta(hours=5))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))),
        "0001-01-01T00:00:00+05:00",
    ],
)
def test_label_times_that_utc_cannot_say(time: Any) -> None:
    """A label time whose zone puts it outside the years 1 to 9999 in UTC is refused, as a time and as a key."""
    with pytest.raises(InvalidLabels, match=r"row 0 .*outside the years 1 to 9999"):
        times_of([{"event_timestamp": time}])
    for kind in (Kind.LONG, Kind.DATE):
        with pytest.raises(InvalidLabels, match="column 'k'"):
            key_column(once(read_labels([{"k": time}]), "k"), key(kind), "k")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"\n\n", "it is empty"),
        (b"a,b\n1,2\n3,secret,5\n", r"row 3 \(from 1, the header\) has 3 columns where the header has 2"),
        (b"a,b\n\xff,2\n", "it is not UTF-8 text"),
    ],
)
def test_csv_that_cannot_be_read_says_why(content: bytes, message: str, tmp_path: Path) -> None:
    """A CSV file that is empty, ragged or not UTF-8 is refused with the reason and the row, without its values."""
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidLabels, match=message) as caught:
        read_labels(path)
    assert "secret" not in str(caught.value)
