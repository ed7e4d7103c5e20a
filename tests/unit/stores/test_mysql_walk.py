"""Walks in pages: what is asked for, how much at once, and in which order it comes."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Sequence

import pyarrow as pa
import pytest

from oomstream.schemas.events import Plain
from oomstream.stores.sql.mysql_pages import Key, Part, Walk
from oomstream.stores.sql.mysql_walk import Walker

SCHEMA = pa.schema([pa.field("k", pa.int64())])
VERSIONED = pa.schema([pa.field(name, pa.int64()) for name in ("k", "_source", "_sequence")])


class PartWalk(Walk):
    """A walk that knows its part."""

    def __init__(self, part: Part) -> None:
        super().__init__("t", ["k"], 1, ["k"], None)
        self.part = part


class ListPages:
    """Pages of a sorted list of numbers."""

    most_rows = 5_000

    def __init__(self, numbers: Sequence[int], at_once: int) -> None:
        self.at_once = at_once
        self.numbers = numbers
        self.reading = 0
        self.most_reading = 0
        self.read_rows = 0

    async def read(self, statements: Walk, after: Key | None, rows: int, schema: pa.Schema) -> tuple[pa.Table, bool]:
        """A page; others get their turn before it is there."""
        assert isinstance(statements, PartWalk)
        self.reading += 1
        self.most_reading = max(self.most_reading, self.reading)
        try:
            for _ in range(3):
                await asyncio.sleep(0)
            first, end = (_place(self.numbers, each) for each in statements.part)
            start = max(first or 0, 0 if after is None else bisect_left(self.numbers, _number(after[0]) + 1))
            found = list(self.numbers[start : len(self.numbers) if end is None else end][:rows])
            self.read_rows += len(found)
            return pa.table([pa.array(found, pa.int64())], schema=schema), len(found) < rows
        finally:
            self.reading -= 1


class VersionPages:
    """Pages of rows (key, source, sequence), with or without the last two."""

    most_rows = 2_000
    at_once = 2

    def __init__(self, rows: Sequence[tuple[int, int, int]]) -> None:
        self.rows = rows
        self.told: list[bool] = []

    async def walked(self, splits: Sequence[int]) -> list[int]:
        """The keys, as they come; `told` says of each row whether it came with source and sequence."""
        walker = Walker(self, 3, VERSIONED, 2_000, bare_schema=SCHEMA)
        found: list[int] = []
        async for page in walker.walk_in_parts(self.part, splits):
            self.told += [page.schema == VERSIONED] * page.num_rows
            found += map(_number, page.column("k").to_pylist())
        return found

    def part(self, part: Part) -> Walk:
        """The walk through a part, which may be bare."""
        walk = PartWalk(part)
        walk.bare = PartWalk(part)
        return walk

    async def read(self, statements: Walk, after: Key | None, rows: int, schema: pa.Schema) -> tuple[pa.Table, bool]:
        """A page; a bare one begins with the key that it is given."""
        assert isinstance(statements, PartWalk)
        await asyncio.sleep(0)
        first, end = statements.part
        is_bare = schema == SCHEMA
        found = [
            row
            for row in self.rows
            if (first is None or row[0] >= _number(first))
            and (end is None or row[0] < _number(end))
            and (after is None or (row[:1] >= after[:1] if is_bare else row > after))
        ][:rows]
        columns = [pa.array([row[at] for row in found], pa.int64()) for at in range(1 if is_bare else 3)]
        return pa.table(columns, schema=schema), len(found) < rows


def _place(numbers: Sequence[int], bound: Plain) -> int | None:
    return None if bound is None else bisect_left(numbers, _number(bound))


def _number(value: Plain) -> int:
    assert isinstance(value, int)
    return value


def walked(pages: ListPages, splits: Sequence[int]) -> list[int]:
    """All numbers, as they come."""

    async def walk() -> list[int]:
        found = Walker(pages, 1, SCHEMA, 4_000).walk_in_parts(PartWalk, splits)
        return [_number(value) async for page in found for value in page.column("k").to_pylist()]

    return asyncio.run(walk())


@pytest.mark.parametrize(
    "splits",
    [[], [-5], [10**9], list(range(0, 120_000, 1_000)), list(range(100_000, 120_000, 10)), list(range(0, 30_000, 7))],
    ids=["none", "before all", "behind all", "even", "at the end", "at the beginning"],
)
@pytest.mark.parametrize("at_once", [1, 2])
def test_parts_come_in_order(splits: list[int], at_once: int) -> None:
    """Whatever the splits are worth, every row comes once, in order, and no more pages are read at once than may be."""
    numbers = [*range(0, 60_000, 3), *range(60_000, 120_000, 11)]
    pages = ListPages(numbers, at_once)
    assert walked(pages, splits) == numbers
    assert pages.most_reading <= at_once
    assert pages.read_rows == len(numbers)


def test_good_splits_keep_two_pages_on_the_way() -> None:
    """Splits all over the table have the next page read while this one is."""
    pages = ListPages(range(120_000), 2)
    assert walked(pages, list(range(0, 120_000, 500))) == list(range(120_000))
    assert pages.most_reading == 2


def test_rows_that_are_alike_are_read_with_what_tells_them_apart() -> None:
    """Pages are bare until one holds two rows of one key, and no such rows are ever in two pages that are bare."""
    for repeated in (1_998, 1_999, 2_000, 5_000, 5_001, 11_999):
        for splits in ([], list(range(0, 12_000, 100))):
            rows = sorted([*((at, 1, at) for at in range(12_000)), (repeated, 2, 0)])
            pages = VersionPages(rows)
            assert asyncio.run(pages.walked(splits)) == [row[0] for row in rows]
            told = [(row[0], told) for row, told in zip(rows, pages.told, strict=True)]
            assert all(is_told for key, is_told in told if key == repeated)
            assert not any(is_told for key, is_told in told if key < repeated - 4_000)


def test_a_walk_left_early_reads_no_further() -> None:
    """Who stops takes with them what is being read ahead."""

    async def leave() -> int:
        pages = ListPages(range(120_000), 2)
        walk = Walker(pages, 1, SCHEMA, 4_000).walk_in_parts(PartWalk, range(0, 120_000, 500))
        async for page in walk:
            if page.column("k")[-1].as_py() > 50_000:
                break
        await walk.aclose()
        assert pages.reading == 0
        return len(asyncio.all_tasks())

    assert asyncio.run(leave()) == 1
