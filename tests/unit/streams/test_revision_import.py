"""A file becomes a revision of a batch group, whole or not at all."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

import oomstream
from oomstream.schemas.errors import InvalidEvent, InvalidImport, InvalidRequest, Reason, StoreUnavailable, UnknownGroup
from oomstream.schemas.plan import make_plan
from oomstream.stores.opening import Stores
from oomstream.stores.settings import Settings, load_settings
from oomstream.streams import revision_import
from oomstream.streams.forget import forget
from oomstream.streams.import_report import ImportProgress, Stage
from oomstream.streams.importing import import_chunks, import_file, link_table
from tests.unit.streams.imports import NULLABLE_LONG, T0_MS, csv_file, group, history_of, stores

HEADER = "score,user,state"
DEADLINE_S = 60.0
ROOT = Path(__file__).parents[3]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Embedded stores that nobody has made yet."""
    return load_settings(data_dir=tmp_path / "data")


def tables(settings: Settings) -> list[str]:
    """Tables of revisions that there are."""
    with sqlite3.connect(settings.data_dir / "history.db") as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE 'offline_batch_%'").fetchall()
    connection.close()
    return sorted(name for (name,) in rows)


async def rows_of(opened: Stores, number: int) -> list[tuple[object, ...]]:
    """Rows of a revision: key and values."""
    group = (await opened.history.load_catalog()).group("account")
    (revision,) = [each for each in await opened.history.revisions(group) if each.id == number]
    return [(*row.key, *row.values) for row in await opened.history.scan_revision(group, revision)]


def test_a_revision_of_a_file(tmp_path: Path, settings: Settings) -> None:
    """The first import makes the dummy revision and its own; without a time it is of now, and not anchored."""

    async def scenario() -> None:
        async with stores(settings) as opened:
            file = csv_file(tmp_path / "a.csv", HEADER, [(3, "b", "NY"), (-1, "a", "")])
            seen: list[ImportProgress] = []
            report = await import_file(*opened, "account", file, doc="first", progress=seen.append, settings=settings)
            assert report.revision is not None
            assert (report.group, report.rows, report.revision.id) == ("account", 2, 2)
            assert not report.revision.anchored
            assert abs(report.revision.time_us / 1e6 - time.time()) < DEADLINE_S
            dummy, first = await opened.history.revisions()
            assert (dummy.id, dummy.is_dummy, first.doc) == (1, True, "first")
            assert await rows_of(opened, 2) == [("a", "", -1), ("b", "NY", 3)]
            assert seen == [(Stage.WRITING, 2, file.stat().st_size - len(HEADER) - 1)]
            again = await import_file(*opened, "account", file, revision_us=1_600_000_000_000_000, settings=settings)
            assert again.revision is not None
            assert (again.revision.id, again.revision.anchored, again.revision.time_us) == (
                3,
                True,
                1_600_000_000_000_000,
            )

    asyncio.run(scenario())


def test_a_parquet_file_in_many_batches(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of all row groups and batches come in, and a wrong one among them is named by its number."""
    monkeypatch.setattr("oomstream.streams.import_files.MAX_BATCH_ROWS", 70)
    monkeypatch.setattr(revision_import, "ROWS_PER_LOAD", 30)
    users = [f"u{at:04}" for at in range(1_000)]
    table = pa.table({"user_id": users, "state": pa.array([None] * 1_000, pa.string()), "score": range(1_000)})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=300)
    users[765] = users[12]
    parquet.write_table(table.set_column(0, "user_id", pa.array(users)), tmp_path / "b.parquet", row_group_size=300)

    async def scenario() -> None:
        async with stores(settings) as opened:
            report = await import_file(*opened, "account", tmp_path / "a.parquet", settings=settings)
            assert report.rows == 1_000
            assert [row[2] for row in await rows_of(opened, 2)] == list(range(1_000))
            with pytest.raises(InvalidImport, match=r"^b.parquet: row 766 has the key of an earlier row$"):
                await import_file(*opened, "account", tmp_path / "b.parquet", settings=settings)
            assert len(tables(settings)) == 2

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("header", "last", "says"),
    [
        (HEADER, "7,u1,x", "line 90002 has the key of an earlier row"),
        (HEADER, "secret,u,x", "line 90002, column 'score' is not an integer"),
        (HEADER, "3.0,u,secret", "line 90002, column 'score' is not an integer"),
        (HEADER, ",u,x", "line 90002, column 'score' is null but is not nullable"),
        (HEADER, "7,,x", "line 90002, column 'user' is empty, but is part of the entity key"),
        (HEADER, f"7,{'secret' * 50},x", "line 90002, column 'user' is longer than 255 bytes, but is part of"),
        (HEADER, f"7,u,{'secret' * 200_000}", "line 90002 is longer than 1048576 bytes"),
        (HEADER, "7,u", "line 90002 has 2 cells, but the header has 3"),
        (HEADER, '7,u,"secret', "line 90002: a quotation mark stands where none may"),
        ("score,user", "7,u", "line 1: no column 'state' (the group's columns are user or user_id, state, score)"),
        ("score,user,state,more", "7,u,x,y", "line 1: column 'more' is none of group account (the group's columns are"),
        ("score,user,state,state", "7,u,x,y", "line 1: column 'state' is there twice"),
        (
            "score,user,user_id,state",
            "7,u,u,y",
            "line 1: column 'user_id' is there beside 'user', which means the same",
        ),
    ],
)
def test_a_bad_row_late_in_the_file_leaves_nothing(
    tmp_path: Path, settings: Settings, header: str, last: str, says: str
) -> None:
    """The error names line and column but no value; no row, table or id is left, and the next import gets the id."""
    more = ",x" * (header.count(",") - 2)
    rows = [(at, f"u{at}", f"x{more}") if header.count(",") > 1 else (at, f"u{at}") for at in range(90_000)]
    bad = csv_file(tmp_path / "bad.csv", header, [*rows, (last,)])
    good = csv_file(tmp_path / "good.csv", HEADER, [(1, "a", "x")])

    async def scenario() -> None:
        async with stores(settings) as opened:
            with pytest.raises(InvalidImport) as error:
                await import_file(*opened, "account", bad, settings=settings)
            assert str(error.value).startswith(f"bad.csv: {says}")
            assert "secret" not in str(error.value)
            assert tables(settings) == []
            assert await opened.history.revisions() == []
            report = await import_file(*opened, "account", good, settings=settings)
            assert report.revision is not None
            assert report.revision.id == 2

    asyncio.run(scenario())


def test_names_of_columns(tmp_path: Path, settings: Settings) -> None:
    """A key by its entity's name, its own or both; features by name or full name; any order, any delimiter."""

    async def scenario() -> None:
        async with stores(settings) as opened:
            for header in ("state;user;score", "account.score;user_id;state", "user.user_id;state;account.score"):
                cells = {"score": "1", "user": "a", "state": "NY"}
                short = {"account.score": "score", "user_id": "user", "user.user_id": "user"}
                row = ";".join(cells[short.get(name, name)] for name in header.split(";"))
                file = csv_file(tmp_path / "a.txt", header, [(row,)])
                report = await import_file(*opened, "account", file, delimiter=";", settings=settings)
                assert report.revision is not None
                assert await rows_of(opened, report.revision.id) == [("a", "NY", 1)]

    asyncio.run(scenario())


def test_a_stream_of_bytes(settings: Settings) -> None:
    """Bytes that come in pieces are imported when they end; a stream that breaks off leaves nothing."""

    async def pieces(*, breaks: bool) -> AsyncIterator[bytes]:
        yield b"user,sco"
        yield b"re,state\na,1,x\nb,"
        for at in range(200_000):
            yield b"2,y\n%d," % at
        if breaks:
            raise ConnectionError("gone")
        yield b"3,z"

    async def scenario() -> None:
        async with stores(settings) as opened:
            with pytest.raises(ConnectionError):
                await import_chunks(*opened, "account", pieces(breaks=True), settings=settings)
            assert tables(settings) == []
            report = await import_chunks(*opened, "account", pieces(breaks=False), settings=settings)
            assert report.revision is not None
            assert (report.rows, report.revision.id) == (200_002, 2)

    asyncio.run(scenario())


def test_what_cannot_be_imported_at_all(tmp_path: Path, settings: Settings) -> None:
    """An unknown group, a missing, damaged or unreadable file, and a link to nothing are typed errors that name it."""
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "a.arrow").write_bytes(b"ARROW1 no")
    (tmp_path / "a.feather").write_bytes(b"FEA1")

    async def scenario() -> None:
        async with stores(settings) as opened:
            with pytest.raises(UnknownGroup, match="no feature group named 'nothing'"):
                await import_file(*opened, "nothing", tmp_path / "a.csv", settings=settings)
            for name, says in (
                ("a.csv", "cannot read .*a.csv: No such file"),
                (".", "cannot read .*: Is a directory"),
                ("a.parquet", "a.parquet: not a readable .parquet file"),
                ("a.arrow", "a.arrow: not a readable .arrow file"),
                ("a.feather", "a.feather: not a readable .feather file"),
            ):
                with pytest.raises(InvalidImport, match=says):
                    await import_file(*opened, "account", tmp_path / name, settings=settings)
            with pytest.raises(InvalidRequest, match="nothing"):
                await link_table(opened.history, "account", "nothing")
            with pytest.raises(InvalidRequest, match="clicks is a stream group"):
                await link_table(opened.history, "clicks", "nothing")
            assert tables(settings) == []

    asyncio.run(scenario())


def test_a_linked_table(settings: Settings) -> None:
    """A table of the user's becomes a revision as it is."""

    async def scenario() -> None:
        async with stores(settings) as opened:
            with sqlite3.connect(settings.data_dir / "history.db") as connection:
                connection.execute("CREATE TABLE mine (user_id TEXT, score INTEGER, state TEXT, other TEXT)")
                connection.execute("INSERT INTO mine VALUES ('a', 1, 'NY', 'x')")
            connection.close()
            linked = await link_table(opened.history, "account", "mine", revision_us=5_000_000, doc="linked")
            assert (linked.linked, linked.time_us, linked.table, linked.doc) == (True, 5_000_000, "mine", "linked")
            assert await rows_of(opened, linked.id) == [("a", "NY", 1)]

    asyncio.run(scenario())


def test_killed_in_the_middle(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """After kill -9 nobody sees anything of the import; the next one removes what is left when the lease is over."""

    async def prepare() -> None:
        async with stores(settings):
            pass

    asyncio.run(prepare())
    pipe = tmp_path / "rows.csv"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "oomstream.agents.cli.main", "import", "-g", "account", "--input-file", str(pipe)]
    environment = {**os.environ, "OOMSTREAM_DATA_DIR": str(settings.data_dir)}
    with subprocess.Popen(command, env=environment) as process:
        with pipe.open("wb") as writer:
            writer.write(b"user,score,state\n" + b"".join(b"u%d,1,x\n" % at for at in range(500_000)))
            writer.flush()
            deadline = time.monotonic() + DEADLINE_S
            while not any(draft_rows(settings, table) for table in tables(settings)):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        assert process.wait(DEADLINE_S) == -9
    assert len(tables(settings)) == 2

    async def look() -> None:
        async with stores(settings) as opened:
            assert await opened.history.revisions() == []
            with sqlite3.connect(settings.data_dir / "history.db") as connection:
                connection.execute("UPDATE revision SET lease_until = 1 WHERE lease_until > 0")
            connection.close()
            file = csv_file(tmp_path / "good.csv", HEADER, [(1, "a", "x")])
            report = await import_file(*opened, "account", file, settings=settings)
            assert report.revision is not None
            assert await rows_of(opened, report.revision.id) == [("a", "x", 1)]
            assert len(await opened.history.revisions()) == 2
            assert len(tables(settings)) == 2

    asyncio.run(look())


def draft_rows(settings: Settings, table: str) -> int:
    """Rows of a table, read past the store."""
    with sqlite3.connect(settings.data_dir / "history.db", timeout=30) as connection:
        (count,) = connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()
    connection.close()
    return int(count)


def test_forgotten_entities_stay_out_of_the_past(tmp_path: Path, settings: Settings) -> None:
    """A revision of a time before an entity was forgotten has no row of it, and a later one has, as has a stream."""
    file = csv_file(tmp_path / "a.csv", HEADER, [(1, "a", "x"), (2, "b", "y"), (3, "c", "z"), (4, "c", "z")])
    once = csv_file(tmp_path / "b.csv", HEADER, [(1, "a", "x"), (2, "b", "y")])
    events = csv_file(tmp_path / "c.csv", "user,unix_milli,state,score", [("a", T0_MS, "x", 1), ("b", T0_MS, "y", 2)])

    async def scenario() -> None:
        async with stores(settings) as opened:
            await forget(*opened, await opened.history.load_catalog(), "user", [("a",)])
            with pytest.raises(InvalidImport, match="line 5 has the key of an earlier row"):
                await import_file(*opened, "account", file, revision_us=1, settings=settings)
            await import_file(*opened, "account", once, revision_us=1, settings=settings)
            await import_file(*opened, "account", once, settings=settings)
            assert await rows_of(opened, 2) == [("b", "y", 2)]
            assert await rows_of(opened, 3) == [("a", "x", 1), ("b", "y", 2)]
            assert (await import_file(*opened, "clicks", events, settings=settings)).rows == 2
            assert [row.key for row in await history_of(opened)] == [("b",)]

    asyncio.run(scenario())


def test_from_a_program(tmp_path: Path, settings: Settings) -> None:
    """`oomstream.import_file` opens the settings' stores by itself; where an event loop runs it says what to do."""

    async def prepare() -> None:
        async with stores(settings):
            with pytest.raises(InvalidRequest, match=r"await oomstream.streams.importing.import_file there"):
                oomstream.import_file("account", tmp_path / "a.csv", settings=settings)

    asyncio.run(prepare())
    file = csv_file(tmp_path / "a.csv", HEADER, [(1, "a", "x")])
    report = oomstream.import_file("account", file, revision=datetime(2020, 1, 1), description="d", settings=settings)
    assert report.revision is not None
    assert (report.revision.time_us, report.revision.doc) == (1_577_836_800_000_000, "d")


def test_a_long_file(tmp_path: Path, settings: Settings) -> None:
    """A bad row at line 900,000 leaves nothing, and so long a file takes little more memory than a short one."""

    async def prepare() -> None:
        async with stores(settings):
            pass

    asyncio.run(prepare())
    short = csv_file(tmp_path / "short.csv", HEADER, [(at, f"u{at}", "x") for at in range(50_000)])
    long = csv_file(tmp_path / "long.csv", HEADER, [*((at, f"u{at}", "x") for at in range(899_998)), ("bad", "u", "x")])
    code, _, before_kib = run_import(settings, short)
    assert code == 0
    code, error, after_kib = run_import(settings, long)
    assert code == 1
    assert error == "Error: long.csv: line 900000, column 'score' is not an integer\n"
    assert after_kib - before_kib < 60_000
    assert tables(settings) == ["offline_batch_snapshot_1_1", "offline_batch_snapshot_1_2"]


def run_import(settings: Settings, file: Path) -> tuple[int, str, int]:
    """Import a file in a process of its own; gives exit code, what it said of an error, and its peak memory in KiB."""
    program = (
        "import sys\n"
        "from benchmarks.memory import peak_kib\n"
        "from oomstream.agents.cli.main import main\n"
        f"code = main(['import', '-g', 'account', '--input-file', {str(file)!r}])\n"
        "print(peak_kib())\n"
        "sys.exit(code)\n"
    )
    environment = {**os.environ, "OOMSTREAM_DATA_DIR": str(settings.data_dir)}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, env=environment, cwd=ROOT, timeout=120, check=False, capture_output=True, text=True)
    return ended.returncode, ended.stderr, int(ended.stdout.split()[-1])


def test_cancelled_in_the_middle(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import that is interrupted, as by Ctrl-C, drops its draft and gives the ids back."""
    monkeypatch.setattr("oomstream.streams.csv_rows.CHUNK_BYTES", 1_000)
    file = csv_file(tmp_path / "a.csv", HEADER, [(at, f"u{at}", "x") for at in range(10_000)])

    async def scenario() -> None:
        async with stores(settings) as opened:
            begun = asyncio.Event()
            show = lambda _: begun.set()  # noqa: E731
            task = asyncio.create_task(import_file(*opened, "account", file, progress=show, settings=settings))
            await begun.wait()
            assert len(tables(settings)) == 2
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert tables(settings) == []
            assert (await import_file(*opened, "account", file, settings=settings)).revision is not None
            assert [each.id for each in await opened.history.revisions()] == [1, 2]

    asyncio.run(scenario())


def test_a_database_that_fails_in_between(tmp_path: Path, settings: Settings) -> None:
    """A load whose outcome is unknown begins the file anew; one of a stream that cannot be read again ends it."""
    file = csv_file(tmp_path / "a.csv", HEADER, [(at, f"u{at}", "x") for at in range(12_000)])

    async def chunks() -> AsyncIterator[bytes]:
        yield file.read_bytes()

    async def scenario() -> None:
        async with stores(settings) as opened:
            real, calls = opened.history.load_revision, 0

            async def load(*arguments: Any) -> None:
                nonlocal calls
                calls += 1
                await real(*arguments)
                if calls == 2:
                    raise StoreUnavailable("connection lost during COMMIT")

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(opened.history, "load_revision", load)
                report = await import_file(*opened, "account", file, settings=settings)
                assert (report.rows, calls) == (12_000, 5)
                calls = 0
                with pytest.raises(StoreUnavailable, match="connection lost"):
                    await import_chunks(*opened, "account", chunks(), settings=settings)
            assert report.revision is not None
            assert len(await rows_of(opened, report.revision.id)) == 10_000
            assert len(tables(settings)) == 2

    asyncio.run(scenario())


def test_a_row_that_the_database_rejects(tmp_path: Path, settings: Settings) -> None:
    """What the database says of its data is said of the guilty row alone, and nothing is kept."""
    file = csv_file(tmp_path / "a.csv", HEADER, [(at, f"u{at}", "x") for at in range(6_000)])

    async def scenario() -> None:
        async with stores(settings) as opened:
            real = opened.history.load_revision

            async def load(group: Any, draft: Any, rows: Any) -> None:
                if any(row.values[1] == 5_432 for row in rows):
                    raise InvalidEvent(Reason.REJECTED_BY_STORE, "rejects a row for its data")
                await real(group, draft, rows)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(opened.history, "load_revision", load)
                with pytest.raises(InvalidImport, match="line 5434 is refused by the database: rejects a row for its"):
                    await import_file(*opened, "account", file, settings=settings)
            assert tables(settings) == []

    asyncio.run(scenario())


def test_a_definition_that_changes_just_before(tmp_path: Path, settings: Settings) -> None:
    """The draft is of the newest definition: a feature added since the header was read is missing in the file."""
    file = csv_file(tmp_path / "a.csv", HEADER, [(1, "a", "x")])
    changed = group("account", "batch", {"name": "more", "type": NULLABLE_LONG})

    async def scenario() -> None:
        async with stores(settings) as opened:
            real = opened.history.begin_revision

            async def begin(*arguments: Any, **named: Any) -> Any:
                await opened.history.apply(make_plan(await opened.history.load_catalog(), [changed]))
                return await real(*arguments, **named)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(opened.history, "begin_revision", begin)
                with pytest.raises(InvalidImport, match="line 1: no column 'more'"):
                    await import_file(*opened, "account", file, settings=settings)
            assert tables(settings) == []

    asyncio.run(scenario())
