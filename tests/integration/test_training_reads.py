"""What a training set reads of a file: statements and rows are counted, since no clock of a test machine tells."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from benchmarks.plane_history import FEATURES, fill, write_labels
from oomstream.query.sync import FeatureStore
from oomstream.schemas.versions import SourceKind
from oomstream.stores.settings import load_settings
from oomstream.stores.sql import seek, sqlite_reads

ROWS = 20_000
HISTORY = "history_plane"


class Counted:
    """What goes through connections that read history in bulk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.statements: list[str] = []
        self.rows = 0
        connect, next_table = sqlite_reads._connect, sqlite_reads._next_table

        def counted_connect(*args: Any) -> sqlite3.Connection:
            connection = connect(*args)
            connection.set_trace_callback(self.statements.append)
            return connection

        def counted_table(*args: Any) -> Any:
            table = next_table(*args)
            self.rows += table.num_rows if table is not None else 0
            return table

        monkeypatch.setattr(sqlite_reads, "_connect", counted_connect)
        monkeypatch.setattr(sqlite_reads, "_next_table", counted_table)

    @property
    def moments(self) -> int:
        """Statements that handed over moments to look up."""
        return sum(each.startswith("INSERT") and "moments" in each for each in self.statements)

    @property
    def others(self) -> int:
        """Statements that handed over nothing."""
        return sum(not each.startswith("INSERT") for each in self.statements)

    def of_history(self) -> list[str]:
        """Statements that read history."""
        return [each for each in self.statements if HISTORY in each]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with stores that hold a history."""
    fill(load_settings(data_dir=tmp_path), ROWS)
    return tmp_path


def make_training_set(folder: Path, labels: int) -> int:
    """Make one; gives the number of labels that have values."""
    write_labels(folder / "labels.parquet", ROWS, labels)
    settings = load_settings(data_dir=folder)
    with FeatureStore.open(settings=settings) as store:
        made = store.get_historical_features(parquet.read_table(folder / "labels.parquet"), FEATURES)
    speed = made.features.column("plane.speed")
    return len(speed) - speed.null_count


def plan(folder: Path, statement: str) -> list[str]:
    """How SQLite says that it would run a statement, with temporary tables as they would be."""
    with closing(sqlite3.connect(folder / "history.db")) as connection:
        connection.execute("CREATE TEMP TABLE moments (_moment INTEGER PRIMARY KEY, tail, _event_time)")
        connection.execute("CREATE TEMP TABLE ranks (rank, id, PRIMARY KEY (rank, id)) WITHOUT ROWID")
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]


def test_few_labels_read_as_many_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twenty times as many rows a training set reads one for each label that has any, in one statement."""
    counted = Counted(monkeypatch)
    matched = make_training_set(folder, ROWS // 20)
    assert 0.9 * ROWS // 20 < counted.rows == matched
    assert len(counted.of_history()) == 2  # are there as many rows as labels? and the rows themselves
    assert counted.moments == ROWS // 20 // 100
    assert counted.others <= 10


def test_many_labels_read_each_row_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more labels than rows, each row is read once at most."""
    counted = Counted(monkeypatch)
    matched = make_training_set(folder, 2 * ROWS)
    assert counted.rows <= ROWS < matched
    assert len(counted.of_history()) == 2
    assert (counted.moments, counted.others <= 10) == (0, True)


@pytest.mark.parametrize("kinds", [1, 2], ids=["ids in order of kinds", "ids in another order"])
def test_seek_uses_the_primary_key(folder: Path, monkeypatch: pytest.MonkeyPatch, kinds: int) -> None:
    """Looking rows up never goes through history: every step is a search in the primary key."""
    if kinds > 1:
        monkeypatch.setattr(seek, "_ids_follow_kinds", lambda known: known[1] is not SourceKind.TOPIC)
    counted = Counted(monkeypatch)
    make_training_set(folder, ROWS // 20)
    [_, found] = counted.of_history()
    assert ("MATERIALIZED" in found) == (kinds > 1)
    steps = plan(folder, re.sub(r"moments_\d", "moments", re.sub(r"wanted_\d", "ranks", found)))
    searches = [step for step in steps if step.startswith("SEARCH")]
    assert len(searches) >= 2
    assert all("USING PRIMARY KEY (tail=? AND _event_time" in step for step in searches)
    assert {step for step in steps if step.startswith("SCAN")} <= {"SCAN m", "SCAN s"}
