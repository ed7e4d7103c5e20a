"""What every history store must do: finding events by identity, and taking in dead letters that were replayed."""

from __future__ import annotations

import asyncio

import pytest

from oomstream.schemas.errors import DefinitionChanged, InvalidEvent, InvalidRequest, Reason
from oomstream.schemas.events import Event
from oomstream.schemas.groups import FeatureGroup
from oomstream.stores.base import DlqCounts, HistoryBatch, HistoryStore
from oomstream.stores.testing.history_suite import HistorySuite, append, register, topic
from oomstream.stores.testing.samples import TIME_US, event, group
from oomstream.stores.testing.suite import Run


class ReplayTests(HistorySuite):
    """Identities, and replays."""

    def test_identities_in_history(self, opened: HistoryStore, run: Run) -> None:
        """Of thousands of sequences of one source, those are told, or given as rows, that the group's history has."""

        async def check() -> None:
            mine, other = await register(opened, group(), group("other"))
            source, second = await opened.claim(topic()), await opened.claim(topic(partition=1))
            await append(opened, source, mine, *(event(at, f"{at}") for at in range(0, 6_000, 2)))
            await append(opened, second, mine, event(1), event(7))
            await append(opened, source, other, event(7_001))
            found = await opened.identities_in_history(mine, source.id, range(5_999, -1, -1))
            assert found == set(range(0, 6_000, 2))
            assert await opened.identities_in_history(mine, second.id, [7, 6, 7]) == {7}
            assert await opened.identities_in_history(mine, source.id, []) == set()
            assert await opened.identities_in_history(mine, source.id, [7_001]) == set()
            assert await opened.identities_in_history(mine, 99, [1, 7]) == set()
            rows = await opened.rows_at(mine, source.id, range(5_999, -1, -1))
            assert [(row.sequence, row.key) for row in rows] == [(at, (f"{at}",)) for at in range(0, 6_000, 2)]
            assert await opened.rows_at(mine, second.id, [7, 6]) == await opened.rows_of_source(mine, second.id, 2, 99)
            assert await opened.rows_at(mine, source.id, []) == []

        run(check())

    def test_replayed_letters_become_rows_of_their_own_source(self, opened: HistoryStore, run: Run) -> None:
        """What was skipped below the position becomes rows; position, owner and counts of letters stay."""

        async def check() -> None:
            [mine] = await register(opened, group())
            source = await opened.claim(topic())
            await opened.append(source, HistoryBatch(mine, [event(0), event(2)], 5, 2, DlqCounts(2, 5, 3)))
            [before] = await opened.sources()
            letters = [event(1, "b"), event(2), event(3, "b", 9, deleted=True), event(5, "c")]
            done = await opened.append_replayed(source.id, mine, letters)
            assert done.written == {1, 3}
            found = [(row.sequence, row.key, row.event_time_us, row.deleted, row.values) for row in done.rows]
            assert found == [
                (1, ("b",), TIME_US, False, (1,)),
                (2, ("a",), TIME_US, False, (2,)),
                (3, ("b",), TIME_US + 9, True, (None,)),
            ]
            assert {row.source_id for row in done.rows} == {source.id}
            assert await opened.rows_of_source(mine, source.id, 1, 99) == done.rows
            assert [row and row.sequence for row in await opened.newest(mine, [("b",), ("c",)])] == [3, None]
            [after] = await opened.sources()
            assert after.last_ingest_time_us == done.rows[0].ingest_time_us
            kept = (before.owner, before.next_sequence, before.online_sequence, before.dlq)
            assert (after.owner, after.next_sequence, after.online_sequence, after.dlq) == kept
            await append(opened, source, mine, event(5, "c"))

        run(check())

    def test_replaying_twice_changes_nothing(self, opened: HistoryStore, place: str, run: Run) -> None:
        """A second replay finds the rows of the first, and leaves them as they are, whatever comes with it."""

        async def check() -> None:
            [mine] = await register(opened, group())
            source = await opened.claim(topic())
            await append(opened, source, mine, event(0), upto=9)
            first = await opened.append_replayed(source.id, mine, [event(1), event(4, "b")])
            before = await self.raw_rows(place, "plane"), await opened.sources()
            for again in ([event(1), event(4, "b")], [event(1, "b", 7, 77), event(4, "b", deleted=True)]):
                assert await opened.append_replayed(source.id, mine, again) == (first.rows, frozenset())
            assert await opened.append_replayed(source.id, mine, []) == ([], frozenset())
            assert (await self.raw_rows(place, "plane"), await opened.sources()) == before
            twice = await opened.append_replayed(source.id, mine, [event(6), event(6, "other")])
            assert [(row.sequence, row.key) for row in twice.rows] == [(6, ("a",))]

        run(check())

    def test_replayed_rows_are_ingested_when_they_are_replayed(self, opened: HistoryStore, run: Run) -> None:
        """Their ingest time is the clock of their transaction, and the source's rows never fall behind one another."""

        async def check() -> None:
            [mine] = await register(opened, group())
            source = await opened.claim(topic())
            times = [await append(opened, source, mine, event(0), upto=9)]
            for at in range(1, 5):
                async with opened.cut() as cut:
                    times.append(cut.now_us)
                done = await opened.append_replayed(source.id, mine, [event(at)])
                times += [row.ingest_time_us for row in done.rows]
                times.append(await append(opened, source, mine, event(9 + at)))
            assert times == sorted(times)

        run(check())

    def test_refused_replays(self, opened: HistoryStore, run: Run) -> None:
        """An unknown source, an outdated definition and a row that cannot be stored refuse the replay as a whole."""

        async def check() -> None:
            [first] = await register(opened, group(features={"s": "string"}))
            source = await opened.claim(topic())
            await append(opened, source, first, event(0, "a", 0, "x"), upto=9)
            with pytest.raises(InvalidRequest, match="no source 7"):
                await opened.append_replayed(7, first, [event(1, "a", 0, "x")])
            [second] = await register(opened, group(features={"s": "string"}, doc="newer"))
            with pytest.raises(DefinitionChanged):
                await opened.append_replayed(source.id, first, [event(1, "a", 0, "x")])
            with pytest.raises(InvalidEvent) as caught:
                await opened.append_replayed(
                    source.id, second, [event(1, "a", 0, "fine"), event(2, "a", 0, "bad \ud800 secret")]
                )
            assert caught.value.reason is Reason.REJECTED_BY_STORE
            assert "secret" not in str(caught.value)
            assert await opened.identities_in_history(second, source.id, range(9)) == {0}

        run(check())

    def test_replays_beside_the_owner_and_each_other(self, opened: HistoryStore, place: str, run: Run) -> None:
        """Clients that replay the same letters at once, while the owner appends, make one row of each, and all end."""

        async def own(mine: FeatureGroup) -> None:
            source = await opened.claim(topic())
            for at in range(100, 160, 3):
                await append(opened, source, mine, *(event(each, "a", each) for each in range(at, at + 3)))

        async def replay(store: HistoryStore, mine: FeatureGroup, source_id: int) -> list[int]:
            written: list[int] = []
            for at in range(0, 90, 6):
                letters = [event(each, f"{each % 5}", each) for each in range(at, at + 9)]
                written += (await store.append_replayed(source_id, mine, letters)).written
            return written

        async def check() -> None:
            [mine] = await register(opened, group())
            source = await opened.claim(topic())
            await append(opened, source, mine, event(99), upto=100)
            async with self.store(place) as other:
                owner = asyncio.ensure_future(own(mine))
                replays = (replay(store, mine, source.id) for store in (opened, other, opened))
                written = await asyncio.gather(*replays)
                await owner
            assert sorted(each for some in written for each in some) == list(range(93))
            rows = await opened.rows_of_source(mine, source.id, 0, 999)
            assert [row.sequence for row in rows] == [*range(93), *range(99, 160)]

        run(check())

    def test_cancelled_replay_is_all_or_nothing(self, opened: HistoryStore, run: Run) -> None:
        """A replay that is cut off anywhere wrote all or nothing, holds up nobody, and done again is complete."""

        async def check() -> None:
            [mine] = await register(opened, group())
            for steps in range(0, 60, 4):
                source = await opened.claim(topic(partition=steps))
                await append(opened, source, mine, event(20))
                letters: list[Event] = [event(each) for each in range(20)]
                task = asyncio.create_task(opened.append_replayed(source.id, mine, letters))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                again = await opened.claim(topic(partition=steps))
                await append(opened, again, mine, event(21))
                assert len(await opened.identities_in_history(mine, source.id, range(20))) in {0, 20}
                done = await opened.append_replayed(source.id, mine, letters)
                assert [row.sequence for row in done.rows] == list(range(20))

        run(check())
