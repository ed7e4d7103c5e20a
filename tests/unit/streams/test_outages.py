"""How the pipeline behaves while the history database is away or full."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from oomstream.schemas.catalog import Catalog
from oomstream.schemas.errors import Fatal, StoreUnavailable
from tests.unit.streams.house import House, UnreliableHistory, garbage, valid


def test_an_outage_of_appends_alone_ends_at_the_budget(tmp_path: Path) -> None:
    """Case 16: a database that still lets sources be claimed, but takes no rows, is an outage like any other."""

    async def scenario() -> None:
        async with House(tmp_path, outage_budget_us=200_000) as house:
            pipeline = house.pipeline()
            await pipeline.start(0, 5, begin=0)
            house.history.faults = ["before"] * 100_000
            with pytest.raises(Fatal, match="gave up after"):
                await asyncio.wait_for(pipeline.ingest([garbage(0), valid(1, "a", 1)]), 60)
            assert await house.rows() == []

    asyncio.run(scenario())


def test_the_catalog_is_not_read_for_every_batch(tmp_path: Path) -> None:
    """A batch needs no catalog that is there already: a database that is away is met where its outage is waited for."""

    class Counting(UnreliableHistory):
        reads = 0

        async def load_catalog(self) -> Catalog:
            self.reads += 1
            if self.reads > 1:
                raise StoreUnavailable("the database is away")
            return await super().load_catalog()

    async def scenario() -> None:
        async with House(tmp_path) as house:
            house.history.__class__ = Counting
            pipeline = house.pipeline()
            await pipeline.start(0, 10, begin=0)
            for at in range(10):
                await pipeline.ingest([valid(at, "a", at)])
            assert pipeline.next_offset == 10

    asyncio.run(scenario())
