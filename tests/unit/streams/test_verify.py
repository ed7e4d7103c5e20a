"""Verify finds every way in which online can differ from history, and repair mends each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import OnlineRow, decode_value, encode_key, encode_value
from oomstream.streams.repair import repair
from oomstream.streams.verify import Finding, Verifier
from tests.unit.streams.house import House, no_wait, tombstone, valid

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
    """A row behind its source's position is looked at again, and judged when it has arrived or never does."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            await filled(house)
            registered = (await house.history.load_catalog()).groups["reading"]
            row = await row_of(house, "a")
            source_name = (await house.history.sources())[0].name
            pipeline = house.pipeline(source_name)
            await pipeline.start(0, 20, begin=0)
            await pipeline.ingest([valid(7, "a", 9)])
            late = await row_of(house, "a")
            await house.online.delete([late.key])
            await house.online.upsert_newer([row])
            looks = 0

            async def arrive(seconds: float) -> None:
                nonlocal looks
                looks += 1
                if looks == 3:
                    await house.online.upsert_newer([late])

            found = await Verifier(house.history, house.online, sleep=arrive).verify(registered)
            assert (found.differing, looks) == (0, 3)
            await house.online.delete([late.key])
            found = await Verifier(house.history, house.online, sleep=no_wait).verify(registered)
            assert [each.finding for each in found.first] == [Finding.PENDING]

    asyncio.run(scenario())
