"""What every history store must do: sources, fences, leases, and appending."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from oomstream.schemas.errors import Fenced, InvalidEvent, Reason
from oomstream.schemas.events import Event, Plain
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import DlqCounts, HistoryBatch, HistoryStore, Source, SourceName
from oomstream.stores.testing.history_suite import HistorySuite, append, register, topic
from oomstream.stores.testing.samples import EXTREMES, all_types, event, group
from oomstream.stores.testing.suite import Run


class IngestTests(HistorySuite):
    """Sources and writing."""

    def test_sources_are_numbered_in_order_of_first_sight(self, opened: HistoryStore, run: Run) -> None:
        """Ids begin at 1 without gaps; kind, name, incarnation and partition tell sources apart."""
        names = [
            topic("t", 0), topic("t", 1), topic("t", 0, "second"), topic("T", 0), topic("t ", 0),
            SourceName(SourceKind.FILE, "t", "first", 0), SourceName(SourceKind.PUSH, "t", "first", 0),
        ]  # fmt: skip
        for number, name in enumerate(names, start=1):
            assert run(opened.find_source(name)) is None
            assert run(opened.claim(name, start=number)) == Source(number, name, 1, number, number, 0)
        assert [each.name for each in run(opened.sources())] == names
        assert run(opened.find_source(names[3])) == Source(4, names[3], 1, 4, 4, 0)

    def test_claim_raises_the_fence_and_nothing_else(self, opened: HistoryStore, run: Run) -> None:
        """Each claim is a new owner; the position stays, whatever start it names."""

        async def check() -> None:
            [mine] = await register(opened, group())
            first = await opened.claim(topic(), start=3)
            await opened.append(first, HistoryBatch(mine, [event(4)], 6, 5, DlqCounts(1, 2, 3)))
            second = await opened.claim(topic(), start=99)
            assert replace(second, last_ingest_time_us=0) == Source(1, topic(), 2, 6, 5, 0, DlqCounts(1, 2, 3))
            assert (await opened.claim(topic())).owner == 3

        run(check())

    def test_every_value_comes_back(self, opened: HistoryStore, place: str, run: Run) -> None:
        """Each type's extremes are stored exactly, by the store's reading and by reading around it."""

        async def check() -> None:
            [mine] = await register(opened, all_types())
            source = await opened.claim(topic("all_types"))
            events = _extreme_events()
            await append(opened, source, mine, *events)
            rows = await opened.rows_of_source(mine, source.id, 0, 1000)
            assert [_exact(row.values) for row in rows] == [_exact(each.values) for each in events]
            raw = sorted(await self.raw_rows(place, "all_types"), key=lambda row: int(row["_sequence"]))
            names = [feature.name for feature in mine.features]
            assert [_exact(_plain(row[name], name) for name in names) for row in raw] == [
                _exact(each.values) for each in events
            ]
            assert [(row["k"], row["_event_time"], bool(row["_deleted"])) for row in raw] == [
                (*each.key, each.event_time_us, False) for each in events
            ]

        run(check())

    def test_what_stands_there_is_read(self, opened: HistoryStore, place: str, run: Run) -> None:
        """A row that was written around the store is read as it is."""

        async def check() -> None:
            [mine] = await register(opened, group())
            source = await opened.claim(topic())
            ours = {"_event_time": 5, "_source": source.id, "_sequence": 9, "_ingest_time": 77, "_deleted": False}
            await self.raw_insert(place, "plane", {"k": "é", **ours, "n": 1 << 60})
            [row] = await opened.rows_of_source(mine, source.id, 0, 10)
            assert row == (("é",), 5, source.id, 9, 77, False, (1 << 60,))
            assert await opened.newest(mine, [("é",)]) == [row]

        run(check())

    def test_position_moves_with_the_rows(self, opened: HistoryStore, run: Run) -> None:
        """Rows and position are one; a batch of no events moves the position alone; it never falls."""

        async def check() -> None:
            [mine] = await register(opened, group())
            source = await opened.claim(topic())
            await opened.append(source, HistoryBatch(mine, [event(0), event(2)], 5, 0, DlqCounts(2, 5, 3)))
            await opened.append(source, HistoryBatch(mine, (), 9, 5))
            await opened.append(source, HistoryBatch(mine, (), 7, 3))
            [stored] = await opened.sources()
            assert (stored.next_sequence, stored.online_sequence, stored.dlq) == (9, 5, DlqCounts())
            assert [row.sequence for row in await opened.rows_of_source(mine, source.id, 0, 99)] == [0, 2]

        run(check())

    def test_what_was_skipped_is_recorded(self, opened: HistoryStore, run: Run) -> None:
        """Case 26: a batch that passes over lost records notes their range once, with the time; others note nothing."""

        async def check() -> None:
            [mine] = await register(opened, group())
            source = await opened.claim(topic())
            await append(opened, source, mine, event(0))
            assert await opened.lost_records() == []
            skip = HistoryBatch(mine, (), 7, 7, lost=True)
            skipped_at = await opened.append(source, skip)
            await opened.append(source, skip)
            await append(opened, source, mine, event(7))
            await opened.append(source, HistoryBatch(mine, (), 9, 9, lost=True))
            assert [each[:3] for each in await opened.lost_records()] == [(source.id, 1, 7), (source.id, 8, 9)]
            assert (await opened.lost_records())[0].time_us == skipped_at
            with pytest.raises(Fenced):
                await opened.append(replace(source, owner=0), HistoryBatch(mine, (), 99, 99, lost=True))
            assert len(await opened.lost_records()) == 2

        run(check())

    def test_same_batch_again_changes_nothing(self, opened: HistoryStore, place: str, run: Run) -> None:
        """Identity is (source, sequence): decided once, whatever key, time and values come with it later."""

        async def check() -> None:
            [mine] = await register(opened, group())
            source = await opened.claim(topic())
            await append(opened, source, mine, event(0), event(1, "b"))
            before = await self.raw_rows(place, "plane")
            await append(opened, source, mine, event(0), event(1, "b"))
            await append(opened, source, mine, event(0, "other"), event(1, "b", 5, 77))
            await append(opened, source, mine, event(1, "b", deleted=True))
            assert await self.raw_rows(place, "plane") == before
            await append(opened, source, mine, event(1, "other"), event(2, "c"), event(2, "d"))
            rows = await opened.rows_of_source(mine, source.id, 0, 99)
            assert [(row.key, row.sequence) for row in rows] == [(("a",), 0), (("b",), 1), (("c",), 2)]

        run(check())

    def test_skipped_sequence_is_decided(self, opened: HistoryStore, run: Run) -> None:
        """A sequence below the position that has no row was a dead letter: it does not become a row later."""

        async def check() -> None:
            [mine] = await register(opened, group())
            source = await opened.claim(topic())
            await append(opened, source, mine, event(0), event(2))
            await append(opened, source, mine, event(1), upto=3)
            assert [row.sequence for row in await opened.rows_of_source(mine, source.id, 0, 99)] == [0, 2]

        run(check())

    def test_old_owner_is_fenced(self, opened: HistoryStore, place: str, run: Run) -> None:
        """Case 22: after another claim nothing of the old owner's is written: no row, no position, no lease."""

        async def check() -> None:
            [mine] = await register(opened, group())
            old = await opened.claim(topic())
            await append(opened, old, mine, event(0))
            async with self.store(place) as other:
                new = await other.claim(topic())
                before = await other.sources()
                for write in (
                    append(opened, old, mine, event(1)),
                    append(opened, old, mine, event(0)),
                    opened.mark_online(old, 1),
                    opened.renew_lease(old, 60),
                ):
                    with pytest.raises(Fenced):
                        await write
                assert await other.sources() == before
                await append(other, new, mine, event(1))
            assert [row.sequence for row in await opened.rows_of_source(mine, old.id, 0, 99)] == [0, 1]

        run(check())

    def test_refused_row_refuses_the_batch(self, opened: HistoryStore, run: Run) -> None:
        """A value that no database of UTF-8 text takes is an InvalidEvent; nothing of its batch is written."""

        async def check() -> None:
            [mine] = await register(opened, group(features={"s": "string"}))
            source = await opened.claim(topic())
            with pytest.raises(InvalidEvent) as caught:
                await append(opened, source, mine, event(0, "a", 0, "fine"), event(1, "a", 0, "bad \ud800 secret"))
            assert caught.value.reason is Reason.REJECTED_BY_STORE
            assert "secret" not in str(caught.value)
            assert await opened.rows_of_source(mine, source.id, 0, 99) == []
            assert (await opened.sources())[0].next_sequence == 0
            await append(opened, source, mine, event(0, "a", 0, "fine"))

        run(check())

    def test_ingest_time_never_falls(self, opened: HistoryStore, run: Run) -> None:
        """Rows of a batch share the ingest time that append returns; the source remembers the last one."""

        async def check() -> None:
            [mine] = await register(opened, group())
            source = await opened.claim(topic())
            async with opened.cut() as cut:
                before = cut.now_us
            times = [await append(opened, source, mine, event(at), event(at + 1)) for at in range(0, 20, 2)]
            async with opened.cut() as cut:
                after = cut.now_us
            assert [before, *times, after] == sorted([before, *times, after])
            rows = await opened.rows_of_source(mine, source.id, 0, 99)
            assert [row.ingest_time_us for row in rows] == [time for time in times for _ in range(2)]
            assert (await opened.sources())[0].last_ingest_time_us == times[-1]

        run(check())

    def test_mark_online(self, opened: HistoryStore, run: Run) -> None:
        """The online position is stored on its own, and never falls."""

        async def check() -> None:
            [mine] = await register(opened, group())
            source = await opened.claim(topic())
            await append(opened, source, mine, event(9))
            await opened.mark_online(source, 10)
            await opened.mark_online(source, 4)
            assert (await opened.sources())[0].online_sequence == 10

        run(check())

    def test_leases(self, opened: HistoryStore, place: str, run: Run) -> None:
        """Each writer leases a push source of its own; one given back, or run out, is taken again by a new owner."""

        async def check() -> None:
            async with self.store(place) as other:
                first, second = await opened.lease_push_source(600), await other.lease_push_source(600)
                assert first.id != second.id
                assert first.name.kind is second.name.kind is SourceKind.PUSH
                await opened.renew_lease(first, 600)
                await opened.renew_lease(first, 0)
                again = await other.lease_push_source(0.001)
                assert (again.id, again.owner) == (first.id, first.owner + 1)
                await _until_after(opened, 1_000)
                third = await opened.lease_push_source(600)
                assert (third.id, third.owner) == (first.id, again.owner + 1)
                with pytest.raises(Fenced):
                    await other.renew_lease(again, 600)
                await other.claim(second.name)
                with pytest.raises(Fenced):
                    await other.renew_lease(second, 600)

        run(check())

    def test_unfinished_push_sources(self, opened: HistoryStore, run: Run) -> None:
        """A push source whose writer died between history and online is listed, and leased before all others."""

        async def check() -> None:
            [mine] = await register(opened, group())
            topics = await opened.claim(topic())
            await append(opened, topics, mine, event(0))
            finished, killed = await opened.lease_push_source(600), await opened.lease_push_source(600)
            for source in (finished, killed):
                await append(opened, source, mine, event(0))
            await opened.mark_online(finished, 1)
            assert await opened.unfinished_push_sources() == []
            for source in (finished, killed):
                await opened.renew_lease(source, 0)
            assert [each.id for each in await opened.unfinished_push_sources()] == [killed.id]
            taken = await opened.lease_push_source(600)
            assert (taken.id, taken.online_sequence, taken.next_sequence) == (killed.id, 0, 1)
            assert await opened.unfinished_push_sources() == []

        run(check())

    def test_sources_do_not_wait_for_each_other(self, opened: HistoryStore, place: str, run: Run) -> None:
        """Several clients append to several sources at once; every row of every one is there."""

        async def write(store: HistoryStore, partition: int, mine: Any) -> None:
            source = await store.claim(topic(partition=partition))
            for at in range(0, 60, 3):
                await append(store, source, mine, *(event(each, f"{each % 5}") for each in range(at, at + 3)))

        async def check() -> None:
            [mine] = await register(opened, group())
            async with self.store(place) as other:
                await asyncio.gather(
                    *(write(store, at, mine) for at, store in enumerate((opened, other, opened, other)))
                )
            for source in await opened.sources():
                rows = await opened.rows_of_source(mine, source.id, 0, 99)
                assert [row.sequence for row in rows] == list(range(60))

        run(check())

    def test_cancelled_append_is_all_or_nothing(self, opened: HistoryStore, run: Run) -> None:
        """Case 13: an append that is cut off anywhere has an unknown outcome; claiming again tells it."""

        async def check() -> None:
            [mine] = await register(opened, group())
            for steps in range(0, 60, 4):
                source = await opened.claim(topic(partition=steps))
                task = asyncio.create_task(append(opened, source, mine, *(event(each) for each in range(20))))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                again = await opened.claim(topic(partition=steps))
                rows = await opened.rows_of_source(mine, source.id, 0, 99)
                assert (again.next_sequence, len(rows)) in {(0, 0), (20, 20)}
                await append(opened, again, mine, *(event(each) for each in range(20)))
                assert len(await opened.rows_of_source(mine, source.id, 0, 99)) == 20

        run(check())


async def _until_after(store: HistoryStore, wait_us: int) -> None:
    """Return when the store's own clock has gone on by `wait_us`."""
    async with store.cut() as cut:
        start = cut.now_us
    while True:
        async with store.cut() as cut:
            if cut.now_us > start + wait_us:
                return


def _extreme_events() -> list[Event]:
    """Every extreme value in an event of its own, the other features null, and a row of all firsts."""
    names = list(EXTREMES)
    events: list[Event] = [event(0, "all", 0, *(EXTREMES[name][0] for name in names))]
    for at, name in enumerate(names):
        for value in EXTREMES[name]:
            values: list[Plain] = [None] * len(names)
            values[at] = value
            events.append(event(len(events), f"{name} {len(events)}", len(events), *values))
    return events


def _exact(values: Any) -> list[str]:
    """Values with their types, so that -0.0, 0.0, 0 and False differ."""
    return [f"{type(value).__name__} {value!r}" for value in values]


def _plain(raw: Any, name: str) -> Plain:
    return bool(raw) if name == "a_boolean" and raw is not None else raw
