"""Listing dead letters: the first in order, and which of them are replayed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from oomstream.schemas.groups import FeatureGroup
from oomstream.streams.dead_letters import DeadLetter
from oomstream.streams.letters import Selection, chunks, first_letters
from tests.unit.streams.house import House, garbage, valid


def letter(topic: str, partition: int, offset: int, *, value: bytes = b"x", reason: str = "no_json") -> DeadLetter:
    """A dead letter of the first incarnation."""
    return DeadLetter(topic, "incarnation-1", partition, offset, 0, "decode", reason, "no", b"k", value, ())


def test_the_first_in_order_are_listed(tmp_path: Path) -> None:
    """Letters come in order of topic, partition and offset however they are read; the limit keeps the first."""
    places = [("reading", 1, 5), ("reading", 0, 10), ("reading", 0, 9), ("reading", 2, 1)]

    async def scenario() -> None:
        async with House(tmp_path) as house:
            group = (await house.history.load_catalog()).group("reading")

            async def first(limit: int, *more: DeadLetter) -> list[tuple[str, int, int]]:
                of_group = [letter(*place) for place in places] + list(more)
                by_group: list[tuple[FeatureGroup, Iterable[DeadLetter]]] = [
                    (group, of_group),
                    (group, [letter("a", 9, 9)]),
                ]
                found = await first_letters(house.history, by_group, Selection(reason="no_json"), limit=limit)
                assert {(each.letter.value, each.letter.key, each.replayed) for each in found} <= {(None, None, False)}
                return [(each.letter.topic, each.letter.partition, each.letter.offset) for each in found]

            assert await first(3) == [("a", 9, 9), ("reading", 0, 9), ("reading", 0, 10)]
            assert await first(99) == [("a", 9, 9), *sorted(places)]
            assert await first(1, letter("A", 0, 0, reason="too_deep")) == [("a", 9, 9)]

    asyncio.run(scenario())


def test_replayed_letters_are_told_from_open_ones(tmp_path: Path) -> None:
    """A letter whose event is in history is replayed; `only_open` leaves it out, and still finds enough others."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            pipeline = house.pipeline()
            await pipeline.start(0, 99, begin=0)
            await pipeline.ingest([garbage(0), valid(1, "a", 1), valid(2, "b", 1), garbage(3), garbage(4)])
            group = (await house.history.load_catalog()).group("reading")
            letters = [letter("reading", 0, at) for at in range(5)]
            listed = await first_letters(house.history, [(group, letters)], Selection(), limit=4)
            assert [(each.letter.offset, each.replayed) for each in listed] == [
                (0, False), (1, True), (2, True), (3, False),
            ]  # fmt: skip
            left = await first_letters(house.history, [(group, letters)], Selection(), limit=3, only_open=True)
            assert [(each.letter.offset, each.replayed) for each in left] == [(0, False), (3, False), (4, False)]

    asyncio.run(scenario())


@pytest.mark.parametrize(("size", "expected"), [(1, [5_000, 5_000, 2_000]), (3 << 20, [2, 2, 1])])
def test_chunks_are_bounded(size: int, expected: list[int]) -> None:
    """A chunk ends at 5,000 letters, or with the letter that makes it 4 MiB."""
    value = bytes(size)
    letters = (letter("t", 0, at, value=value) for at in range(sum(expected)))
    assert [len(chunk) for chunk in chunks(letters)] == expected
