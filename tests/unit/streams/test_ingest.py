"""What the pipeline does with dead letters, fences, lost ranges and mistakes.

That it loses and doubles nothing, whatever the batches and the outages are, is tests/integration/test_pipeline.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from oomstream.schemas.errors import DlqLimitReached, Fatal, Fenced, InvalidEvent, LostRange, Reason, StoreUnavailable
from oomstream.schemas.online_value import OnlineRow
from oomstream.stores.base import HistoryBatch, Source
from oomstream.streams.backoff import Backoff
from oomstream.streams.dead_letters import DeadLetter
from oomstream.streams.ingest import SourceIngest
from tests.unit.streams.house import T0, House, KeptLetters, UnreliableHistory, garbage, valid


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backoff waits no real time."""

    async def wait(self: Backoff, error: StoreUnavailable) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(Backoff, "wait", wait)


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
    """Case 22: a pipeline whose source was claimed by another writes nothing more to history."""

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
    """Case 15: of 50 rows, the one that the database rejects for its data is dead-lettered; 49 are stored."""

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
    """Case 8: a bad topic does not pour into the DLQ piece by piece over restarts: the limit remembers."""

    async def pour(pipeline: SourceIngest, position: int) -> None:
        for start in range(position, 100, 4):
            await pipeline.ingest([garbage(n) for n in range(start, start + 4)])

    async def scenario() -> None:
        async with House(tmp_path, dlq_max_consecutive=10) as house:
            for _ in range(5):
                pipeline = house.pipeline()
                position = await pipeline.start(0, 100, begin=0)
                with pytest.raises(DlqLimitReached, match=r"in this batch: \d unknown_framing, the first at offset"):
                    await pour(pipeline, position)
            # Up to the limit letters are written, so that a person can see what is wrong with the topic.
            assert [letter.offset for letter in house.sink.letters] == list(range(10))

    asyncio.run(scenario())


def test_a_worker_that_stopped_at_the_share_goes_on_after_the_fix(tmp_path: Path) -> None:
    """Case 8: at the share of letters it stops, and stays so; when the next events are valid it goes on by itself."""

    async def scenario() -> None:
        async with House(tmp_path, dlq_max_consecutive=0, dlq_max_ratio=0.5, dlq_window=10) as house:
            bad = [garbage(n) if n % 3 else valid(n, "a", n) for n in range(30)]
            for _ in range(3):
                pipeline = house.pipeline()
                position = await pipeline.start(0, 100, begin=0)
                with pytest.raises(DlqLimitReached, match="7 of the last 11 events"):
                    await pipeline.ingest(bad[position:])
            assert [letter.offset for letter in house.sink.letters] == [1, 2, 4, 5, 7, 8]
            pipeline = house.pipeline()
            position = await pipeline.start(0, 100, begin=0)
            await pipeline.ingest([valid(n, "a", n) for n in range(position, 100)])
            assert pipeline.source.dlq.window_letters == 0
            assert len(house.sink.letters) == 6

    asyncio.run(scenario())


def test_limit_counts_rows_that_the_store_rejects(tmp_path: Path) -> None:
    """Case 8: a database that rejects row after row for its data is a bad deploy too: the limit stops the worker."""

    class Narrow(UnreliableHistory):
        async def append(self, source: Source, batch: HistoryBatch) -> int:
            if batch.events:
                raise InvalidEvent(Reason.REJECTED_BY_STORE, "value too long for column")
            return await super().append(source, batch)

    async def scenario() -> None:
        async with House(tmp_path, dlq_max_consecutive=5) as house:
            house.history.__class__ = Narrow
            pipeline = house.pipeline()
            await pipeline.start(0, 50, begin=0)
            with pytest.raises(DlqLimitReached, match="5 events in a row"):
                await pipeline.ingest([valid(n, "a", n) for n in range(8)])
            assert [letter.offset for letter in house.sink.letters] == list(range(5))
            assert pipeline.source.dlq.consecutive == 5

    asyncio.run(scenario())


def test_batch_that_was_left_is_finished_by_the_next(tmp_path: Path) -> None:
    """A batch that is cancelled between history and online is online before anything later is counted as online."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            pipeline = house.pipeline()
            await pipeline.start(0, 50, begin=0)
            written = asyncio.Event()
            upsert = house.online.upsert_newer

            async def hang(rows: Sequence[OnlineRow], *, or_equal: bool = False) -> int:
                written.set()
                await asyncio.Event().wait()
                return 0

            house.online.upsert_newer = hang  # type: ignore[method-assign]
            task = asyncio.ensure_future(pipeline.ingest([valid(0, "a", 1)]))
            await written.wait()
            task.cancel()
            await asyncio.wait([task])
            house.online.upsert_newer = upsert  # type: ignore[method-assign]
            await pipeline.ingest([valid(1, "b", 2)])
            await pipeline.flush()
            assert await house.online_versions() == {"a": (T0 + 1, 0, False), "b": (T0 + 2, 1, False)}
            assert len(await house.rows()) == 2

    asyncio.run(scenario())


def test_lost_range_is_named(tmp_path: Path) -> None:
    """Case 26: a position that the log no longer holds stops the start with the range, or is skipped and recorded."""

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
            assert [each[:3] for each in await house.history.lost_records()] == [(1, 5, 9)]

    asyncio.run(scenario())


def test_dlq_outage_acknowledges_nothing(tmp_path: Path) -> None:
    """Case 9: while the dead-letter topic is down, the position stays; afterwards the batch goes on."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            pipeline = house.pipeline()
            await pipeline.start(0, 5, begin=0)
            positions: list[int] = []

            class Down(KeptLetters):
                async def send(self, letters: Sequence[DeadLetter]) -> None:
                    positions.extend(source.next_sequence for source in await house.history.sources())
                    await super().send(letters)

            house.sink.__class__ = Down
            house.sink.failures = 3
            await pipeline.ingest([garbage(0), valid(1, "a", 1)])
            assert positions == [0, 0, 0, 0]
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
