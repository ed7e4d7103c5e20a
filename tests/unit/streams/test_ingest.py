"""The pipeline loses nothing, doubles nothing and keeps the newest, whatever the batches and the outages are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.errors import DlqLimitReached, Fatal, Fenced, InvalidEvent, LostRange, Reason, StoreUnavailable
from oomstream.schemas.events import RawRecord
from oomstream.schemas.framing import EVENT_TIME_HEADER
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import OnlineRow, decode_value, encode_key
from oomstream.schemas.plan import make_plan
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import HistoryBatch, HistoryRow, Source, SourceName
from oomstream.stores.catalog_cache import CatalogCache
from oomstream.stores.settings import Settings, load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.sql.online import SqlOnlineStore
from oomstream.streams.backoff import Backoff
from oomstream.streams.dead_letters import DeadLetter, DeadLetterSink
from oomstream.streams.ingest import SourceIngest

T0 = 1_700_000_000_000_000
GROUP = group_from_avsc(
    {
        "type": "record",
        "name": "reading",
        "entity": "sensor",
        "keys": ["sensor_id"],
        "event_time": "at",
        "fields": [
            {"name": "sensor_id", "type": "string"},
            {"name": "at", "type": "long", "unit": "us"},
            {"name": "value", "type": ["null", "double"]},
        ],
    }
)
NAME = SourceName(SourceKind.TOPIC, "reading", "incarnation-1", 0)


@dataclass
class KeptLetters(DeadLetterSink):
    """Dead letters in a list; fails the given number of times first."""

    letters: list[DeadLetter] = field(default_factory=list)
    failures: int = 0

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("dead-letter topic is down")
        self.letters.extend(letters)


class UnreliableHistory(SqlHistoryStore):
    """The real store, whose append fails when told, before or after the commit."""

    faults: list[str]

    async def append(self, source: Source, batch: HistoryBatch) -> int:
        fault = self.faults.pop() if self.faults else "none"
        if fault == "before":
            raise StoreUnavailable("connection lost before COMMIT")
        ingest_time_us = await super().append(source, batch)
        if fault == "after":
            raise StoreUnavailable("connection lost during COMMIT")
        return ingest_time_us


class UnreliableOnline(SqlOnlineStore):
    """The real store, which fails when told, having written a part."""

    faults: list[int]

    async def upsert_newer(self, rows: Sequence[OnlineRow], *, or_equal: bool = False) -> int:
        if self.faults:
            await super().upsert_newer(rows[: self.faults.pop()])
            raise StoreUnavailable("connection lost in the middle of an online batch")
        return await super().upsert_newer(rows, or_equal=or_equal)


async def no_wait(seconds: float) -> None:
    """A sleep that lets others run, and no more."""
    await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backoff waits no real time."""

    async def wait(self: Backoff, error: StoreUnavailable) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(Backoff, "wait", wait)


class House:
    """Real stores in a folder, with one registered group."""

    def __init__(self, folder: Path, **overrides: Any) -> None:
        self.settings: Settings = load_settings(data_dir=folder, **overrides)
        self.history = UnreliableHistory(self.settings.history, self.settings)
        self.online = UnreliableOnline(self.settings.online, self.settings)
        self.history.faults, self.online.faults = [], []
        self.sink = KeptLetters()

    async def __aenter__(self) -> House:
        await self.history.open()
        await self.online.open()
        await self.history.init()
        await self.online.init()
        await self.history.apply(make_plan(await self.history.load_catalog(), [GROUP]))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.online.close()
        await self.history.close()

    def pipeline(self, name: SourceName = NAME) -> SourceIngest:
        return SourceIngest(
            history=self.history,
            online=self.online,
            catalog=CatalogCache(self.history, sleep=no_wait),
            dead_letters=self.sink,
            name=name,
            settings=self.settings,
        )

    async def rows(self) -> list[HistoryRow]:
        group = (await self.history.load_catalog()).group("reading")
        rows: list[HistoryRow] = []
        for source in await self.history.sources():
            rows += await self.history.rows_of_source(group, source.id, 0, 1 << 40)
        return rows

    async def online_versions(self) -> dict[str, tuple[int, int, bool]]:
        group = (await self.history.load_catalog()).group("reading")
        found = {}
        for key in "abc":
            (value,) = await self.online.read([encode_key(group.id, encode_entity((key,)))])
            if value is not None:
                decoded = decode_value(value)
                found[key] = (decoded.version.event_time_us, decoded.version.sequence, decoded.deleted)
        return found


def valid(offset: int, key: str, at: int, value: float | None = 1.0) -> RawRecord:
    """A valid JSON event."""
    body = orjson.dumps({"sensor_id": key, "at": T0 + at, "value": value})
    return RawRecord(offset, key.encode(), body, T0 // 1000 + 10)


def tombstone(offset: int, key: str, at: int) -> RawRecord:
    """A delete."""
    return RawRecord(offset, key.encode(), None, T0 // 1000 + 10, ((EVENT_TIME_HEADER, str(T0 + at).encode()),))


def garbage(offset: int) -> RawRecord:
    """Something that is no event."""
    return RawRecord(offset, b"k", b"\x07garbage", T0 // 1000, (("h", b"1"),))


ITEMS = st.lists(
    st.one_of(
        st.tuples(st.just("valid"), st.sampled_from("abc"), st.integers(0, 5)),
        st.tuples(st.just("delete"), st.sampled_from("abc"), st.integers(0, 5)),
        st.tuples(st.just("garbage"), st.just(""), st.just(0)),
    ),
    max_size=40,
)


def make_log(items: Sequence[tuple[str, str, int]]) -> list[RawRecord]:
    """Records of a log, with gaps between offsets as transaction markers leave them."""
    make = {"valid": valid, "delete": tombstone, "garbage": lambda offset, *_: garbage(offset)}
    return [make[kind](2 * number, key, at) for number, (kind, key, at) in enumerate(items)]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    items=ITEMS,
    cuts=st.lists(st.integers(1, 7), min_size=40, max_size=40),
    history_faults=st.lists(st.sampled_from(["none", "before", "after"]), max_size=15),
    online_faults=st.lists(st.integers(0, 2), max_size=6),
    restarts=st.sets(st.integers(0, 39)),
)
def test_any_batches_any_outages(
    tmp_path_factory: pytest.TempPathFactory,
    items: list[tuple[str, str, int]],
    cuts: list[int],
    history_faults: list[str],
    online_faults: list[int],
    restarts: set[int],
) -> None:
    """Every valid event is in history once, online is the greatest version, every invalid one is a dead letter."""
    log = make_log(items)

    async def scenario() -> None:
        async with House(tmp_path_factory.mktemp("house"), dlq_max_consecutive=0, dlq_max_ratio=1.0) as house:
            house.history.faults, house.online.faults = list(history_faults), list(online_faults)
            end = log[-1].offset + 1 if log else 0
            pipeline = house.pipeline()
            position = await pipeline.start(0, end, begin=0)
            for number, size in enumerate(cuts):
                batch = [record for record in log if record.offset >= position][:size]
                if batch:
                    await pipeline.ingest(batch)
                    position = batch[-1].offset + 1
                if number in restarts:
                    # A new owner begins where the database says, though the log repeats what was not acknowledged.
                    pipeline = house.pipeline()
                    position = await pipeline.start(0, end, begin=0)
            await check(house, items)

    asyncio.run(scenario())


async def check(house: House, items: Sequence[tuple[str, str, int]]) -> None:
    """Compare stores and dead letters with what the log holds, by obvious means."""
    expected = [
        (key, T0 + at, 2 * number, kind == "delete")
        for number, (kind, key, at) in enumerate(items)
        if kind != "garbage"
    ]
    rows = await house.rows()
    assert sorted((row.key[0], row.event_time_us, row.sequence, row.deleted) for row in rows) == sorted(expected)
    newest: dict[str, tuple[int, int, bool]] = {}
    for key, at, sequence, deleted in expected:
        newest[key] = max(newest.get(key, (0, 0, False)), (at, sequence, deleted))
    assert await house.online_versions() == newest
    letters = {letter.identity for letter in house.sink.letters}
    assert letters == {("incarnation-1", 0, 2 * n) for n, (kind, *_) in enumerate(items) if kind == "garbage"}


def test_dead_letter_is_exact(tmp_path: Path) -> None:
    """A dead letter has the original key, value and headers, and a stable reason code."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            pipeline = house.pipeline()
            await pipeline.start(0, 10, begin=0)
            await pipeline.ingest([garbage(4)])
            (letter,) = house.sink.letters
            assert (letter.key, letter.value, letter.headers) == (b"k", b"\x07garbage", (("h", b"1"),))
            assert (letter.stage, letter.reason) == ("decode", Reason.UNKNOWN_FRAMING)
            assert pipeline.next_offset == 5

    asyncio.run(scenario())


def test_zombie_is_fenced(tmp_path: Path) -> None:
    """A pipeline whose source was claimed by another writes nothing more to history."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            zombie, owner = house.pipeline(), house.pipeline()
            await zombie.start(0, 10, begin=0)
            await owner.start(0, 10, begin=0)
            with pytest.raises(Fenced):
                await zombie.ingest([valid(0, "a", 1)])
            assert await house.rows() == []
            await owner.ingest([valid(0, "a", 1)])
            await zombie.flush()
            assert len(await house.rows()) == 1

    asyncio.run(scenario())


def test_outage_does_not_steal_the_source_back(tmp_path: Path) -> None:
    """After an outage a pipeline that has lost its source in the meantime finds out, instead of claiming it again."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            zombie, owner = house.pipeline(), house.pipeline()
            await zombie.start(0, 10, begin=0)
            await owner.start(0, 10, begin=0)
            house.history.faults = ["before"]
            with pytest.raises(Fenced):
                await zombie.ingest([valid(0, "a", 1)])
            await owner.ingest([valid(0, "a", 1)])

    asyncio.run(scenario())


def test_guilty_row_alone_becomes_a_letter(tmp_path: Path) -> None:
    """Of 50 rows, the one that the database rejects for its data is dead-lettered; 49 are stored (case 15)."""

    class Picky(UnreliableHistory):
        async def append(self, source: Source, batch: HistoryBatch) -> int:
            if any(event.sequence == 33 for event in batch.events):
                raise InvalidEvent(Reason.REJECTED_BY_STORE, "value too long for column")
            return await super().append(source, batch)

    async def scenario() -> None:
        async with House(tmp_path) as house:
            house.history.__class__ = Picky
            pipeline = house.pipeline()
            await pipeline.start(0, 50, begin=0)
            await pipeline.ingest([valid(n, "abc"[n % 3], n) for n in range(50)])
            assert sorted(row.sequence for row in await house.rows()) == [n for n in range(50) if n != 33]
            (letter,) = house.sink.letters
            assert (letter.offset, letter.stage, letter.reason) == (33, "store", Reason.REJECTED_BY_STORE)
            assert await house.online_versions() == {
                "a": (T0 + 48, 48, False), "b": (T0 + 49, 49, False), "c": (T0 + 47, 47, False)
            }  # fmt: skip

    asyncio.run(scenario())


def test_limit_survives_a_restart(tmp_path: Path) -> None:
    """A bad topic does not pour into the dead-letter topic piece by piece over restarts: the limit remembers."""

    async def pour(pipeline: SourceIngest, position: int) -> None:
        for start in range(position, 100, 4):
            await pipeline.ingest([garbage(n) for n in range(start, start + 4)])

    async def scenario() -> None:
        async with House(tmp_path, dlq_max_consecutive=10) as house:
            for _ in range(5):
                pipeline = house.pipeline()
                position = await pipeline.start(0, 100, begin=0)
                with pytest.raises(DlqLimitReached):
                    await pour(pipeline, position)
            assert sorted({letter.offset for letter in house.sink.letters}) == list(range(8))

    asyncio.run(scenario())


def test_lost_range_is_named(tmp_path: Path) -> None:
    """A position that the log no longer holds stops the start with the range, or is skipped when told to."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            pipeline = house.pipeline()
            await pipeline.start(0, 5, begin=0)
            await pipeline.ingest([valid(n, "a", n) for n in range(5)])
            with pytest.raises(LostRange, match=r"reading\[0\].*offsets 5 to 8 .*begins at 9"):
                await house.pipeline().start(9, 20, begin=0)
            with pytest.raises(LostRange, match="position is 5, but the log ends at 3"):
                await house.pipeline().start(0, 3, begin=0)
        async with House(tmp_path, on_lost_range="skip") as house:
            assert await house.pipeline().start(9, 20, begin=0) == 9
            assert await house.pipeline().start(9, 20, begin=0) == 9

    asyncio.run(scenario())


def test_dlq_outage_acknowledges_nothing(tmp_path: Path) -> None:
    """While the dead-letter topic is down, the position stays; afterwards the batch goes on."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            pipeline = house.pipeline()
            await pipeline.start(0, 5, begin=0)
            house.sink.failures = 3
            await pipeline.ingest([garbage(0), valid(1, "a", 1)])
            assert len(house.sink.letters) == 1
            assert len(await house.rows()) == 1

    asyncio.run(scenario())


def test_ingest_before_start_is_a_programming_error(tmp_path: Path) -> None:
    """Nothing is written by a pipeline that has not claimed its source."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            with pytest.raises(Fatal):
                await house.pipeline().ingest([valid(0, "a", 1)])

    asyncio.run(scenario())
