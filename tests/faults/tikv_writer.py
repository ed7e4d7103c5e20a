"""A program that writes rows to TiKV until it is killed: ``python -m tests.faults.tikv_writer URL ROWS EVENT_TIME``.

It prints a line when it is ready, and writes when it is sent one.
"""

from __future__ import annotations

import asyncio
import sys

from oomstream.stores.settings import load_settings
from oomstream.stores.tikv.store import TikvOnlineStore
from tests.faults.tikv_rows import rows


async def _main(url: str, count: int, event_time_us: int) -> None:
    async with TikvOnlineStore(url, load_settings()) as store:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await store.upsert_newer(rows(count, event_time_us))
        print("written", flush=True)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
