"""`oomstream push`, `get online`, `get source` and `join` on embedded stores, with no broker."""

from __future__ import annotations

import csv
import io
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.integration.cli import Cli

LABELS = """event_timestamp,rider_id,tipped
2026-01-01T12:00:00Z,ann,1
2026-01-03,ann,0
2026-01-03,bob,1
2026-01-01T12:00:00Z,ann,1
"""


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command in a folder with the group `rides` and two events of ann, the later one pushed first."""
    cli = Cli(tmp_path)
    cli.define()
    cli.run("apply", "rides.avsc")
    for time, price, rating in (("2026-01-02T10:00:00Z", "8.25", ""), ("2026-01-01T10:00:00Z", "12.5", "5")):
        values = ["--feature", f"price={price}", "--feature", f"rating={rating}"]
        cli.run("push", "-g", "rides", "-k", "ann", *values, "--event-time", time)
    (tmp_path / "labels.csv").write_text(LABELS, encoding="utf-8")
    return cli


def test_online_rows_come_in_the_order_asked(cli: Cli) -> None:
    """A row per key in the order asked, duplicates kept, headed by the entity; the newest event time wins."""
    out = cli.run("get", "online", "-k", "bob,ann", "-k", "ann", "--feature", "rides.rating,rides.price", "-o", "csv")
    assert out.stdout == "rider,rides.rating,rides.price\nbob,,\nann,,8.25\nann,,8.25\n"


def test_statuses_tell_null_from_missing(cli: Cli) -> None:
    """--statuses tells a null value from an entity that was never seen."""
    rows = cli.json("get", "online", "-k", "ann,bob", "--feature", "rides:rating", "--statuses")
    assert [row["rides.rating status"] for row in rows] == ["NULL_VALUE", "NOT_FOUND"]


def test_delete_hides_an_entity_from_its_time_on(cli: Cli) -> None:
    """Push --delete is an event like any other: an older value does not come back after it."""
    cli.run("push", "-g", "rides", "-k", "ann", "--delete", "--event-time", "2026-01-02T12:00:00Z")
    cli.run("push", "-g", "rides", "-k", "ann", "--feature", "price=1", "--event-time", "2026-01-02T11:00:00Z")
    (row,) = cli.json("get", "online", "-k", "ann", "--feature", "rides.price", "--statuses")
    assert row["rides.price status"] == "NOT_FOUND"
    assert cli.run("join", "--feature", "rides.price", "--input-file", "labels.csv").stdout.splitlines()[2] == (
        "2026-01-03,ann,0,"
    )


def test_join_keeps_rows_order_and_columns(cli: Cli) -> None:
    """Each label row gets the values of its time; rows, order, duplicates and other columns stay as they are."""
    out = cli.run("join", "--feature", "rides.price,rides.rating", "--input-file", "labels.csv").stdout
    assert out == (
        "event_timestamp,rider_id,tipped,rides.price,rides.rating\n"
        "2026-01-01T12:00:00Z,ann,1,12.5,5\n"
        "2026-01-03,ann,0,8.25,\n"
        "2026-01-03,bob,1,,\n"
        "2026-01-01T12:00:00Z,ann,1,12.5,5\n"
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet", "arrow"])
def test_join_writes_files_and_reads_what_it_wrote(cli: Cli, suffix: str) -> None:
    """-O writes csv, parquet and Arrow files, each of which can be the labels of the next join."""
    train = f"train.{suffix}"
    cli.run("join", "--feature", "rides.price", "--input-file", "labels.csv", "-O", train)
    out = cli.run("join", "--feature", "rides.rating", "--input-file", train).stdout
    rows = list(csv.DictReader(io.StringIO(out)))
    values = [(row["rides.price"], row["rides.rating"]) for row in rows]
    assert values == [("12.5", "5"), ("8.25", ""), ("", ""), ("12.5", "5")]
    assert [each.name for each in cli.folder.glob(".*.partial")] == []


def test_labels_of_any_name_are_csv(cli: Cli) -> None:
    """A label file without a known suffix is read as CSV, standard input too."""
    expected = cli.run("join", "--feature", "rides.price", "--input-file", "labels.csv").stdout
    (cli.folder / "labels").write_text(LABELS, encoding="utf-8")
    assert cli.run("join", "--feature", "rides.price", "--input-file", "labels").stdout == expected
    done = subprocess.run(
        cli.command("join", "--feature", "rides.price", "--input-file", "/dev/stdin"),
        cwd=cli.folder,
        env=cli.environment,
        input=LABELS,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == expected


@pytest.mark.parametrize("name", ["bad.csv", "bad.txt"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "rider_id,unix_milli\nann,1\nann,soon\n",
            "column 'unix_milli', row 3 (from 1, the header): the label time is",
        ),
        ("rider_id,event_timestamp\nann,\n", "column 'event_timestamp', row 2 (from 1, the header): the label time is"),
        ("rider_id,at\nann,1\n", "no column 'event_timestamp' or 'unix_milli'"),
        (
            "rider,unix_milli\nann,1\n",
            "key column 'rider_id' (or 'rider.rider_id' or 'entity_key') of entity 'rider' is",
        ),
    ],
)
def test_wrong_labels_name_file_column_and_row(cli: Cli, name: str, text: str, says: str) -> None:
    """What is wrong in a label file is told in terms of that file, whose first row is the header."""
    (cli.folder / name).write_text(text, encoding="utf-8")
    said = cli.run("join", "--feature", "rides.price", "--input-file", name, code=1).stderr
    assert said.startswith(f"Error: {name}: {says}")


def test_join_available_and_as_of(cli: Cli) -> None:
    """--available and --as-of before the push see nothing of it."""
    join = ["join", "--feature", "rides.price", "--input-file", "labels.csv"]
    cli.run(*join, "--available", "-O", "then.parquet")
    cli.run(*join, "--as-of", "2026-01-04", "-O", "old.parquet")
    for file in ("then.parquet", "old.parquet"):
        assert pq.read_table(cli.folder / file)["rides.price"].null_count == 4


def test_composite_keys(cli: Cli) -> None:
    """A key of several fields is written f1=v1,f2=v2, pushed and read."""
    fields = [
        {"name": "user", "type": "long"},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "at", "type": "long", "unit": "s"},
        {"name": "clicks", "type": "int"},
    ]
    cli.define("days.avsc", name="days", entity="user_day", keys=["user", "day"], event_time="at", fields=fields)
    cli.run("apply", "days.avsc")
    cli.run("push", "-g", "days", "-k", "day=2026-01-01,user=7", "--feature", "clicks=3", "--event-time", "2026-01-01")
    out = cli.run("get", "online", "-k", "user=7,day=2026-01-01", "--feature", "days.clicks", "-o", "csv").stdout
    assert out == "user,day,days.clicks\n7,2026-01-01,3\n"


def test_sources_show_the_position_of_pushes(cli: Cli) -> None:
    """Get source and status list the push source with both positions at the end."""
    (source,) = cli.json("get", "source")
    assert (source["kind"], source["next"], source["online"]) == ("push", 2, 2)
    out = cli.run("status").stdout
    assert "history  sqlite:///.oomstream/history.db" in out
    assert "broker   none" in out


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["push", "-g", "trips", "-k", "ann"], 1, "group is empty or does not exist: 'trips'"),
        (["push", "-g", "rides", "-k", "ann"], 2, "price"),
        (["push", "-g", "rides", "-k", "ann", "--feature", "price=cheap"], 2, "price is not a number"),
        (["push", "-g", "rides", "-k", "ann", "--feature", "price"], 2, "'price' is not name=value"),
        (["push", "-g", "rides", "-k", "ann", "--feature", "speed=1"], 2, "has no feature 'speed'"),
        (["push", "-g", "rides", "-k", "ann", "--feature", "price=1", "--event-time", "2199-01-01"], 2, "ended_at"),
        (["push", "-g", "rides", "-k", "ann", "--feature", "price=nan"], 2, "price"),
        (["push", "-g", "rides", "-k", "ann", "--feature", "price=1", "--feature", "rating=99999999999"], 2, "rating"),
        (["push", "-g", "rides", "-k", "", "--feature", "price=1"], 2, "rider_id"),
        (["push", "-g", "rides", "-k", "", "--delete"], 2, "rider_id"),
        (["push", "-g", "rides", "-k", "rider=ann", "--feature", "price=1"], 2, "not a key field (it is: rider_id)"),
        (["get", "online", "-k", "rider=ann", "--feature", "rides.price"], 2, "not a key field (it is: rider_id)"),
        (["push", "-g", "rides", "-k", "ann,bob", "--feature", "price=1"], 2, "one entity key"),
        (["get", "online", "-k", "ann", "--feature", "rides.speed,trips.x"], 1, "[rides.speed trips.x]"),
        (["join", "--feature", "rides.speed", "--input-file", "labels.csv"], 1, "rides.speed"),
        (["join", "--feature", "rides.price", "--input-file", "rides.avsc"], 1, "rides.avsc"),
        (["join", "--feature", "rides.price", "--input-file", "labels.csv", "--as-of", "noon"], 2, "is not a time"),
        (["join", "--feature", "rides.price", "--input-file", "labels.csv", "-O", "x.txt"], 2, "x.txt"),
        (["join", "--feature", "rides.price", "--input-file", "labels.csv", "-O", "no/x.csv"], 2, "does not exist"),
        (["join", "--feature", "rides.price", "--input-file", "labels.csv", "--as-of", "2199-01-01"], 1, "not settled"),
        (["dlq", "list"], 2, "no broker"),
        (["worker"], 2, "no broker"),
    ],
)
def test_wrong_input_is_one_sentence(cli: Cli, args: list[str], code: int, says: str) -> None:
    """Wrong input ends with one sentence that names what is wrong, and exit code 1 or 2."""
    assert says in cli.run(*args, code=code).stderr


def test_a_broker_that_is_not_there_is_named(cli: Cli) -> None:
    """A broker that does not answer is one sentence with its address, exit code 1."""
    err = cli.run("status", code=1, OOMSTREAM_BROKER_URL="kafka://127.0.0.1:9", OOMSTREAM_CALL_TIMEOUT="2s").stderr
    assert "127.0.0.1:9" in err


def test_a_wrong_broker_url_shows_what_one_looks_like(cli: Cli) -> None:
    """A broker URL of another form is refused with the two forms there are."""
    assert "kafka://host:9092" in cli.run("status", code=2, OOMSTREAM_BROKER_URL="localhost:9092").stderr


def test_a_damaged_store_is_named(cli: Cli) -> None:
    """A file that is no database is one sentence with its path."""
    (cli.folder / ".oomstream" / "online.db").write_bytes(b"not a database, but long enough to be looked at" * 100)
    for suffix in ("-wal", "-shm"):
        (cli.folder / ".oomstream" / f"online.db{suffix}").unlink(missing_ok=True)
    assert "online.db" in cli.run("get", "online", "-k", "ann", "--feature", "rides.price", code=1).stderr


def test_join_does_not_overwrite_its_labels(cli: Cli, tmp_path: Path) -> None:
    """An output file that is the label file, by its name or through a link, is refused and left as it was."""
    (tmp_path / "link.csv").symlink_to(tmp_path / "labels.csv")
    (tmp_path / "hard.csv").hardlink_to(tmp_path / "labels.csv")
    for name in ("labels.csv", "./labels.csv", "link.csv", "hard.csv"):
        join = cli.run("join", "--feature", "rides.price", "--input-file", "labels.csv", "-O", name, code=2)
        assert "is the label file" in join.stderr
    assert (tmp_path / "labels.csv").read_text(encoding="utf-8") == LABELS
