"""Short runs of the torture, and faults planted by hand that the verifier must find."""

from __future__ import annotations

import io
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.conformance.mysql_raw import cursor_on
from tests.services.mysql_protocol import SqlServer
from tests.services.server import Server
from tests.services.tikv import TikvServer
from tests.torture.__main__ import run
from tests.torture.report import print_result
from tests.torture.run import PRODUCED, Result, Run
from tests.torture.schedule import Options
from tests.torture.stage import server_stage

Execute = Callable[..., Any]


def told(result: Result, options: Options, folder: Path) -> str:
    """What a person would be told."""
    with io.StringIO() as text:
        print_result(Console(file=text, width=150), options, result, folder)
        return text.getvalue()


def test_embedded(tmp_path: Path) -> None:
    """Ten kills on the embedded broker and SQLite: nothing lost, nothing doubled, no key differs, no letter missing."""
    with io.StringIO() as text:
        console = Console(file=text, width=150)
        options = Options(10, 3, 109, False)  # with a freeze, a drain and a changed consumer group among them
        code = run(options, tmp_path / "run", console=console, keep=True)
        assert code == 0, text.getvalue()
        assert "left out: partitions added" in text.getvalue()


def test_planted_faults_are_found(tmp_path: Path) -> None:
    """A lost row, one doubled under another identity, a changed online value and a missing letter: each is told."""
    folder = tmp_path / "run"

    def plant(this: Run) -> None:
        data = folder / "data"
        with closing(sqlite3.connect(data / "history.db", isolation_level=None)) as history:
            plant_in_history(history.execute, "?")
        with closing(sqlite3.connect(data / "online.db", isolation_level=None)) as online:
            key, value = online.execute("SELECT key, value FROM online ORDER BY key LIMIT 1").fetchone()
            online.execute("UPDATE online SET value = ? WHERE key = ?", (changed(value), key))
        this.letters.letters.popitem()

    with io.StringIO() as text:
        console = Console(file=text, width=150)
        assert run(Options(2, 2, 1, False), folder, console=console, before_verifying=plant) == 1
        said = text.getvalue()
    for what in ("lost", "doubled", "differing keys", "letters missing"):
        assert f"\n{what}: " in said, said
        assert f"│ {what}" in said
    assert f"WRONG. Kept in {folder}" in said
    assert (folder / PRODUCED).exists()


def plant_in_history(execute: Execute, mark: str) -> None:
    """Remove one row of history, and double another one under another identity."""
    execute("SELECT count(*) FROM history_plane")
    rows = list(execute("SELECT _source, _sequence FROM history_plane ORDER BY _source, _sequence LIMIT 2"))
    (source, first), (_, second) = rows
    where = f"_source = {mark} AND _sequence = {mark}"
    execute(f"DELETE FROM history_plane WHERE {where}", (source, first))
    columns = "tail, _event_time, _source, _ingest_time, _deleted, delay, carrier"
    execute(
        f"INSERT INTO history_plane ({columns}, _sequence) SELECT {columns}, _sequence + 1000000 "
        f"FROM history_plane WHERE {where}",
        (source, second),
    )


def changed(value: bytes) -> bytes:
    """An online value whose ingest time is another one; its version stays."""
    at = 22
    (ingest_us,) = struct.unpack_from(">q", value, at)
    return value[:at] + struct.pack(">q", ingest_us + 1) + value[at + 8 :]


@contextmanager
def executing(url: str) -> Iterator[Execute]:
    """Statements on a server."""
    with cursor_on(url) as cursor:

        def execute(sql: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
            cursor.execute(sql, parameters)
            return list(cursor.fetchall())

        yield execute


def test_on_servers(tmp_path: Path, kafka_server: Server, tidb_server: SqlServer, tikv_server: TikvServer) -> None:
    """Fifteen kills on Kafka, TiDB and TiKV: all is right; and then faults planted there are found."""
    options = Options(15, 3, 1598, True)  # with a freeze in a transaction, a cut, a killed TiKV and a drain among them
    with (
        server_stage(tmp_path, kafka_server, tidb_server, tikv_server) as stage,
        Run(stage, options) as this,
    ):
        this.conduct(lambda _: None)
        result = this.verify()
        assert result.right, told(result, options, tmp_path)
        assert result.tally.kills == 15
        with executing(stage.settings.history) as execute:
            plant_in_history(execute, "%s")
        counts = this.verify().findings.counts
        assert {name: count for name, count in counts.items() if count} == {"lost": 1, "doubled": 1}
