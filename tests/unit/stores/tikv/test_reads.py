"""What a read for serving asks of TiKV, counted on a real server, and how old it may be."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from oomstream.schemas.online_value import OnlineRow, encode_key
from oomstream.stores.base import OnlineRead
from oomstream.stores.settings import load_settings
from oomstream.stores.tikv import process_exit, snapshots
from oomstream.stores.tikv.address import TikvAddress
from oomstream.stores.tikv.moments import Moments
from oomstream.stores.tikv.sizes import AnswerSize
from oomstream.stores.tikv.snapshots import Patience, read_youngest
from oomstream.stores.tikv.store import TikvOnlineStore
from tests.faults.tikv_rows import rows
from tests.services.tikv import TikvServer


class Counted:
    """A client that counts what goes to PD and to TiKV."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.calls: Counter[str] = Counter()

    def current_timestamp(self) -> Any:
        """One round trip to PD."""
        self.calls["timestamp"] += 1
        return self._client.current_timestamp()

    def snapshot(self, *arguments: Any) -> Counted:
        """Nothing yet."""
        made = Counted(self._client.snapshot(*arguments))
        made.calls = self.calls
        return made

    def batch_get(self, keys: list[bytes]) -> Any:
        """One round trip to TiKV, as the test's server has one region."""
        self.calls["batch_get"] += 1
        return self._client.batch_get(keys)


async def counted(url: str) -> Counted:
    """A client of a store's cluster."""
    from tikv_client.asynchronous import TransactionClient  # only where its wheel exists

    process_exit.prepare()
    client = await TransactionClient.connect(list(TikvAddress.parse(url).pd))
    return Counted(client.inner)


def test_a_read_is_two_round_trips(tikv_url: str) -> None:
    """One timestamp and one request for values, whatever the number of keys, until they are too many for one answer."""

    async def check() -> None:
        async with TikvOnlineStore(tikv_url, load_settings(tikv_driver="tikv-client")) as store:
            written = rows(256)
            await store.upsert_newer(written)
            client = await counted(tikv_url)
            moments, size, patience = Moments(), AnswerSize(), Patience()
            prefix = TikvAddress.parse(tikv_url).row_prefix

            async def read(count: int) -> None:
                moment = await moments.now_or_before(client, 0.0)
                keys = [prefix + row.key for row in written[:count]]
                found = await read_youngest(client, moment.timestamp, keys, size, patience)
                assert found == OnlineRead([row.value for row in written[:count]])

            for _ in range(40):  # it learns from answers how large rows are
                await read(30)
            for count in (1, 30, 256):
                client.calls.clear()
                await read(count)
                assert client.calls == {"timestamp": 1, "batch_get": 1}

    asyncio.run(check())


def test_reads_may_be_a_little_old_where_settings_say_so(tikv_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads for serving that follow each other share a moment and tell its age, within the bound; `read` is of now."""
    monkeypatch.setenv("OOMSTREAM_ONLINE_MAX_AGE", "10s")

    async def check() -> None:
        async with TikvOnlineStore(tikv_url, load_settings(tikv_driver="tikv-client")) as store:
            old, new = rows(3, 1), rows(3, 2)
            keys = [row.key for row in old]
            await store.upsert_newer(old)
            first = await store.read_aged(keys)
            assert first.values == [row.value for row in old]
            await store.upsert_newer(new)
            second = await store.read_aged(keys)
            assert second.values == first.values
            assert 0 <= first.age_us < second.age_us <= 10_000_000
            assert await store.read(keys) == [row.value for row in new]

    asyncio.run(check())


@pytest.mark.parametrize("tikv_driver", ["native"], indirect=True)
def test_native_reads_cost_the_same(native_tikv: TikvServer, tikv_url: str, tikv_driver: str) -> None:
    """The native client too needs one timestamp and one request a read, and none for a timestamp that it may share."""

    async def check() -> None:
        async with (
            TikvOnlineStore(tikv_url, load_settings()) as store,
            TikvOnlineStore(tikv_url, load_settings(online_max_age_us=10_000_000)) as relaxed,
        ):
            keys = [row.key for row in rows(100)]
            await store.upsert_newer(rows(100))
            await relaxed.read_aged(keys)
            for reader, timestamps in ((store, 20), (relaxed, 0)):
                before = Counter(native_tikv.control.calls())
                for _ in range(20):
                    found = await reader.read_aged(keys)
                    assert found.values == [row.value for row in rows(100)]
                    assert 0 <= found.age_us <= 10_000_000
                asked = Counter(native_tikv.control.calls()) - before
                assert asked == Counter({"KvBatchGet": 20}) + Counter({"Tso": timestamps})

    asyncio.run(check())


@pytest.mark.parametrize("tikv_driver", ["native"], indirect=True)
def test_a_native_scan_asks_few_regions(native_tikv: TikvServer, tikv_url: str, tikv_driver: str) -> None:
    """A page costs a few requests, however many regions lie behind it, also where its rows lie unevenly."""
    near = [OnlineRow(encode_key(1, b"%06d" % number), rows(1)[0].value) for number in range(2_000)]
    far = [OnlineRow(encode_key(1, bytes([64 + number])), rows(1)[0].value) for number in range(100)]
    written, regions = near + far, 40

    async def check() -> None:
        async with TikvOnlineStore(tikv_url, load_settings()) as store:
            await store.upsert_newer(written)
            prefix = TikvAddress.parse(tikv_url).row_prefix
            for row in written[:: len(written) // regions]:
                native_tikv.control.split(prefix + row.key)
            assert await store.scan(b"o", limit=3_000) == written

            before = Counter(native_tikv.control.calls())
            found: list[OnlineRow] = []
            while page := await store.scan(b"o", after=found[-1].key if found else None, limit=100):
                found += page
            assert found == written
            asked = Counter(native_tikv.control.calls()) - before
            # All regions behind each page would be 471.
            assert asked["KvScan"] < 8 * len(written) // 100 + regions

    asyncio.run(check())


def test_a_timestamp_is_used_until_its_age_and_renewed_beside_reads(tikv_url: str) -> None:
    """From half its age on the next one is asked for and taken when it is there; past its age it is not used."""

    async def check() -> None:
        now_s = 100.0
        client = await counted(tikv_url)
        calls = client.calls
        moments = Moments(clock=lambda: now_s)
        together = await asyncio.gather(*[moments.now_or_before(client, 1.0) for _ in range(3)])
        first = together[0].timestamp
        assert together == [(first, 0.0)] * 3
        assert calls["timestamp"] == 1
        now_s += 0.5
        assert await moments.now_or_before(client, 1.0) == (first, 0.5)
        assert calls["timestamp"] == 1
        now_s += 0.25
        assert await moments.now_or_before(client, 1.0) == (first, 0.75)
        assert calls["timestamp"] == 2
        assert (await moments.now_or_before(client, 0.5)).timestamp > first
        now_s += 1.1
        late = await moments.now_or_before(client, 1.0)
        assert late.age_s == 0.0
        assert calls["timestamp"] == 3
        assert (await moments.now_or_before(client, 0.0)).timestamp > late.timestamp
        assert (await moments.now_or_before(Counted(client), 1.0)).age_s == 0.0  # another client asks for itself

    asyncio.run(check())


def test_patience_grows_with_reads_under_way() -> None:
    """Older moments are tried after 30 ms, later where many read at once, after half a second at the latest."""
    patience = Patience()
    for reads, hedge_s in ((0, 0.03), (4, 0.03), (32, 0.24), (1_000, 0.5)):
        patience.reads = reads
        assert patience.hedge_s == pytest.approx(hedge_s)


def test_few_reads_try_older_moments_at_once(tikv_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many reads that are all slow, two at a time try older moments; the others go on waiting for their answer."""
    monkeypatch.setattr(snapshots, "_HEDGE_S", 0.0)
    search_older = snapshots._search

    async def check() -> None:
        async with TikvOnlineStore(tikv_url, load_settings()) as store:
            await store.upsert_newer(rows(3))
            client = await counted(tikv_url)
            timestamp = await client.current_timestamp()
            prefix = TikvAddress.parse(tikv_url).row_prefix
            keys = [prefix + row.key for row in rows(3)]
            size, patience = AnswerSize(), Patience()
            searching: list[int] = []

            async def search(*arguments: Any) -> OnlineRead:
                searching.append(patience.searches)
                return await search_older(*arguments)

            monkeypatch.setattr(snapshots, "_search", search)
            reads = [read_youngest(client, timestamp, keys, size, patience) for _ in range(50)]
            for found in await asyncio.gather(*reads):
                assert found.values == [row.value for row in rows(3)] or found.age_us
            assert (patience.reads, patience.searches) == (0, 0)
            assert set(searching) <= {1, 2}

    asyncio.run(check())
