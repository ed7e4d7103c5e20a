"""Rows that are large: answers beyond the 4 MiB that the client takes, and what TiKV itself refuses."""

from __future__ import annotations

import asyncio

import pytest

from oomstream.schemas.errors import Fatal
from oomstream.stores.settings import load_settings
from oomstream.stores.tikv.store import TikvOnlineStore
from tests.faults.tikv_rows import rows
from tests.services.tikv import TikvServer

pytestmark = pytest.mark.usefixtures("tikv_driver")


@pytest.mark.parametrize(("count", "row_bytes"), [(2_000, 9_000), (24, 1_000_000)])
def test_large_rows(tikv_url: str, count: int, row_bytes: int) -> None:
    """Rows of any size are written, read, scanned and compared, by a store that has not seen any yet."""

    async def check() -> None:
        first, second = rows(count, 1, b"a" * row_bytes), rows(count, 2, b"b" * row_bytes)
        keys = [row.key for row in first]
        async with TikvOnlineStore(tikv_url, load_settings()) as store:
            assert await store.upsert_newer(first) == count
            assert await store.upsert_newer(first) == 0
        async with TikvOnlineStore(tikv_url, load_settings()) as store:
            assert await store.read(keys) == [row.value for row in first]
        async with TikvOnlineStore(tikv_url, load_settings()) as store:
            assert await store.scan(b"o", limit=count + 1) == first
            assert await store.upsert_newer(second) == count
            assert (await store.read_aged(keys)).values == [row.value for row in second]

    asyncio.run(check())


def test_few_large_rows_among_small_ones(tikv_url: str) -> None:
    """After many small answers, a request that meets large rows is too large at first, and is made again smaller."""

    async def check() -> None:
        small, large = rows(2_000), rows(2_000, 2, b"x" * 200_000)[500:560]
        async with (
            TikvOnlineStore(tikv_url, load_settings()) as store,
            TikvOnlineStore(tikv_url, load_settings()) as other,
        ):
            await store.upsert_newer(small)
            keys = [row.key for row in small]
            await store.read(keys)
            await other.upsert_newer(large)
            expected = {row.key: row.value for row in small + large}
            assert await store.read(keys) == list(expected.values())
            assert dict(await store.scan(b"o", limit=3_000)) == expected

    asyncio.run(check())


def test_row_that_tikv_refuses(tikv_server: TikvServer, tikv_url: str) -> None:
    """A row that is larger than TiKV takes stops the writer with a sentence, since trying again cannot help."""

    async def check() -> None:
        async with TikvOnlineStore(tikv_url, load_settings()) as store:
            with pytest.raises(Fatal, match=r"TiKV refuses a row for its size; raise raftstore\.raft-entry-max-size"):
                await store.upsert_newer(rows(1, body=b"x" * 9_000_000))
            assert await store.read([rows(1)[0].key]) == [None]

    asyncio.run(check())
