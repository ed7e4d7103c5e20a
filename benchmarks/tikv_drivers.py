"""The native client of TiKV against tikv-client: upserts of batches, and reads of 100 keys, through the same store.

Only with --servers, as there is no embedded TiKV. OOMSTREAM_ONLINE_URL names it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import statistics
import time
import uuid
from collections.abc import Iterable, Sequence

from benchmarks.options import Options
from benchmarks.pairs import alternate
from benchmarks.results import Figure
from oomstream.schemas.online_value import OnlineRow, encode_key, encode_value
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.settings import load_settings
from oomstream.stores.tikv.store import TikvOnlineStore
from oomstream.stores.urls import url_with_path

_ENTITIES = 50_000
_BATCH = 500
_BODY = b"x" * 100
_KEYS = 100
_CONTENDERS = ("native", "tikv-client")


def run(options: Options) -> Iterable[Figure]:
    """Measure; nothing without servers, or without the native client."""
    if not options.servers or importlib.util.find_spec("oomstream_tikv") is None:
        print("  skipped: it needs --servers, a tikv:// OOMSTREAM_ONLINE_URL and oomstream-tikv (`make install`)")
        return
    with asyncio.Runner() as runner:
        stores = [_store(driver) for driver in _CONTENDERS]
        for store in stores:
            runner.run(store.open())
        yield from _upserts(runner, stores, options)
        yield from _reads(runner, stores, options)
        for store in stores:
            runner.run(store.close())


def _store(driver: str) -> TikvOnlineStore:
    url = url_with_path(os.environ["OOMSTREAM_ONLINE_URL"], f"bench_{uuid.uuid4().hex[:12]}")
    return TikvOnlineStore(url, load_settings(tikv_driver=driver))


def _rows(round_: int, batch: int) -> list[OnlineRow]:
    """A batch of rows that are spread over the entities, each newer than in the round before."""
    value = encode_value(Version(round_ + 1, SourceKind.TOPIC, 1, batch).pack(), 7, b"finger__", False, _BODY)
    batches = _ENTITIES // _BATCH
    return [OnlineRow(encode_key(1, b"%08d" % (at * batches + batch)), value) for at in range(_BATCH)]


def _upserts(runner: asyncio.Runner, stores: Sequence[TikvOnlineStore], options: Options) -> Iterable[Figure]:
    batches = 4 if options.quick else _ENTITIES // _BATCH
    for at_once in (1, 4):

        async def write(store: TikvOnlineStore, round_: int, at_once: int = at_once) -> float:
            slots = asyncio.Semaphore(at_once)

            async def one(rows: list[OnlineRow]) -> int:
                async with slots:
                    return await store.upsert_newer(rows)

            work = [_rows(round_ + 1_000 * at_once, batch) for batch in range(batches)]
            began = time.perf_counter()
            written = sum(await asyncio.gather(*[one(rows) for rows in work]))
            assert written == batches * _BATCH
            return written / (time.perf_counter() - began)

        label = f"upsert {at_once} at once"
        pairs = alternate(
            lambda at: runner.run(write(stores[0], at)),
            lambda at: runner.run(write(stores[1], at)),
            pairs=options.pairs,
            label=label,
        )
        what = f"upserts of {_BATCH} rows of 100 bytes, {at_once} at once"
        yield Figure("tikv_drivers", what, "TiKV", "rows/s", pairs.ours, "tikv-client", pairs.yardstick)


def _reads(runner: asyncio.Runner, stores: Sequence[TikvOnlineStore], options: Options) -> Iterable[Figure]:
    calls = 20 if options.quick else 300
    keys = [row.key for row in _rows(0, 0)[:_KEYS]]

    async def read(store: TikvOnlineStore) -> float:
        took = []
        for _ in range(calls):
            began = time.perf_counter()
            found = await store.read_aged(keys)
            took.append(time.perf_counter() - began)
            assert None not in found.values
        return statistics.median(took) * 1e3

    pairs = alternate(
        lambda at: runner.run(read(stores[0])),
        lambda at: runner.run(read(stores[1])),
        pairs=options.pairs,
        label="read",
    )
    what = f"a read of {_KEYS} keys"
    yield Figure("tikv_drivers", what, "TiKV", "ms p50", pairs.ours, "tikv-client", pairs.yardstick, "less")
