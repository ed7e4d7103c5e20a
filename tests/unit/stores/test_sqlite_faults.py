"""Case 20: what goes wrong with an SQLite file is a clear error that names the path, and nothing is half done."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from oomstream.schemas.errors import Fatal, InvalidEvent, InvalidSetting, OomstreamError, Reason, StoreUnavailable
from oomstream.stores.base import HistoryStore
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.sql.online import SqlOnlineStore
from oomstream.stores.sql.sqlite import SqliteDialect
from oomstream.stores.testing.history_suite import append, register, topic
from oomstream.stores.testing.online import row
from oomstream.stores.testing.samples import event, group
from oomstream.stores.urls import StoreUrl

_SHORT = "2s"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file in a folder with awkward characters."""
    return tmp_path / "a folder, 100%?#.d" / "history.db"


def _history(path: Path, timeout: str = "30s") -> SqlHistoryStore:
    return SqlHistoryStore(f"sqlite:///{path}", load_settings(call_timeout_us=timeout))


def _online(path: Path, timeout: str = "30s") -> SqlOnlineStore:
    return SqlOnlineStore(f"sqlite:///{path}", load_settings(call_timeout_us=timeout))


@contextmanager
def _child(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs a script; ended with the context."""
    with subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


_LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
print("released", flush=True)
sys.stdin.readline()
"""


def test_locked_by_another_process(path: Path) -> None:
    """A lock held past the deadline is StoreUnavailable, reads go on, and writes too once it is released."""

    async def check() -> None:
        async with _history(path, _SHORT) as store, _online(path.with_name("online.db"), _SHORT) as online:
            await store.init()
            await online.init()
            [mine] = await register(store, group())
            source = await store.claim(topic())
            writes: list[tuple[Path, Callable[[], Coroutine[Any, Any, int]]]] = [
                (path, lambda: append(store, source, mine, event(0))),
                (path.with_name("online.db"), lambda: online.upsert_newer([row("a", 1)])),
            ]
            for locked, write in writes:
                with _child(_LOCKER, locked) as child:
                    assert _line(child) == "locked"
                    with pytest.raises(StoreUnavailable) as caught:
                        await write()
                    assert str(locked) in str(caught.value)
                    assert "locked by another process" in str(caught.value)
                    assert len(await store.sources()) == 1
                    assert await online.read([b"x"]) == [None]
                    assert child.stdin is not None
                    child.stdin.write("\n")
                    child.stdin.flush()
                    assert _line(child) == "released"
                    await write()

    asyncio.run(check())


@pytest.mark.parametrize("content", [b"this is a text file, not a database\n" * 100, b"\0" * 5000])
def test_not_a_database(path: Path, content: bytes) -> None:
    """A file of something else is Fatal: it is named, and left as it is."""
    path.parent.mkdir()
    path.write_bytes(content)

    async def open_and_init(store: HistoryStore | SqlOnlineStore) -> None:
        async with store:
            await store.init()

    for store in (_history(path), _online(path)):
        with pytest.raises(Fatal, match="not an SQLite database") as caught:
            asyncio.run(open_and_init(store))
        assert str(path) in str(caught.value)
    assert path.read_bytes() == content


def test_damaged_file(path: Path) -> None:
    """Damaged pages are Fatal and named, whether they are met by a write, a read or a scan."""

    async def fill() -> None:
        async with _history(path) as store:
            await store.init()
            [mine] = await register(store, group())
            source = await store.claim(topic())
            await append(store, source, mine, *(event(at, f"key {at}") for at in range(5_000)))

    asyncio.run(fill())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [(page,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'history_plane'").fetchall()
        [(size,)] = connection.execute("PRAGMA page_size").fetchall()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)

    async def use(what: str) -> None:
        async with _history(path) as store:
            mine = (await store.load_catalog()).group("plane")
            if what == "write":
                await append(store, await store.claim(topic()), mine, event(9_999, "new"))
            elif what == "newest":
                await store.newest(mine, [("key 1",)])
            else:
                async with store.cut() as cut:
                    async for _ in cut.scan(mine, ["n"]):
                        pass

    for what in ("write", "newest", "scan"):
        with pytest.raises(Fatal, match="damaged") as caught:
            asyncio.run(use(what))
        assert str(path) in str(caught.value)


def test_not_there(path: Path) -> None:
    """A file that is not there is not made by reading; the error says to initialise it."""

    async def check() -> None:
        async with _history(path) as store, _online(path) as online:
            for use in (store.load_catalog(), online.read([b"x"]), online.upsert_newer([row("a", 1)])):
                with pytest.raises(InvalidSetting, match="oomstream init") as caught:
                    await use
                assert str(path) in str(caught.value)
            with pytest.raises(InvalidSetting, match="oomstream init"):
                online.read_sync([b"x"])
            with pytest.raises(InvalidSetting, match="oomstream init"):
                async with store.cut():
                    pass
        assert not path.parent.exists()

    asyncio.run(check())


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A path through a file, or to a folder, is an error that names it."""
    (tmp_path / "file").touch()

    async def init(path: Path) -> None:
        async with _history(path) as store:
            await store.init()

    for path in (tmp_path / "file" / "x.db", tmp_path):
        with pytest.raises(OomstreamError) as caught:
            asyncio.run(init(path))
        assert str(path) in str(caught.value)


_FULL = """
import asyncio, resource, sys
from oomstream.schemas.errors import StoreUnavailable
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.testing.history_suite import append, register, topic
from oomstream.stores.testing.samples import event, group

async def main():
    async with SqlHistoryStore("sqlite:///" + sys.argv[1], load_settings()) as store:
        await store.init()
        [mine] = await register(store, group(features={"s": "string"}))
        source = await store.claim(topic())
        await append(store, source, mine, event(0, "first", 0, "x"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
        try:
            await append(store, source, mine, *(event(at, f"k{at}", 0, "x" * 10_000) for at in range(1, 200)))
        except StoreUnavailable as exc:
            print(exc)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print((await store.claim(topic())).next_sequence, len(await store.rows_of_source(mine, source.id, 0, 999)))

asyncio.run(main())
"""


def test_file_that_cannot_grow(path: Path) -> None:
    """A write for which there is no room is StoreUnavailable, wholly undone, and goes through once there is."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _FULL, path], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    error, state = done.stdout.splitlines()
    assert str(path) in error
    assert "full" in error
    assert state == "1 1"


def test_full_disk(path: Path) -> None:
    """SQLite's own word for a full disk becomes StoreUnavailable, which is retried, with the path."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("PRAGMA max_page_count = 2")
        with pytest.raises(sqlite3.OperationalError) as caught:
            connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    url = StoreUrl.parse(f"sqlite:///{path}")
    error = SqliteDialect().error(caught.value, f"online store {url}", url)
    assert isinstance(error, StoreUnavailable)
    assert str(error) == f"online store {url}: the disk is full (database or disk is full)"


_READ_ONLY = """
import asyncio, os, sys
from oomstream.schemas.errors import OomstreamError
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.testing.history_suite import register, topic
from oomstream.stores.testing.samples import group

async def use(path, init):
    async with SqlHistoryStore("sqlite:///" + path, load_settings()) as store:
        if init:
            await store.init()
            await register(store, group())
        print(len((await store.load_catalog()).groups))
        await store.claim(topic())

path, warm = sys.argv[1:]
asyncio.run(use(warm, True))  # everything is imported before the rights go
asyncio.run(use(path, True))
os.chmod(path, 0o444)
if os.getuid() == 0:
    os.setuid(65534)
try:
    asyncio.run(use(path, False))
except OomstreamError as exc:
    print(type(exc).__name__, exc)
"""


def test_file_that_may_not_be_written() -> None:
    """A read-only file still serves reads; a write is an error that says why and names the path."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as warm:
        Path(folder).chmod(0o777)
        path = Path(folder) / "history.db"
        done = subprocess.run(
            [sys.executable, "-c", _READ_ONLY, path, Path(warm) / "x.db"], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        *_, reads, error = done.stdout.splitlines()
        assert reads == "1"
        assert error.startswith(f"StoreUnavailable history store sqlite:///{path}: ")
        assert "may not be written" in error


def test_row_that_the_database_rejects(path: Path) -> None:
    """Case 15: a row that a constraint refuses is an InvalidEvent; its batch is undone, the others go in."""

    async def check() -> None:
        async with _history(path) as store:
            await store.init()
            [mine] = await register(store, group())
            with closing(sqlite3.connect(path)) as connection:
                connection.execute(
                    "CREATE TRIGGER guard BEFORE INSERT ON history_plane WHEN NEW.n = 13 "
                    "BEGIN SELECT RAISE(ABORT, 'unlucky'); END"
                )
            source = await store.claim(topic())
            for bad in (event(1, "a", 0, 13), event(1, "a", 0, 1 << 63)):
                with pytest.raises(InvalidEvent) as caught:
                    await append(store, source, mine, event(0), bad, event(2))
                assert caught.value.reason is Reason.REJECTED_BY_STORE
            assert await store.rows_of_source(mine, source.id, 0, 9) == []
            await append(store, source, mine, event(0), event(2))
            assert [each.sequence for each in await store.rows_of_source(mine, source.id, 0, 9)] == [0, 2]

    asyncio.run(check())


def test_frozen_transaction_is_rolled_back(path: Path) -> None:
    """A writer that was frozen inside a transaction past its limit must not commit rows of a settled time."""
    clock = iter([0.0, 0.1, 100.0, 129.9, 200.0, 230.0, 300.0, 300.0])

    async def check() -> None:
        settings = load_settings()
        async with SqlHistoryStore(f"sqlite:///{path}", settings, monotonic=lambda: next(clock)) as store:
            assert store.transaction_limit_s == 30
            await store.init()
            [mine] = await register(store, group())
            source = await store.claim(topic())
            await append(store, source, mine, event(0))
            await append(store, source, mine, event(1))
            with pytest.raises(StoreUnavailable, match="a transaction took 30"):
                await append(store, source, mine, event(2))
            assert (await store.sources())[0].next_sequence == 2
            await append(store, source, mine, event(2))

    asyncio.run(check())


def test_clock_that_falls(path: Path) -> None:
    """When the database's clock is set back, ingest times of a source stand still until it has caught up."""
    clock = iter([1000, 5000, 3000, 3001, 6000])

    async def check() -> None:
        async with SqlHistoryStore(f"sqlite:///{path}", load_settings(), clock=lambda: next(clock)) as store:
            await store.init()
            [mine] = await register(store, group())  # takes 1000
            source = await store.claim(topic())
            times = [await append(store, source, mine, event(at)) for at in range(4)]
            assert times == [5000, 5000, 5000, 6000]

    asyncio.run(check())


def test_values_are_in_no_message(path: Path) -> None:
    """Neither an error, nor what it was raised from, nor a log shows an event's value."""

    async def check() -> str:
        async with _history(path) as store:
            await store.init()
            [mine] = await register(store, group(features={"s": "string"}))
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("DROP TABLE history_plane")
            source = await store.claim(topic())
            with pytest.raises(OomstreamError) as caught:
                await append(store, source, mine, event(0, "secret key", 0, "secret value"))
            return f"{caught.value} {caught.value.__cause__}"

    assert "secret" not in asyncio.run(check())


def test_foreign_readers(path: Path) -> None:
    """Anybody may read the file with sqlite3 while a writer writes, and hold a read transaction open."""

    async def check() -> None:
        async with _history(path) as store:
            await store.init()
            [mine] = await register(store, group())
            source = await store.claim(topic())
            await append(store, source, mine, event(0))
            with closing(sqlite3.connect(path)) as reader:
                reader.execute("BEGIN")
                count = "SELECT count(*) FROM history_plane"
                assert reader.execute(count).fetchone() == (1,)
                await append(store, source, mine, event(1))
                assert reader.execute(count).fetchone() == (1,)
                reader.execute("COMMIT")
                assert reader.execute(count).fetchone() == (2,)

    asyncio.run(check())


def test_reader_that_may_not_write_in_the_folder_is_told() -> None:
    """A reader for whom SQLite cannot make its -shm file is told what it needs."""
    refused = sqlite3.OperationalError("attempt to write a readonly database")
    refused.sqlite_errorcode = sqlite3.SQLITE_READONLY_DIRECTORY
    url = StoreUrl.parse("sqlite:///data/online.db")
    error = SqliteDialect().error(refused, "online store", url)
    assert isinstance(error, StoreUnavailable)
    assert "give this user the right to write there" in str(error)
