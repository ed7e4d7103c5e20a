"""A file's rows become events of a stream group, once, whatever happens in between."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.errors import Fenced, InvalidImport, InvalidRequest
from oomstream.schemas.events import RawRecord
from oomstream.schemas.framing import frame
from oomstream.schemas.plan import make_plan
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import SourceName
from oomstream.stores.catalog_cache import CatalogCache
from oomstream.stores.opening import Stores
from oomstream.stores.settings import Settings, load_settings
from oomstream.streams.import_report import ImportProgress, Stage
from oomstream.streams.importing import import_chunks, import_file
from oomstream.streams.ingest import SourceIngest
from oomstream.streams.push import LocalWriter
from tests.unit.streams.house import KeptLetters
from tests.unit.streams.imports import (
    NULLABLE_LONG,
    STREAM,
    T0_MS,
    clicks,
    csv_file,
    differing,
    group,
    history_of,
    online_of,
    stores,
)

HEADER = "user,unix_milli,state,score"
POINTS = (
    "after_poll:2",
    "before_history_commit:2",
    "after_history_commit:2",
    "after_history:2",
    "in_online_batch:2",
    "after_online:2",
    "while_claiming",
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Embedded stores that nobody has made yet, and small batches."""
    return load_settings(data_dir=tmp_path / "data", batch_rows=100)


async def assert_exact(opened: Stores, rows: list[tuple[Any, ...]]) -> None:
    """History holds each row once, in order, and online is the newest of history."""
    found = [(row.key[0], row.event_time_us // 1000, *row.values) for row in await history_of(opened)]
    assert found == rows
    assert await differing(opened) == 0
    sources = await opened.history.sources()
    assert all(each.online_sequence == each.next_sequence for each in sources)


def test_again_changes_nothing(tmp_path: Path, settings: Settings) -> None:
    """Every row is an event of the file's own source; the same bytes again, under any name, write nothing."""
    rows = clicks(1_000)

    async def scenario() -> None:
        async with stores(settings) as opened:
            file = csv_file(tmp_path / "may.csv", HEADER, rows)
            seen: list[ImportProgress] = []
            report = await import_file(*opened, "clicks", file, progress=seen.append, settings=settings)
            assert (report.rows, report.known_rows, report.revision) == (1_000, 0, None)
            assert {each.stage for each in seen} == {Stage.CHECKING, Stage.WRITING}
            (source,) = await opened.history.sources()
            assert (source.name.kind, source.name.name, source.next_sequence) == (
                SourceKind.FILE,
                "clicks/may.csv",
                1_000,
            )
            await assert_exact(opened, rows)
            before = await online_of(opened, ["u1", "u5"])
            assert before["u5"][0] == ("s999", 999)
            again = await import_file(*opened, "clicks", file.rename(tmp_path / "june.csv"), settings=settings)
            assert (again.rows, again.known_rows) == (1_000, 1_000)
            assert len(await opened.history.sources()) == 1
            await assert_exact(opened, rows)
            assert await online_of(opened, ["u1", "u5"]) == before

    asyncio.run(scenario())


@pytest.mark.parametrize("point", POINTS)
def test_killed_in_the_middle_it_goes_on(tmp_path: Path, settings: Settings, point: str) -> None:
    """SIGKILL at each point of the pipeline: the same file again writes the rest, and nothing twice."""
    rows = clicks(1_000)
    file = csv_file(tmp_path / "may.csv", HEADER, rows)

    async def prepare() -> None:
        async with stores(settings):
            pass

    asyncio.run(prepare())
    command = [sys.executable, "-m", "oomstream.agents.cli.main", "import", "-g", "clicks", "--input-file", str(file)]
    environment = {
        **os.environ,
        "OOMSTREAM_DATA_DIR": str(settings.data_dir),
        "OOMSTREAM_BATCH_ROWS": "100",
        "OOMSTREAM_CRASH_AT": point,
    }
    assert subprocess.run(command, env=environment, timeout=60, check=False).returncode == -9
    del environment["OOMSTREAM_CRASH_AT"]
    ended = subprocess.run(command, env=environment, timeout=60, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("imported 1,000 rows")

    async def look() -> None:
        async with stores(settings) as opened:
            await assert_exact(opened, rows)

    asyncio.run(look())


@pytest.mark.parametrize(
    ("header", "row", "says"),
    [
        (HEADER, (f"u1,{T0_MS},secret,7.5",), "line 502, column 'score' is not an integer"),
        (HEADER, ("u1,,x,7",), "line 502, column 'unix_milli' is null, but is the event time"),
        (HEADER, ("u1,1700000000,secret,7",), "line 502, column 'unix_milli' is older than the oldest event time"),
        (HEADER, (f"u1,{T0_MS}000,x,7",), "line 502, column 'unix_milli' is outside"),
        (HEADER, ("u1,4000000000000,x,7",), "line 502, column 'unix_milli' lies further after now than is accepted"),
        (HEADER, (f",{T0_MS},x,7",), "line 502, column 'user' is empty, but is part of the entity key"),
        (HEADER, (f"u1,{T0_MS},{'secret' * 200_000},7",), "line 502 is longer than 1048576 bytes"),
        (HEADER.replace("unix_milli", "at"), ("u1,2013-07-01T12:00:00,x,7",), "line 502, column 'at' is not RFC 3339"),
        (
            HEADER.replace("unix_milli,", ""),
            (),
            "line 1: no column 'at' or 'unix_milli' (the group's columns are user or user_id, at or unix_milli, state",
        ),
        (HEADER + ",at", (), "line 1: column 'at' is there beside 'unix_milli', which means the same"),
    ],
)
def test_a_bad_row_keeps_everything_out(
    tmp_path: Path, settings: Settings, header: str, row: tuple[str, ...], says: str
) -> None:
    """A file is valid as a whole or nothing of it is written: no row, no source."""
    file = csv_file(tmp_path / "bad.csv", header, [*clicks(500), row] if row else [])

    async def scenario() -> None:
        async with stores(settings) as opened:
            with pytest.raises(InvalidImport) as error:
                await import_file(*opened, "clicks", file, settings=settings)
            assert str(error.value).startswith(f"bad.csv: {says}")
            assert "secret" not in str(error.value)
            assert await opened.history.sources() == []
            assert await history_of(opened) == []

    asyncio.run(scenario())


def test_events_of_the_stream_beat_the_file(tmp_path: Path, settings: Settings) -> None:
    """At equal event time a push and a stream's event win over the file's, whichever came first; a later time wins."""

    async def produce(opened: Stores, user: str, score: int, offset: int) -> None:
        registered = (await opened.history.load_catalog()).groups["clicks"]
        topic = SourceIngest(
            history=opened.history,
            online=opened.online,
            catalog=CatalogCache(opened.history),
            dead_letters=KeptLetters(),
            name=SourceName(SourceKind.TOPIC, "clicks", "one", 0),
            settings=settings,
        )
        await topic.start(0, 2, begin=0)
        codec = BodyCodec(registered)
        body = codec.encode_python({"user_id": user, "at": T0_MS * 1000, "state": "stream", "score": score}).body
        await topic.ingest([RawRecord(offset, None, frame(codec.group.fingerprint, body), T0_MS)], "clicks")

    async def scenario() -> None:
        async with stores(settings) as opened:
            await produce(opened, "before", 1, 0)
            same = [(user, T0_MS, "file", 0) for user in ("before", "behind")]
            file = csv_file(tmp_path / "may.csv", HEADER, [*same, ("later", T0_MS + 1, "file", 0)])
            await import_file(*opened, "clicks", file, settings=settings)
            await produce(opened, "behind", 2, 1)
            found = await online_of(opened, ["before", "behind", "later"])
            assert {user: values for user, (values, _) in found.items()} == {
                "before": ("stream", 1),
                "behind": ("stream", 2),
                "later": ("file", 0),
            }
            assert found["before"][1].kind == SourceKind.TOPIC
            assert await differing(opened) == 0

    asyncio.run(scenario())


def test_an_older_file_behind_newer_events(tmp_path: Path, settings: Settings) -> None:
    """Old rows go into history in their place and leave the newer online row, and a delete, as they are."""

    async def scenario() -> None:
        async with stores(settings) as opened:
            async with LocalWriter(opened.history, opened.online, settings) as writer:
                await writer.push("clicks", {"user_id": "u1", "state": "new", "score": 5})
                await writer.delete("clicks", ["u2"])
            await import_file(*opened, "clicks", csv_file(tmp_path / "a.csv", HEADER, clicks(100)), settings=settings)
            online = await online_of(opened, ["u1", "u3"])
            assert online["u1"][0] == ("new", 5)
            assert online["u3"][0] == ("s94", 94)
            assert len(await history_of(opened)) == 102
            assert await differing(opened) == 0

    asyncio.run(scenario())


def test_two_groups_and_two_files(tmp_path: Path, settings: Settings) -> None:
    """The same bytes in two groups are two sources; so are two files in one group."""
    other = group("views", "stream")

    async def scenario() -> None:
        async with stores(settings, STREAM, other) as opened:
            file = csv_file(tmp_path / "a.csv", HEADER, clicks(10))
            for name in ("clicks", "views"):
                assert (await import_file(*opened, name, file, settings=settings)).known_rows == 0
                assert len(await history_of(opened, name)) == 10
            more = csv_file(tmp_path / "b.csv", HEADER, clicks(11))
            assert (await import_file(*opened, "clicks", more, settings=settings)).known_rows == 0
            assert len(await history_of(opened)) == 21
            names = [each.name.name for each in await opened.history.sources()]
            assert names == ["clicks/a.csv", "views/a.csv", "clicks/b.csv"]

    asyncio.run(scenario())


def test_typed_files(tmp_path: Path, settings: Settings) -> None:
    """A parquet file is imported too, its event times as timestamps or as milliseconds."""
    rows = clicks(1_000)
    users, times, states, scores = (list(column) for column in zip(*rows, strict=True))
    stamps = pa.array(times, pa.int64()).cast(pa.timestamp("ms", "UTC"))

    async def scenario() -> None:
        async with stores(settings) as opened:
            for name, time in (("unix_milli", pa.array(times)), ("at", stamps)):
                table = pa.table({"score": scores, "user": users, name: time, "state": states})
                parquet.write_table(table, tmp_path / f"{name}.parquet", row_group_size=300)
                await import_file(*opened, "clicks", tmp_path / f"{name}.parquet", settings=settings)
            await assert_exact(opened, rows * 2)

    asyncio.run(scenario())


def test_a_stream_of_bytes(settings: Settings) -> None:
    """Bytes from a client are imported when they have all come, and not at all when they break off."""
    text = "\n".join([HEADER, *(",".join(map(str, row)) for row in clicks(300))]).encode()

    async def pieces(*, breaks: bool) -> AsyncIterator[bytes]:
        for start in range(0, len(text), 100):
            if breaks and start > 1_000:
                raise ConnectionError("gone")
            yield text[start : start + 100]

    async def scenario() -> None:
        async with stores(settings) as opened:
            with pytest.raises(ConnectionError):
                await import_chunks(*opened, "clicks", pieces(breaks=True), settings=settings)
            assert await opened.history.sources() == []
            report = await import_chunks(*opened, "clicks", pieces(breaks=False), settings=settings)
            assert report.rows == 300
            await assert_exact(opened, clicks(300))

    asyncio.run(scenario())


def test_a_pipe(tmp_path: Path, settings: Settings) -> None:
    """What can be read only once is copied first, since a stream group's file is read twice."""
    os.mkfifo(tmp_path / "pipe.csv")
    text = "\n".join([HEADER, *(",".join(map(str, row)) for row in clicks(300))])

    async def scenario() -> None:
        async with stores(settings) as opened:
            writing = asyncio.create_task(asyncio.to_thread((tmp_path / "pipe.csv").write_text, text))
            report = await import_file(*opened, "clicks", tmp_path / "pipe.csv", settings=settings)
            await writing
            assert report.rows == 300
            await assert_exact(opened, clicks(300))

    asyncio.run(scenario())


def test_a_stream_group_has_no_revisions(tmp_path: Path, settings: Settings) -> None:
    """A revision's time in a stream group is a mistake, and is said to be one; a description is taken, and dropped."""
    file = csv_file(tmp_path / "a.csv", HEADER, clicks(1))

    async def scenario() -> None:
        async with stores(settings) as opened:
            with pytest.raises(InvalidRequest, match="group clicks is a stream group"):
                await import_file(*opened, "clicks", file, settings=settings, revision_us=5)
            assert (await import_file(*opened, "clicks", file, settings=settings, doc="x")).rows == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("when", ["while it is checked", "while it is written"])
def test_a_file_that_changes_meanwhile(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Only rows that were judged are written: a file that changes between the two readings is refused."""
    monkeypatch.setattr("oomstream.streams.csv_rows.CHUNK_BYTES", 2_000)
    monkeypatch.setattr("oomstream.streams.import_files.BLOCK_BYTES", 2_000)
    rows = clicks(1_000)
    file = csv_file(tmp_path / "a.csv", HEADER, rows)
    size = file.stat().st_size
    stage = Stage.CHECKING if when == "while it is checked" else Stage.WRITING

    def change(progress: ImportProgress) -> None:
        if progress.stage is stage:
            changed = file.read_text().replace(",999\n", ",998\n").replace(",998\n", ",997\n")
            file.write_text(changed)

    async def scenario() -> None:
        async with stores(settings) as opened:
            with pytest.raises(InvalidImport, match="the file changed"):
                await import_file(*opened, "clicks", file, progress=change, settings=settings)
            assert file.stat().st_size == size
            found = await history_of(opened)
            assert len(found) < 1_000
            assert bool(found) is (stage is Stage.WRITING)
            assert [row.values[1] for row in found] == list(range(len(found)))

    asyncio.run(scenario())


def test_a_definition_that_changes_meanwhile(tmp_path: Path, settings: Settings) -> None:
    """A feature added in the middle of an import has its default in all rows, and the rest goes on under it."""
    rows = clicks(1_000)
    file = csv_file(tmp_path / "a.csv", HEADER, rows)
    changed = group(
        "clicks", "stream", {"name": "more", "type": "long", "default": 7}, {"name": "n", "type": NULLABLE_LONG}
    )

    async def scenario() -> None:
        async with stores(settings) as opened:
            history = opened.history
            real, calls = history.append, 0

            async def append(*arguments: Any) -> int:
                nonlocal calls
                calls += 1
                if calls == 4:
                    await history.apply(make_plan(await history.load_catalog(), [changed]))
                return await real(*arguments)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(history, "append", append)
                assert (await import_file(*opened, "clicks", file, settings=settings)).rows == 1_000
            await assert_exact(opened, [(*row, 7, None) for row in rows])
            again = await import_file(*opened, "clicks", file, settings=settings)
            assert again.known_rows == 1_000
            other = csv_file(tmp_path / "b.csv", HEADER, clicks(1_001))
            with pytest.raises(InvalidImport, match="no column 'more', 'n'"):
                await import_file(*opened, "clicks", other, settings=settings)

    asyncio.run(scenario())


def test_an_import_begun_under_an_older_definition(tmp_path: Path, settings: Settings) -> None:
    """What was killed, and then got a feature more and one less, still goes on with the same file."""
    rows = clicks(1_000)
    file = csv_file(tmp_path / "a.csv", HEADER, rows)

    async def scenario() -> None:
        async with stores(settings) as opened:
            history = opened.history
            real, calls = history.append, 0

            async def append(*arguments: Any) -> int:
                nonlocal calls
                calls += 1
                if calls == 4:
                    raise Fenced("stolen")
                return await real(*arguments)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(history, "append", append)
                with pytest.raises(Fenced, match=r"a.csv: another process imports this file into group clicks now"):
                    await import_file(*opened, "clicks", file, settings=settings)
            assert len(await history_of(opened)) == 300
            declared = {
                **STREAM.schema,
                "fields": [each for each in STREAM.schema["fields"] if each["name"] != "state"],
            }
            declared["fields"] = [*declared["fields"], {"name": "more", "type": "long", "default": 7}]
            await history.apply(make_plan(await history.load_catalog(), [group_from_avsc(declared)]))
            report = await import_file(*opened, "clicks", file, settings=settings)
            assert (report.rows, report.known_rows) == (1_000, 300)
            await assert_exact(opened, [(user, time, score, 7) for user, time, _, score in rows])

    asyncio.run(scenario())
