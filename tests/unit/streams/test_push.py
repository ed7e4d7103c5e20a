"""A push with no broker can be read when it returns, and nothing of it is lost or doubled."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from oomstream.schemas.errors import Fatal, InvalidEvent, InvalidRequest, UnknownGroup
from oomstream.schemas.versions import SourceKind
from oomstream.stores.rebuild import finish_pushes
from oomstream.streams.push import LocalWriter
from tests.unit.streams.house import House, UnreliableHistory

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def writer(house: House) -> LocalWriter:
    """A writer whose wall clock stands still."""
    return LocalWriter(house.history, house.online, house.settings, clock=NOW.timestamp)


def an_hour_later() -> int:
    """A database clock by which every lease of now has run out."""
    return time.time_ns() // 1_000 + 3_600_000_000


def test_push_then_read(tmp_path: Path) -> None:
    """A push is in history and online under the pushing process's own source; without event time it is now."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            async with writer(house) as push:
                assert await push.push("reading", {"sensor_id": "a", "at": NOW, "value": 2.0}) == (1, 0)
                assert await push.push("reading", {"sensor_id": "b", "value": None}) == (1, 1)
            (source,) = await house.history.sources()
            assert (source.name.kind, source.next_sequence, source.online_sequence) == (SourceKind.PUSH, 2, 2)
            now_us = int(NOW.timestamp() * 1e6)
            assert await house.online_versions() == {"a": (now_us, 0, False), "b": (now_us, 1, False)}
            assert {row.event_time_us for row in await house.rows()} == {now_us}

    asyncio.run(scenario())


def test_delete_then_late_push(tmp_path: Path) -> None:
    """A delete hides the entity, and an older event that comes late does not bring it back."""

    async def scenario() -> None:
        async with House(tmp_path) as house, writer(house) as push:
            await push.push("reading", {"sensor_id": "a", "at": NOW, "value": 2.0})
            await push.delete("reading", ["a"], NOW + timedelta(seconds=1))
            await push.push("reading", {"sensor_id": "a", "at": NOW + timedelta(milliseconds=1), "value": 3.0})
            assert (await house.online_versions())["a"][1:] == (1, True)
            assert len(await house.rows()) == 3

    asyncio.run(scenario())


def test_sources_are_taken_back(tmp_path: Path) -> None:
    """Writers one after the other use one source; two at once have one each."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            for _ in range(3):
                async with writer(house) as push:
                    await push.push("reading", {"sensor_id": "a", "at": NOW})
            assert len(await house.history.sources()) == 1
            async with writer(house) as one, writer(house) as other:
                await one.push("reading", {"sensor_id": "a", "at": NOW})
                await other.push("reading", {"sensor_id": "a", "at": NOW})
                await one.push("reading", {"sensor_id": "a", "at": NOW})
            assert len(await house.history.sources()) == 2
            assert len(await house.rows()) == 6

    asyncio.run(scenario())


def test_writer_that_lost_its_source_takes_another(tmp_path: Path) -> None:
    """A writer that was away past its lease is fenced, and its next push goes through under another source."""

    async def scenario() -> None:
        async with House(tmp_path) as house, writer(house) as push:
            source_id, _ = await push.push("reading", {"sensor_id": "a", "at": NOW})
            (source,) = await house.history.sources()
            await house.history.claim(source.name)
            await house.history.lease_push_source(3600)
            again, _ = await push.push("reading", {"sensor_id": "b", "at": NOW})
            assert again != source_id
            assert len(await house.rows()) == 2

    asyncio.run(scenario())


def test_wrong_pushes_say_why(tmp_path: Path) -> None:
    """An unknown group, a wrong type, a missing key and a time in the future are errors that name the thing."""

    async def scenario() -> None:
        async with House(tmp_path) as house, writer(house) as push:
            with pytest.raises(UnknownGroup, match="no feature group named 'readings'"):
                await push.push("readings", {})
            with pytest.raises(InvalidEvent, match="value"):
                await push.push("reading", {"sensor_id": "a", "at": NOW, "value": "high"})
            with pytest.raises(InvalidEvent, match="sensor_id"):
                await push.push("reading", {"at": NOW, "value": 1.0})
            with pytest.raises(InvalidRequest, match="reading"):
                await push.push("reading", {"sensor_id": "a", "at": NOW + timedelta(hours=1), "value": 1.0})
            assert await house.rows() == []
            await push.push("reading", {"sensor_id": "a", "at": NOW, "value": 1.0})
            assert len(await house.rows()) == 1

    asyncio.run(scenario())


def test_rows_of_one_call_are_all_there_or_none(tmp_path: Path) -> None:
    """Rows pushed together have sequences in their order, and one that is wrong keeps the others out."""

    async def scenario() -> None:
        async with House(tmp_path) as house, writer(house) as push:
            rows = [{"sensor_id": key, "at": NOW, "value": 1.0} for key in "aab"]
            assert await push.push_rows("reading", rows) == (1, 0)
            assert {key: sequence for key, (_, sequence, _) in (await house.online_versions()).items()} == {
                "a": 1,
                "b": 2,
            }
            for wrong in ({"sensor_id": "", "at": NOW}, {"sensor_id": "c", "at": NOW + timedelta(hours=1)}):
                with pytest.raises((InvalidEvent, InvalidRequest)):
                    await push.push_rows("reading", [rows[0], wrong])
            assert len(await house.rows()) == 3

    asyncio.run(scenario())


def test_a_push_after_an_outage_is_not_taken_for_the_one_before(tmp_path: Path) -> None:
    """A push whose outcome stayed unknown past the budget may be there; the next one is, whatever became of it."""

    async def scenario() -> None:
        async with House(tmp_path, outage_budget_us=0) as house, writer(house) as push:
            await push.push("reading", {"sensor_id": "a", "at": NOW, "value": 1.0})
            house.history.faults = ["after"]
            with pytest.raises(Fatal, match="gave up"):
                await push.push("reading", {"sensor_id": "b", "at": NOW, "value": 2.0})
            await push.push("reading", {"sensor_id": "c", "at": NOW, "value": 3.0})
            assert [row.key for row in await house.rows()] == [("a",), ("b",), ("c",)]
            assert set(await house.online_versions()) == {"a", "c"}

    asyncio.run(scenario())


KILLED = """
import asyncio, sys
from pathlib import Path
from oomstream.stores.crash_points import arm
from tests.unit.streams.test_push import NOW, House, writer
async def main():
    async with House(Path(sys.argv[1])) as house, writer(house) as push:
        await push.push("reading", {"sensor_id": "a", "at": NOW, "value": 1.0})
        arm(sys.argv[2])
        await push.push("reading", {"sensor_id": "a", "at": NOW, "value": 2.0})
asyncio.run(main())
"""


@pytest.mark.parametrize(("point", "rows"), [("after_poll", 1), ("after_history", 2), ("after_online", 2)])
def test_killed_push_is_finished_by_the_next(tmp_path: Path, point: str, rows: int) -> None:
    """What a killed push left between history and online is finished by whoever opens the stores next."""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), point], cwd=root, check=False, timeout=60)
    assert done.returncode == -9

    async def scenario() -> None:
        async with House(tmp_path) as house:
            await finish_pushes(house.history, house.online)
            (source,) = await house.history.sources()
            assert source.online_sequence < source.next_sequence, "the dead writer's lease has not run out yet"
        house = House(tmp_path)
        house.history = UnreliableHistory(house.settings.history, house.settings, clock=an_hour_later)
        house.history.faults = []
        async with house:
            await finish_pushes(house.history, house.online)
            assert len(await house.rows()) == rows
            assert (await house.online_versions())["a"][1] == rows - 1
            (source,) = await house.history.sources()
            assert source.online_sequence == source.next_sequence == rows

    asyncio.run(scenario())
