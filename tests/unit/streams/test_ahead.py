"""Online rows of one batch are written while the next one goes to history, and never later than that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from oomstream.schemas.errors import DlqLimitReached, Fenced
from oomstream.schemas.online_value import OnlineRow
from tests.unit.agents.harness import until
from tests.unit.streams.house import T0, House, UnreliableOnline, garbage, valid


class Gated(UnreliableOnline):
    """Writes online rows when it is let, and counts the calls."""

    gate: asyncio.Event
    calls: int

    async def upsert_newer(self, rows: Sequence[OnlineRow], *, or_equal: bool = False) -> int:
        self.calls += 1
        await self.gate.wait()
        return await super().upsert_newer(rows, or_equal=or_equal)


def gated(house: House) -> Gated:
    """Its online store, which lets nothing through yet."""
    house.online.__class__ = Gated
    assert isinstance(house.online, Gated)
    house.online.gate, house.online.calls = asyncio.Event(), 0
    return house.online


def test_history_goes_ahead_by_one_batch(tmp_path: Path) -> None:
    """While a batch's online rows wait, the next batch is in history; its online rows wait for those before them."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            pipeline = house.pipeline()
            await pipeline.start(0, 10, begin=0)
            online = gated(house)
            await pipeline.advance([valid(0, "a", 1)])
            second = asyncio.ensure_future(pipeline.advance([valid(1, "b", 2)]))
            await until(lambda: pipeline.source.next_sequence == 2)
            assert len(await house.rows()) == 2
            assert (online.calls, second.done()) == (1, False)
            assert (pipeline.source.online_sequence, pipeline.source.next_sequence) == (0, 2)
            online.gate.set()
            await second
            await pipeline.settle()
            assert pipeline.source.online_sequence == 2
            assert await house.online_versions() == {"a": (T0 + 1, 0, False), "b": (T0 + 2, 1, False)}

    asyncio.run(scenario())


def test_what_is_behind_is_not_flushed_as_done(tmp_path: Path) -> None:
    """The position of online rows that is stored is never ahead of them."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            pipeline = house.pipeline()
            await pipeline.start(0, 10, begin=0)
            online = gated(house)
            await pipeline.advance([valid(0, "a", 1)])
            await pipeline.flush()
            [source] = await house.history.sources()
            assert (source.online_sequence, source.next_sequence) == (0, 1)
            online.gate.set()
            await pipeline.settle()
            await pipeline.flush()
            [source] = await house.history.sources()
            assert source.online_sequence == 1

    asyncio.run(scenario())


def test_a_fenced_batch_ends_what_goes_on_behind_it(tmp_path: Path) -> None:
    """When an advance fails, nothing is written behind it any more; the new owner has derived those rows."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            zombie, owner = house.pipeline(), house.pipeline()
            await zombie.start(0, 10, begin=0)
            online = gated(house)
            await zombie.advance([valid(0, "a", 1)])
            starting = asyncio.ensure_future(owner.start(0, 10, begin=0))
            await until(lambda: online.calls == 2)
            with pytest.raises(Fenced):
                await zombie.advance([valid(1, "a", 2)])
            tasks = [each for each in asyncio.all_tasks() if each.get_name().startswith("online-")]
            assert not tasks
            online.gate.set()
            assert await starting == 1
            assert await house.online_versions() == {"a": (T0 + 1, 0, False)}

    asyncio.run(scenario())


def test_a_cancelled_batch_is_finished_before_the_next(tmp_path: Path) -> None:
    """Cancelled while online rows wait, a pipeline derives them from history again before it takes more."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            pipeline = house.pipeline()
            await pipeline.start(0, 10, begin=0)
            online = gated(house)
            await pipeline.advance([valid(0, "a", 1)])
            waiting = asyncio.ensure_future(pipeline.settle())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
            assert await house.online_versions() == {}
            online.gate.set()
            await pipeline.ingest([valid(1, "b", 2)])
            assert await house.online_versions() == {"a": (T0 + 1, 0, False), "b": (T0 + 2, 1, False)}

    asyncio.run(scenario())


def test_a_limit_is_told_when_what_came_before_it_is_online(tmp_path: Path) -> None:
    """The dead-letter limit stops a pipeline that has nothing behind."""

    async def scenario() -> None:
        async with House(tmp_path, dlq_max_consecutive=2) as house:
            pipeline = house.pipeline()
            await pipeline.start(0, 10, begin=0)
            with pytest.raises(DlqLimitReached):
                await pipeline.advance([valid(0, "a", 1), *(garbage(at) for at in range(1, 9))])
            assert await house.online_versions() == {"a": (T0 + 1, 0, False)}
            assert pipeline.source.online_sequence == pipeline.source.next_sequence

    asyncio.run(scenario())
