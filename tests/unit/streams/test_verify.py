"""Verify finds every way in which online can differ from history, and repair mends each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.events import Plain
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import OnlineRow, decode_value, encode_key, encode_value
from oomstream.schemas.plan import make_plan
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.base import OnlineChange
from oomstream.streams.judging import Finding
from oomstream.streams.repair import repair
from oomstream.streams.verify import Verifier
from tests.unit.streams.house import GROUP, T0, House, no_wait, tombstone, valid

Tamper = Callable[[House, OnlineRow], Awaitable[None]]


async def filled(house: House) -> None:
    """A few entities with several versions each, one of them deleted."""
    pipeline = house.pipeline()
    await pipeline.start(0, 20, begin=0)
    await pipeline.ingest([valid(0, "a", 1), valid(1, "b", 5), valid(2, "c", 3), valid(3, "a", 4)])
    await pipeline.ingest([valid(4, "b", 2), tombstone(5, "c", 4), valid(6, "a", 2, None)])
    await pipeline.flush()


async def row_of(house: House, key: str) -> OnlineRow:
    """The online row of an entity."""
    group = (await house.history.load_catalog()).group("reading")
    stored = encode_key(group.id, encode_entity((key,)))
    (value,) = await house.online.read([stored])
    assert value is not None
    return OnlineRow(stored, value)


async def remove(house: House, row: OnlineRow) -> None:
    """The row is lost."""
    await house.online.delete([row.key])


async def rewind(house: House, row: OnlineRow) -> None:
    """The row is that of an older event."""
    value = decode_value(row.value)
    older = value.version._replace(event_time_us=value.version.event_time_us - 1).pack()
    await house.online.delete([row.key])
    await put(house, row, older, value.body)


async def invent(house: House, row: OnlineRow) -> None:
    """The row is of an event that history does not have."""
    value = decode_value(row.value)
    await put(house, row, value.version._replace(event_time_us=value.version.event_time_us + 1).pack(), value.body)


async def falsify(house: House, row: OnlineRow) -> None:
    """The row has the right version and other values."""
    value = decode_value(row.value)
    other = bytearray(value.body)
    other[-1] ^= 1
    await house.online.upsert_newer([OnlineRow(row.key, row.value[: -len(value.body)] + bytes(other))], or_equal=True)


async def break_(house: House, row: OnlineRow) -> None:
    """The row's body is cut off."""
    await house.online.upsert_newer([OnlineRow(row.key, row.value[:-3])], or_equal=True)


async def put(house: House, row: OnlineRow, version: bytes, body: bytes) -> None:
    """Write a row of another version."""
    value = decode_value(row.value)
    await house.online.upsert_newer(
        [OnlineRow(row.key, encode_value(version, value.ingest_time_us, value.fingerprint, value.deleted, body))]
    )


@pytest.mark.parametrize(
    ("tamper", "finding"),
    [
        (remove, Finding.MISSING),
        (rewind, Finding.OLDER),
        (invent, Finding.UNKNOWN),
        (falsify, Finding.DIFFERENT),
        (break_, Finding.UNREADABLE),
    ],
)
def test_each_difference_is_found_and_mended(tmp_path: Path, tamper: Tamper, finding: Finding) -> None:
    """A row that is lost, older, invented, falsified or broken is found with its key, and repair makes it right."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            await filled(house)
            registered = (await house.history.load_catalog()).groups["reading"]
            verifier = Verifier(house.history, house.online, sleep=no_wait)
            clean = await verifier.verify(registered)
            assert (clean.entities, clean.differing, clean.positions) == (3, 0, {1: 7})
            row = await row_of(house, "b")
            await tamper(house, row)
            dirty = await verifier.verify(registered)
            assert [(each.key, each.finding) for each in dirty.first] == [(("b",), finding)]
            assert dirty.differing == 1
            await repair(house.history, house.online, registered)
            assert (await verifier.verify(registered)).differing == 0
            assert await row_of(house, "b") == row

    asyncio.run(scenario())


def test_row_without_history(tmp_path: Path) -> None:
    """An entity that is online and never was in history is found, and removed by repair."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            await filled(house)
            registered = (await house.history.load_catalog()).groups["reading"]
            row = await row_of(house, "b")
            stray = encode_key(registered.group.id, encode_entity(("z",)))
            await house.online.upsert_newer([OnlineRow(stray, row.value)])
            found = await Verifier(house.history, house.online, sleep=no_wait).verify(registered)
            assert [(each.key, each.finding) for each in found.first] == [(("z",), Finding.UNKNOWN)]
            assert (await repair(house.history, house.online, registered)).removed == 1
            assert await house.online.read([stray]) == [None]

    asyncio.run(scenario())


def test_empty_online_store_is_filled(tmp_path: Path) -> None:
    """Repair fills an online store that was lost, byte for byte."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            await filled(house)
            registered = (await house.history.load_catalog()).groups["reading"]
            before = [await row_of(house, key) for key in "abc"]
            await house.online.delete([row.key for row in before])
            assert (await repair(house.history, house.online, registered)).written == 3
            assert [await row_of(house, key) for key in "abc"] == before

    asyncio.run(scenario())


def test_row_on_its_way_is_no_difference(tmp_path: Path) -> None:
    """A row behind its source's position is looked at again until it has arrived."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            registered, _, late = await one_on_its_way(house)
            looks = 0

            async def arrive(seconds: float) -> None:
                nonlocal looks
                looks += 1
                if looks == 3:
                    await house.online.upsert_newer([late])

            found = await Verifier(house.history, house.online, sleep=arrive).verify(registered)
            assert (found.differing, found.moving, looks) == (0, 0, 3)
            assert found.positions == {1: 7}

    asyncio.run(scenario())


async def one_on_its_way(house: House) -> tuple[RegisteredGroup, OnlineRow, OnlineRow]:
    """An event of entity a is in history and not online, its source's position before it; gives both online rows."""
    await filled(house)
    registered = (await house.history.load_catalog()).groups["reading"]
    row = await row_of(house, "a")
    pipeline = house.pipeline((await house.history.sources())[0].name)
    await pipeline.start(0, 20, begin=0)
    await pipeline.ingest([valid(7, "a", 9)])
    late = await row_of(house, "a")
    await house.online.replace([OnlineChange(late.key, late.value, row.value)])
    return registered, row, late


def test_row_that_never_arrives_is_judged_at_the_position(tmp_path: Path) -> None:
    """What is still on its way after many looks is right if all before the position is online, and wrong if not."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            registered, row, _ = await one_on_its_way(house)
            verifier = Verifier(house.history, house.online, sleep=no_wait)
            found = await verifier.verify(registered)
            assert (found.differing, found.moving) == (0, 1)

            value = decode_value(row.value)
            older = value.version._replace(event_time_us=T0 + 1, sequence=0).pack()
            body = encode_value(older, value.ingest_time_us, value.fingerprint, False, value.body)
            unknown = value.version._replace(sequence=11).pack()
            stray = encode_value(unknown, value.ingest_time_us, value.fingerprint, False, value.body)
            other = bytearray(row.value)
            other[-1] ^= 1
            for planted, finding in (
                (None, Finding.MISSING),
                (body, Finding.OLDER),
                (stray, Finding.UNKNOWN),
                (bytes(other), Finding.DIFFERENT),
            ):
                await house.online.replace([OnlineChange(row.key, row.value, planted)])
                found = await verifier.verify(registered)
                assert [(each.key, each.finding) for each in found.first] == [(("a",), finding)]
                await house.online.delete([row.key])
                await house.online.upsert_newer([row])
            assert (await verifier.verify(registered)).moving == 1

    asyncio.run(scenario())


def test_entity_that_never_stands_still(tmp_path: Path) -> None:
    """An entity for which history is ahead at each look, however often, is counted as moving and is no difference."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            registered, _, _ = await one_on_its_way(house)
            pipeline = house.pipeline((await house.history.sources())[0].name)
            await pipeline.start(0, 200, begin=0)
            newest = await row_of(house, "a")

            async def move_on(seconds: float) -> None:
                nonlocal newest
                at = pipeline.next_offset
                await pipeline.ingest([valid(at, "a", at + 100)])
                before, newest = newest, await row_of(house, "a")
                await house.online.replace([OnlineChange(newest.key, newest.value, before.value)])

            await move_on(0)
            found = await Verifier(house.history, house.online, sleep=move_on).verify(registered)
            assert (found.differing, found.moving) == (0, 1)

    asyncio.run(scenario())


def test_difference_must_be_seen_twice(tmp_path: Path) -> None:
    """What differs at one look only, as while a dead letter is replayed, is no difference."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            await filled(house)
            registered = (await house.history.load_catalog()).groups["reading"]
            row = await row_of(house, "b")
            await house.online.delete([row.key])

            async def arrive(seconds: float) -> None:
                await house.online.upsert_newer([row])

            found = await Verifier(house.history, house.online, sleep=arrive).verify(registered)
            assert (found.entities, found.differing) == (3, 0)

    asyncio.run(scenario())


def test_both_sides_of_a_difference(tmp_path: Path) -> None:
    """A difference has what is online and what is in history: versions, deletes and values."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            await filled(house)
            registered = (await house.history.load_catalog()).groups["reading"]
            await invent(house, await row_of(house, "b"))
            (found,) = (await Verifier(house.history, house.online, sleep=no_wait).verify(registered)).first
            assert found.online is not None
            assert found.history is not None
            assert found.history.version == Version(T0 + 5, SourceKind.TOPIC, 1, 1)
            assert found.online.version == found.history.version._replace(event_time_us=T0 + 6)
            assert found.online.values == found.history.values == {"value": 1.0}

    asyncio.run(scenario())


def test_sample(tmp_path: Path) -> None:
    """A sample has the number asked for, the same entities for the same seed, others for another, and finds theirs."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            pipeline = house.pipeline()
            await pipeline.start(0, 400, begin=0)
            await pipeline.ingest([valid(at, f"k{at}", at) for at in range(400)])
            await pipeline.flush()
            registered = (await house.history.load_catalog()).groups["reading"]
            rows = await house.online.scan(b"o")
            await house.online.delete([row.key for row in rows])

            async def differing(sample: int | None, seed: int = 0) -> set[tuple[Plain, ...]]:
                verifier = Verifier(house.history, house.online, keep=1_000, sample=sample, seed=seed, sleep=no_wait)
                found = await verifier.verify(registered)
                assert found.entities == found.differing == len(found.first)
                return {each.key for each in found.first}

            assert len(await differing(None)) == 400
            assert len(await differing(1_000)) == 400
            first = await differing(50)
            assert len(first) == 50
            assert await differing(50) == first
            assert await differing(50, seed=1) != first
            assert await differing(0) == set()

    asyncio.run(scenario())


def test_old_definitions_are_no_difference(tmp_path: Path) -> None:
    """Online bytes of an older definition are right if they say what history says; repair brings them up to date."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            await filled(house)
            changed = group_from_avsc(
                {
                    **GROUP.schema,
                    "fields": [*GROUP.schema["fields"], {"name": "unit", "type": "string", "default": "C"}],
                }
            )
            catalog = await house.history.apply(make_plan(await house.history.load_catalog(), [changed]))
            registered = catalog.groups["reading"]
            assert (await Verifier(house.history, house.online, sleep=no_wait).verify(registered)).differing == 0
            mended = await repair(house.history, house.online, registered)
            assert (mended.entities, mended.written, mended.removed) == (3, 3, 0)
            assert mended.found == {Finding.DIFFERENT: 3}
            assert (await repair(house.history, house.online, registered)).written == 0

    asyncio.run(scenario())
