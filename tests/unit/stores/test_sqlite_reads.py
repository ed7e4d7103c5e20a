"""Online reads straight from SQLite: from any thread, of one moment, while a writer writes."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from oomstream.schemas.errors import InvalidSetting
from oomstream.schemas.online_value import decode_value
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.online import SqlOnlineStore
from oomstream.stores.testing.online import row


def _store(tmp_path: Path) -> SqlOnlineStore:
    return SqlOnlineStore(f"sqlite:///{tmp_path / 'o.db'}", load_settings())


def test_many_threads_read_while_one_writes(tmp_path: Path) -> None:
    """Each answer is of one moment (all keys of one batch), versions only rise, and no thread meets an error."""
    keys = [row(f"k{at}", 0).key for at in range(20)]
    failures: list[object] = []
    done = threading.Event()

    def read(store: SqlOnlineStore) -> None:
        seen = 0
        try:
            while not done.is_set():
                times = {decode_value(value).version.event_time_us for value in store.read_sync(keys) if value}
                assert len(times) == 1
                assert seen <= min(times)
                seen = min(times)
        except BaseException as exc:
            failures.append(exc)

    async def check() -> None:
        async with _store(tmp_path) as store:
            await store.init()
            await store.upsert_newer([row(f"k{at}", 0) for at in range(20)])
            threads = [threading.Thread(target=read, args=(store,)) for _ in range(6)]
            for thread in threads:
                thread.start()
            for turn in range(1, 60):
                await store.upsert_newer([row(f"k{at}", turn) for at in range(20)])
                assert {decode_value(value).version.event_time_us for value in await store.read(keys) if value} == {
                    turn
                }
            done.set()
            for thread in threads:
                thread.join()

    asyncio.run(check())
    assert failures == []


@pytest.mark.parametrize("count", [1, 2, 3, 64, 65, 16_384, 16_385, 40_000])
def test_any_number_of_keys(tmp_path: Path, count: int) -> None:
    """However a request is split into statements, each key gets its own value."""
    rows = [row(f"k{at}", 0, body=str(at).encode()) for at in range(0, count, 2)]

    async def check() -> None:
        async with _store(tmp_path) as store:
            await store.init()
            await store.upsert_newer(rows)
            keys = [row(f"k{at}", 0).key for at in range(count)]
            stored = {each.key: each.value for each in rows}
            expected = [stored.get(key) for key in keys]
            assert store.read_sync(keys) == expected
            assert await store.read(keys) == expected

    asyncio.run(check())


def test_closed_store_says_so(tmp_path: Path) -> None:
    """Reading a store that is not open is an error of the caller's, named as such."""
    store = _store(tmp_path)

    async def check() -> None:
        async with store:
            await store.init()
            assert store.read_sync([b"x"]) == [None]
        with pytest.raises(InvalidSetting, match="not open"):
            store.read_sync([b"x"])
        with pytest.raises(InvalidSetting, match="not open"):
            await store.scan(b"")

    asyncio.run(check())
