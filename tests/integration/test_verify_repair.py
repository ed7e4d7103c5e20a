"""Each way in which online can differ from history is named by verify, and mended by repair, on all stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import orjson
import pytest

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.events import RawRecord
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import OnlineRow, OnlineValue, decode_value, encode_key, encode_value, key_prefix
from oomstream.stores.base import OnlineChange, OnlineStore
from oomstream.streams.judging import Finding
from oomstream.streams.repair import Repairer, Scope, repair
from oomstream.streams.verify import Verification, Verifier
from tests.integration.backends import Backends, prepare_async
from tests.integration.planting import Planting
from tests.unit.streams.house import GROUP, T0, House, UnreliableOnline, no_wait, tombstone, valid

KEYS = [f"k{number}" for number in range(40)]


class Rows:
    """A house with forty entities of three events each, some deleted, and a way around its stores.

    Attributes:
        house: The stores.
        planting: The way around them.
        registered: The group.
    """

    def __init__(self, house: House, registered: RegisteredGroup) -> None:
        self.house = house
        self.registered = registered
        self.planting = Planting(house.settings)

    def stored_key(self, key: str) -> bytes:
        """Online key of an entity."""
        return encode_key(self.registered.group.id, encode_entity((key,)))

    async def online(self) -> dict[bytes, bytes]:
        """Every online row."""
        rows = await self.house.online.scan(key_prefix(self.registered.group.id), limit=10_000)
        return {row.key: row.value for row in rows}

    async def value(self, key: str) -> bytes:
        """What an entity has online."""
        [value] = await self.house.online.read([self.stored_key(key)])
        assert value is not None
        return value

    async def verify(self) -> Verification:
        """Verify without waiting."""
        return await Verifier(self.house.history, self.house.online, sleep=no_wait).verify(self.registered)


@asynccontextmanager
async def rows_on(backends: Backends) -> AsyncIterator[Rows]:
    """Empty stores, filled."""
    fresh = backends.fresh()
    fresh.data_dir.mkdir()
    async with House(fresh.data_dir, history_url=fresh.history_url, online_url=fresh.online_url) as house:
        pipeline = house.pipeline()
        await pipeline.start(0, 120, begin=0)
        events = [valid(at, KEYS[at % 40], 100 - at, float(at)) for at in range(80)]
        await pipeline.ingest(events)
        late = [valid(at, KEYS[at % 40], at) if at % 10 else tombstone(at, KEYS[at % 40], at) for at in range(80, 120)]
        await pipeline.ingest(late)
        await pipeline.flush()
        yield Rows(house, (await house.history.load_catalog()).groups["reading"])


def changed(value: OnlineValue, body: bytes | None = None, **version: int) -> bytes:
    """An online value with another version or body."""
    return encode_value(
        value.version._replace(**version).pack(),
        value.ingest_time_us,
        value.fingerprint,
        value.deleted,
        value.body if body is None else body,
    )


async def remove(rows: Rows, key: str) -> None:
    """The row is gone."""
    await rows.planting.remove_online(rows.stored_key(key))


async def rewind(rows: Rows, key: str) -> None:
    """The row is that of an older event."""
    value = decode_value(await rows.value(key))
    older = changed(value, event_time_us=value.version.event_time_us - 1, sequence=0)
    await rows.planting.put_online(rows.stored_key(key), older)


async def invent_newer(rows: Rows, key: str) -> None:
    """The row is of an event that history does not have, newer than all that it has."""
    value = decode_value(await rows.value(key))
    await rows.planting.put_online(rows.stored_key(key), changed(value, event_time_us=T0 * 2))


async def invent_sequence(rows: Rows, key: str) -> None:
    """The row has the right time and a sequence that history does not have."""
    value = decode_value(await rows.value(key))
    await rows.planting.put_online(rows.stored_key(key), changed(value, sequence=value.version.sequence + 1_000))


async def invent_source(rows: Rows, key: str) -> None:
    """The row is of a source that does not exist."""
    value = decode_value(await rows.value(key))
    await rows.planting.put_online(rows.stored_key(key), changed(value, source_id=99))


async def falsify(rows: Rows, key: str) -> None:
    """The row has the right version and another value."""
    value = decode_value(await rows.value(key))
    body = value.body[:-1] + bytes([value.body[-1] ^ 1])
    await rows.planting.put_online(rows.stored_key(key), changed(value, body))


async def misdate(rows: Rows, key: str) -> None:
    """The row says that it was ingested at another time."""
    value = await rows.value(key)
    stored = decode_value(value)
    other = encode_value(stored.version.pack(), 1, stored.fingerprint, stored.deleted, stored.body)
    await rows.planting.put_online(rows.stored_key(key), other)


async def bury(rows: Rows, key: str) -> None:
    """The row says that the entity was deleted."""
    stored = decode_value(await rows.value(key))
    dead = encode_value(stored.version.pack(), stored.ingest_time_us, stored.fingerprint, True, b"")
    await rows.planting.put_online(rows.stored_key(key), dead)


async def cut(rows: Rows, key: str) -> None:
    """The body is cut off."""
    await rows.planting.put_online(rows.stored_key(key), (await rows.value(key))[:-3])


async def scribble(rows: Rows, key: str) -> None:
    """The value is nothing of ours, and greater than any version."""
    await rows.planting.put_online(rows.stored_key(key), b"\xff" * 30)


FAULTS = [
    (remove, Finding.MISSING),
    (rewind, Finding.OLDER),
    (invent_newer, Finding.UNKNOWN),
    (invent_sequence, Finding.UNKNOWN),
    (invent_source, Finding.UNKNOWN),
    (falsify, Finding.DIFFERENT),
    (misdate, Finding.DIFFERENT),
    (bury, Finding.DIFFERENT),
    (cut, Finding.UNREADABLE),
    (scribble, Finding.UNREADABLE),
]


@pytest.mark.parametrize(("plant", "finding"), FAULTS)
def test_each_fault_is_named_and_mended(
    backends: Backends, plant: Callable[[Rows, str], Awaitable[None]], finding: Finding
) -> None:
    """A fault planted around the product is named; a dry run says it; repair brings back the bytes, and no others."""

    async def scenario() -> None:
        async with rows_on(backends) as rows:
            before = await rows.online()
            clean = await rows.verify()
            assert (clean.entities, clean.differing, clean.moving, clean.positions) == (40, 0, 0, {1: 120})
            await plant(rows, "k7")
            planted = await rows.online()
            assert planted != before
            found = await rows.verify()
            assert [(each.key, each.finding) for each in found.first] == [(("k7",), finding)]
            assert (found.entities, found.differing) == (40, 1)
            dry = await Repairer(rows.house.history, rows.house.online, dry_run=True).repair(rows.registered)
            assert await rows.online() == planted
            done = await repair(rows.house.history, rows.house.online, rows.registered)
            assert dict(dry.found) == dict(done.found) == {finding: 1}
            assert await rows.online() == before
            assert (await rows.verify()).differing == 0

    asyncio.run(scenario())


def test_rows_of_nobody(backends: Backends) -> None:
    """Entities that history never had, and a key that is no entity's, are named and removed; nothing else is."""

    async def scenario() -> None:
        async with rows_on(backends) as rows:
            before = await rows.online()
            strays = [rows.stored_key("k7 "), rows.stored_key("zz"), key_prefix(rows.registered.group.id) + b"\x09"]
            for stray in strays:
                await rows.planting.put_online(stray, before[rows.stored_key("k7")])
            found = await rows.verify()
            assert {each.finding for each in found.first} == {Finding.UNKNOWN}
            assert {each.key for each in found.first} == {("k7 ",), ("zz",), (strays[2],)}
            assert found.entities == 43
            done = await repair(rows.house.history, rows.house.online, rows.registered)
            assert (done.entities, done.written, done.removed) == (43, 0, 3)
            assert await rows.online() == before

    asyncio.run(scenario())


def test_lost_online_store_is_filled(backends: Backends) -> None:
    """After `init` on an empty online store repair fills it, byte for byte, deletes included."""

    async def scenario() -> None:
        async with rows_on(backends) as rows:
            before = await rows.online()
            await rows.house.online.delete(list(before))
            done = await repair(rows.house.history, rows.house.online, rows.registered)
            assert (done.entities, done.written, done.removed) == (40, 40, 0)
            assert await rows.online() == before
            again = await repair(rows.house.history, rows.house.online, rows.registered)
            assert (again.entities, again.written) == (40, 0)

    asyncio.run(scenario())


def test_only_what_was_asked_for_is_repaired(backends: Backends) -> None:
    """Keys bound what is repaired, and so does a span of event time: entities that have a row in it, old or new."""

    async def scenario() -> None:
        async with rows_on(backends) as rows:
            before = await rows.online()

            async def left(scope: Scope) -> set[str]:
                """Entities still missing after a repair of the scope, when all were."""
                await rows.house.online.delete(list(before))
                done = await repair(rows.house.history, rows.house.online, rows.registered, scope)
                after = await rows.online()
                assert after.items() <= before.items()
                assert done.written == len(after)
                return {key for key in KEYS if rows.stored_key(key) not in after}

            assert await left(Scope(keys=[("k3",), ("nobody",), ("k3",), ("k5",)])) == set(KEYS) - {"k3", "k5"}
            # The first events, of sequences 0 to 79, happened at T0 + 100 - sequence; the last at T0 + sequence.
            assert await left(Scope(since_us=T0 + 118)) == set(KEYS) - {"k38", "k39"}
            assert await left(Scope(until_us=T0 + 23)) == set(KEYS) - {"k38", "k39"}
            assert await left(Scope(since_us=T0 + 21, until_us=T0 + 23)) == set(KEYS) - {"k38", "k39"}
            assert await left(Scope(since_us=T0 + 200)) == set(KEYS)
            assert await left(Scope()) == set()

    asyncio.run(scenario())


def test_strays_in_a_span_of_time(backends: Backends) -> None:
    """A row that history does not have is removed by a repair of the span in which it lies, and by no other."""

    async def scenario() -> None:
        async with rows_on(backends) as rows:
            before = await rows.online()
            value = changed(decode_value(await rows.value("k7")), event_time_us=T0 + 5_000)
            await rows.planting.put_online(rows.stored_key("zz"), value)
            await rows.planting.put_online(rows.stored_key("k7"), value)
            history, online = rows.house.history, rows.house.online
            assert (await repair(history, online, rows.registered, Scope(since_us=T0 + 5_001))).removed == 0
            done = await repair(history, online, rows.registered, Scope(since_us=T0 + 5_000))
            assert (done.entities, done.removed) == (2, 2)
            assert await rows.online() == before

    asyncio.run(scenario())


def test_beside_a_running_writer(backends: Backends) -> None:
    """While a writer moves entities on, repair mends what was planted, and no other row is ever missing or older."""

    async def scenario() -> None:
        async with rows_on(backends) as rows:
            for at, (plant, _) in enumerate(FAULTS * 2):
                await plant(rows, f"k{1 + at + at // 9}")  # the tenth ones are deleted
            for stray in ("zz", "a"):
                await rows.planting.put_online(rows.stored_key(stray), await rows.value("k39"))
            ended = asyncio.Event()
            await asyncio.gather(write(rows, ended), repair_until(rows, ended), watch(rows, ended))
            await repair(rows.house.history, rows.house.online, rows.registered)
            found = await rows.verify()
            assert (found.entities, found.differing, found.moving) == (40, 0, 0)

    asyncio.run(scenario())


async def write(rows: Rows, ended: asyncio.Event) -> None:
    """Move every entity on, again and again."""
    pipeline = rows.house.pipeline()
    at = await pipeline.start(0, 10_000, begin=0)
    for _ in range(40):
        await pipeline.ingest([valid(at + number, KEYS[number * 7 % 40], at + number) for number in range(20)])
        at += 20
    await pipeline.flush()
    ended.set()


async def repair_until(rows: Rows, ended: asyncio.Event) -> None:
    """Repair without a pause."""
    while not ended.is_set():
        await repair(rows.house.history, rows.house.online, rows.registered)


async def watch(rows: Rows, ended: asyncio.Event) -> None:
    """See that entities without a planted fault are always online, in versions that only rise."""
    keys = [rows.stored_key(f"k{number}") for number in range(25, 40)]
    last = [b""] * len(keys)
    while not ended.is_set():
        for at, value in enumerate(await rows.house.online.read(keys)):
            assert value is not None
            packed = decode_value(value).version.pack()
            assert packed >= last[at]
            last[at] = packed
        await asyncio.sleep(0)


def test_a_newer_row_that_a_stray_turned_away(backends: Backends) -> None:
    """What a worker wrote while a row of greater, unknown version stood there is online after repair."""

    async def scenario() -> None:
        async with rows_on(backends) as rows:
            await invent_newer(rows, "k7")
            stray = await rows.value("k7")
            pipeline = rows.house.pipeline()
            await pipeline.start(0, 200, begin=0)
            await pipeline.ingest([valid(120, "k7", 500, 2.5)])
            assert await rows.value("k7") == stray
            assert (await repair(rows.house.history, rows.house.online, rows.registered)).removed == 1
            assert decode_value(await rows.value("k7")).version.sequence == 120

    asyncio.run(scenario())


class Meddled(UnreliableOnline):
    """The store, with something that happens just before rows are scanned, or replaced, for the first time."""

    def __init__(
        self,
        store: OnlineStore,
        *,
        before_scan: Callable[[], Awaitable[None]] | None = None,
        before_replace: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(store)
        self._before_scan = before_scan
        self._before_replace = before_replace

    async def scan(self, prefix: bytes, *, after: bytes | None = None, limit: int = 1000) -> list[OnlineRow]:
        before, self._before_scan = self._before_scan, None
        if before is not None:
            await before()
        return await super().scan(prefix, after=after, limit=limit)

    async def replace(self, changes: Sequence[OnlineChange]) -> int:
        before, self._before_replace = self._before_replace, None
        if before is not None:
            await before()
        return await super().replace(changes)


def test_what_a_worker_writes_after_the_look_at_history_is_no_stray(backends: Backends) -> None:
    """A row newer than the history that was just read is not taken for unknown, neither by repair nor by verify."""

    async def scenario() -> None:
        async with rows_on(backends) as rows:
            pipeline = rows.house.pipeline()
            await pipeline.start(0, 200, begin=0)

            def meddled(at: int) -> Meddled:
                events = [valid(at, "k7", 500 + at), valid(at + 1, f"new{at}", 500)]
                return Meddled(rows.house.online, before_scan=lambda: pipeline.ingest(events))

            done = await repair(rows.house.history, meddled(120), rows.registered)
            assert (done.written, done.removed) == (0, 0)
            found = await Verifier(rows.house.history, meddled(122), sleep=no_wait).verify(rows.registered)
            assert (found.differing, found.moving) == (0, 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("lost", [False, True])
def test_definition_that_changes_meanwhile(backends: Backends, lost: bool) -> None:
    """What workers write under a definition that is published meanwhile is no difference, and keeps its new values."""

    async def scenario() -> None:
        async with rows_on(backends) as rows:
            pipeline = rows.house.pipeline()
            await pipeline.start(0, 200, begin=0)
            changed_group = group_from_avsc(
                {**GROUP.schema, "fields": [*GROUP.schema["fields"], {"name": "unit", "type": ["null", "string"]}]}
            )

            async def redefine() -> None:
                await prepare_async(rows.house.settings, [changed_group])
                body = {"sensor_id": "k7", "at": T0 + 500, "value": 1.5, "unit": "C"}
                await pipeline.ingest([RawRecord(120, None, orjson.dumps(body), T0 // 1000)])
                if lost:
                    await remove(rows, "k7")

            if lost:
                await remove(rows, "k8")
                await repair(rows.house.history, Meddled(rows.house.online, before_scan=redefine), rows.registered)
            else:
                online = Meddled(rows.house.online, before_scan=redefine)
                found = await Verifier(rows.house.history, online, sleep=no_wait).verify(rows.registered)
                assert found.differing == 0
                await repair(rows.house.history, rows.house.online, rows.registered)
            codec = BodyCodec((await rows.house.history.load_catalog()).groups["reading"])
            value = decode_value(await rows.value("k7"))
            assert codec.read(value.fingerprint, value.body) == (1.5, "C")
            assert decode_value(await rows.value("k8")).version.sequence == 8

    asyncio.run(scenario())


def test_a_newer_row_that_a_stray_turns_away_meanwhile(backends: Backends) -> None:
    """The same, when the worker writes between the look at history and the change: the entity is looked at again."""

    async def scenario() -> None:
        async with rows_on(backends) as rows:
            await invent_newer(rows, "k7")
            pipeline = rows.house.pipeline()
            await pipeline.start(0, 200, begin=0)
            online = Meddled(rows.house.online, before_replace=lambda: pipeline.ingest([valid(120, "k7", 500, 2.5)]))
            done = await repair(rows.house.history, online, rows.registered)
            assert (done.removed, done.written) == (1, 1)
            assert decode_value(await rows.value("k7")).version.sequence == 120

    asyncio.run(scenario())


def test_what_a_worker_writes_meanwhile_is_not_removed(backends: Backends) -> None:
    """An entity that history did not have a moment ago, and for which a worker writes its first event, stays."""

    async def scenario() -> None:
        async with rows_on(backends) as rows:
            await rows.planting.put_online(rows.stored_key("zz"), await rows.value("k7"))
            pipeline = rows.house.pipeline()
            await pipeline.start(0, 200, begin=0)
            online = Meddled(rows.house.online, before_replace=lambda: pipeline.ingest([valid(120, "zz", 500, 2.5)]))
            done = await repair(rows.house.history, online, rows.registered)
            assert (done.removed, done.written) == (0, 0)
            assert decode_value(await rows.value("zz")).version.sequence == 120

    asyncio.run(scenario())


def test_positions_are_said(backends: Backends) -> None:
    """The vector of positions names the source and where the comparison holds, also while history is ahead of it."""

    async def scenario() -> None:
        async with rows_on(backends) as rows:
            pipeline = rows.house.pipeline()
            await pipeline.start(0, 200, begin=0)
            await pipeline.ingest([valid(120, "k7", 300)])
            found = await rows.verify()
            (source,) = found.sources
            assert (source.name.name, source.name.partition, source.online_sequence) == ("reading", 0, 120)
            assert source.next_sequence == 121
            assert (found.differing, found.moving) == (0, 0)

    asyncio.run(scenario())
