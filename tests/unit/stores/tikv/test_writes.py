"""What a worker's batch costs on TiKV: calls of the native client, and what those ask of the servers, counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from oomstream.schemas.online_value import OnlineRow
from oomstream.stores.settings import load_settings
from oomstream.stores.tikv.native_driver import NativeDriver
from oomstream.stores.tikv.store import TikvOnlineStore
from tests.faults.tikv_rows import rows
from tests.services.tikv import TikvServer

_ONE_PHASE_BYTES = 16 * 1024
"""What one transaction of the native client writes at most."""


@pytest.mark.parametrize("tikv_driver", ["native"], indirect=True)
def test_a_batch_is_one_call(
    native_tikv: TikvServer, tikv_url: str, tikv_driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of 2,000 rows is one call; each of its transactions reads once and commits in one request."""
    begun = 0
    ended = NativeDriver._ended

    async def counted(self: NativeDriver, begin: Callable[[], int]) -> Any:
        nonlocal begun
        begun += 1
        return await ended(self, begin)

    def transactions(written: list[OnlineRow]) -> int:
        size = sum(len(each.key) + len(each.value) for each in written)
        return 1 + size // (_ONE_PHASE_BYTES // 2)

    async def check() -> None:
        async with TikvOnlineStore(tikv_url, load_settings()) as store:
            await store.upsert_newer(rows(1, 1))
            monkeypatch.setattr(NativeDriver, "_ended", counted)
            for version, count in ((2, 2_000), (3, 20)):
                nonlocal begun
                begun, written = 0, rows(count, version)
                before = Counter(native_tikv.control.calls())
                assert await store.upsert_newer(written) == count
                asked = Counter(native_tikv.control.calls()) - before
                assert begun == 1
                assert asked.keys() <= {"Tso", "KvBatchGet", "KvPrewrite"}
                assert asked["KvPrewrite"] == asked["KvBatchGet"] <= transactions(written)

    asyncio.run(check())
