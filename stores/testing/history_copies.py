"""What every history store must do for batch groups: online copies, linked tables, and all of it side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.errors import Fenced, InvalidRequest, UnknownRevision
from oomstream.schemas.groups import FeatureGroup
from oomstream.stores.base import HistoryStore
from oomstream.stores.revisions import Revision, RevisionInUse, RevisionRow, Sync, SyncState
from oomstream.stores.testing.history_revisions import batch, lines, now_us, publish, read
from oomstream.stores.testing.history_suite import HistorySuite, register
from oomstream.stores.testing.samples import TIME_US, group
from oomstream.stores.testing.suite import Run


async def sync(store: HistoryStore, mine: FeatureGroup, revision: Revision, *, delay_s: float = 600.0) -> Sync:
    """A copy from its beginning to the flip."""
    begun = await store.begin_sync(mine, revision, lease_s=600)
    await store.flip(mine, begun, purge_delay_s=delay_s)
    return begun


async def seen(store: HistoryStore, name: str = "state") -> tuple[int, int, int]:
    """What readers learn of a batch group."""
    found: RegisteredGroup = (await store.load_catalog()).groups[name]
    return found.sync_id, found.online_revision_id, found.online_time_us


class CopyTests(HistorySuite):
    """Copies online, and linked tables."""

    def test_life_of_a_copy(self, opened: HistoryStore, run: Run) -> None:
        """Nobody sees a copy before its flip; then the one before is kept for a while, given up once, and forgotten."""

        async def check() -> None:
            [mine] = await register(opened, batch())
            one, two = [await publish(opened, mine, lines(at), time=at + 1) for at in range(2)]
            assert await seen(opened) == (0, 0, 0)
            first = await opened.begin_sync(mine, one, lease_s=600)
            assert (first.id, first.group_id, first.revision_id, first.state) == (1, mine.id, one.id, SyncState.WRITING)
            assert await seen(opened) == (0, 0, 0)
            assert await opened.live_syncs() == await opened.due_purges() == []
            assert await opened.flip(mine, first, purge_delay_s=0) == one
            assert await seen(opened) == (1, one.id, one.time_us)
            second = await sync(opened, mine, two, delay_s=600)
            assert await opened.flip(mine, second, purge_delay_s=0) == two  # its answer was lost
            assert await seen(opened) == (2, two.id, two.time_us)
            assert [each.id for each in await opened.live_syncs()] == [2]
            assert await opened.due_purges() == []
            assert [await opened.claim_purge(each) for each in (first, second)] == [False, False]
            back = await sync(opened, mine, one, delay_s=0)
            assert await seen(opened) == (3, one.id, one.time_us)
            [due] = await opened.due_purges()
            assert (due.id, due.state) == (2, SyncState.RETIRED)
            assert [await opened.claim_purge(each) for each in (due, due, back)] == [True, True, False]
            assert [each.id for each in await opened.due_purges()] == [2]
            await opened.forget_sync(due)
            await opened.forget_sync(due)
            assert [(each.id, each.state) for each in await opened.syncs()] == [
                (1, SyncState.RETIRED),
                (3, SyncState.LIVE),
            ]

        run(check())

    def test_first_sync_gives_the_time(self, opened: HistoryStore, run: Run) -> None:
        """A revision imported without a time has that of its first flip, ever after; one with a time keeps it."""

        async def check() -> None:
            [mine] = await register(opened, batch())
            loose, fixed = await publish(opened, mine, lines(1)), await publish(opened, mine, lines(2), time=1)
            begun = await opened.begin_sync(mine, loose, lease_s=600)
            before_us = await now_us(opened)
            moved = await opened.flip(mine, begun, purge_delay_s=0)
            assert before_us <= moved.time_us <= await now_us(opened)
            assert (moved.anchored, moved.moved, moved.create_time_us) == (True, True, loose.create_time_us)
            assert moved.time_at(moved.time_us) == moved.time_us
            assert moved.time_at(moved.time_us - 1) == loose.create_time_us
            assert await seen(opened) == (begun.id, loose.id, moved.time_us)
            again = await opened.flip(mine, await opened.begin_sync(mine, loose, lease_s=600), purge_delay_s=0)
            assert again == moved
            kept = await opened.flip(mine, await opened.begin_sync(mine, fixed, lease_s=600), purge_delay_s=0)
            assert kept == fixed

        run(check())

    def test_a_copy_in_place_of_one(self, opened: HistoryStore, run: Run) -> None:
        """A copy that is to take the place of a certain one is not shown in place of another."""

        async def check() -> None:
            [mine] = await register(opened, batch())
            one, two = [await publish(opened, mine, lines(at), time=at + 1) for at in range(2)]
            begun = await opened.begin_sync(mine, one, lease_s=600)
            with pytest.raises(Fenced):
                await opened.flip(mine, begun, purge_delay_s=0, instead_of=99)
            assert await seen(opened) == (0, 0, 0)
            await opened.flip(mine, begun, purge_delay_s=0)
            again, late = [await opened.begin_sync(mine, one, lease_s=600) for _ in range(2)]
            for _ in range(2):  # its answer was lost
                assert await opened.flip(mine, again, purge_delay_s=0, instead_of=begun.id) == one
            other = await sync(opened, mine, two)
            with pytest.raises(Fenced):
                await opened.flip(mine, late, purge_delay_s=0, instead_of=again.id)
            assert await seen(opened) == (other.id, two.id, two.time_us)
            await opened.renew_sync(late, lease_s=0)
            assert late.id in {each.id for each in await opened.due_purges()}

        run(check())

    def test_a_writer_that_stood_still(self, opened: HistoryStore, run: Run) -> None:
        """A copy whose lease is over is given up for good: its writer cannot show it; one that renewed can."""

        async def check() -> None:
            [mine] = await register(opened, batch())
            made = await publish(opened, mine, lines(1), time=1)
            dead, alive = [await opened.begin_sync(mine, made, lease_s=0) for _ in range(2)]
            await opened.renew_sync(alive, lease_s=600)
            assert [each.id for each in await opened.due_purges()] == [dead.id]
            assert [await opened.claim_purge(each) for each in (dead, alive)] == [True, False]
            for late in (opened.renew_sync(dead, lease_s=600), opened.flip(mine, dead, purge_delay_s=0)):
                with pytest.raises(Fenced):
                    await late
            await opened.forget_sync(dead)
            with pytest.raises(Fenced):
                await opened.flip(mine, dead, purge_delay_s=0)
            await opened.flip(mine, alive, purge_delay_s=0)
            with pytest.raises(Fenced):
                await opened.renew_sync(alive, lease_s=600)
            assert (await seen(opened))[0] == alive.id

        run(check())

    def test_dropped_revisions(self, opened: HistoryStore, place: str, run: Run) -> None:
        """What is online, being synced, or the dummy stays; a dropped one leaves nothing, and cannot be synced."""

        async def check() -> None:
            [mine] = await register(opened, batch())
            one, two, three = [await publish(opened, mine, lines(at), time=at + 1) for at in range(3)]
            await sync(opened, mine, one)
            await opened.begin_sync(mine, two, lease_s=600)
            dummy = (await opened.revisions(mine))[0]
            for kept in (one, two, dummy):
                with pytest.raises(RevisionInUse):
                    await opened.drop_revision(kept)
            await opened.drop_revision(three)
            await opened.drop_revision(three)
            assert [each.id for each in await opened.revisions(mine)] == [dummy.id, one.id, two.id]
            assert not await self.has_table(place, three.table)
            with pytest.raises(UnknownRevision):
                await opened.begin_sync(mine, three, lease_s=600)
            assert (await publish(opened, mine, lines(9))).id == three.id + 1

        run(check())

    def test_linked_tables(self, opened: HistoryStore, place: str, run: Run) -> None:
        """A table of the user's is a revision as it is, is read in place, and is neither changed nor dropped."""

        async def check() -> None:
            [mine] = await register(opened, batch(features={"n": "long", "s": ["null", "string"]}))
            await self.raw_sql(
                place,
                "CREATE TABLE warehouse_1 (extra INT, n BIGINT, s VARCHAR(20), k VARCHAR(40))",
                "INSERT INTO warehouse_1 VALUES (1, 5, 'x', 'b'), (2, -1, NULL, 'B'), (3, 7, '', 'a ')",
            )
            made = await opened.link_revision(mine, "warehouse_1", time_us=TIME_US, doc="theirs")
            assert (made.id, made.table, made.linked, made.time_us, made.doc) == (
                2,
                "warehouse_1",
                True,
                TIME_US,
                "theirs",
            )
            rows = [RevisionRow(("B",), (-1, None)), RevisionRow(("a ",), (7, "")), RevisionRow(("b",), (5, "x"))]
            assert await opened.scan_revision(mine, made) == rows
            assert await opened.scan_revision(mine, made, after=("B",), limit=1) == rows[1:2]
            arrow = await read(opened, mine, made, batch_rows=1)
            assert [((row["k"],), (row["n"], row["s"])) for row in arrow] == rows
            some = await read(opened, mine, made, keys=[("b",), ("a",)])
            assert [row["k"] for row in some] == ["b"]
            assert await opened.load_catalog()
            await opened.drop_revision(made)
            assert [row["extra"] for row in await self.raw_table(place, "warehouse_1")] == [1, 2, 3]
            again = await opened.link_revision(mine, "warehouse_1")
            await self.raw_sql(place, "DROP TABLE warehouse_1")
            with pytest.raises(InvalidRequest, match="warehouse_1"):
                await opened.scan_revision(mine, again)
            with pytest.raises(InvalidRequest, match="warehouse_1"):
                await read(opened, mine, again)

        run(check())

    def test_tables_that_cannot_be_linked(self, opened: HistoryStore, place: str, run: Run) -> None:
        """What cannot be a revision is refused by table and column, and leaves nothing, not even a number."""

        async def check() -> None:
            mine, other = await register(
                opened, batch(features={"n": "int", "s": ["null", "string"]}), group("other", keys={"k": "string"})
            )
            for number, (columns, row, said) in enumerate(
                (
                    ("n BIGINT, s VARCHAR(9)", "1, 'x'", "no column k"),
                    ("k VARCHAR(9), s VARCHAR(9)", "'a', 'x'", "no column n"),
                    ("k VARCHAR(9), n BIGINT, s VARCHAR(9)", "NULL, 1, 'x'", "column k"),
                    ("k VARCHAR(9), n BIGINT, s VARCHAR(9)", "'', 1, 'x'", "column k"),
                    ("k VARCHAR(300), n BIGINT, s VARCHAR(9)", f"'{'x' * 256}', 1, 'x'", "column k"),
                    ("k VARCHAR(9), n BIGINT, s VARCHAR(9)", "'a', NULL, 'x'", "column n"),
                    ("k VARCHAR(9), n BIGINT, s VARCHAR(9)", "'a', 2147483648, 'x'", "column n"),
                    ("k VARCHAR(9), n BIGINT, s INT", "'a', 1, 5", "column s"),
                    ("k VARCHAR(9), n VARCHAR(9), s VARCHAR(9)", "'a', 'x', 'x'", "column n"),
                    ("k VARCHAR(9), n BIGINT, s VARCHAR(9)", "'a', 1, 'x'), ('a', 2, 'x'", "twice"),
                )
            ):
                table = f"warehouse_{number}"
                insert = f"INSERT INTO {table} VALUES ({row})"  # noqa: S608 - our own words
                await self.raw_sql(place, f"CREATE TABLE {table} ({columns})", insert)
                with pytest.raises(InvalidRequest, match=f"(?s){table}.*{said}"):
                    await opened.link_revision(mine, table)
            made = await publish(opened, mine, [RevisionRow(("a",), (1, "x"))])
            for table in (
                "nothing",
                "source",
                "REVISION",
                f"history_{other.name}",
                made.table,
                "a.b",
                "a`b",
                'a"b',
                "",
            ):
                with pytest.raises(InvalidRequest, match="table"):
                    await opened.link_revision(mine, table)
            assert [each.id for each in await opened.revisions(mine)] == [1, made.id] == [1, 2]

        run(check())

    def test_side_by_side(self, opened: HistoryStore, place: str, run: Run) -> None:
        """Imports, syncs, purges and gc of two groups from three clients: none fails, and one copy of each is seen."""

        async def check() -> None:
            groups = await register(opened, batch("one"), batch("two"))
            async with self.store(place) as second, self.store(place) as third:
                clients = (opened, second, third)

                async def import_and_sync(number: int) -> None:
                    store, mine = clients[number % 3], groups[number % 2]
                    made = await publish(store, mine, lines(*range(50 * number, 50 * number + 50)))
                    begun = await store.begin_sync(mine, made, lease_s=600)
                    await store.renew_sync(begun, lease_s=600)
                    await store.flip(mine, begun, purge_delay_s=0)

                async def discard(number: int) -> None:
                    store = clients[number % 3]
                    draft = await store.begin_revision(groups[number % 2])
                    await store.load_revision(groups[number % 2], draft, lines(1, 2))
                    await store.discard_revision(draft)

                async def tidy(number: int) -> None:
                    store = clients[number % 3]
                    await store.collect_drafts()
                    for due in await store.due_purges():
                        if await store.claim_purge(due):
                            await store.forget_sync(due)
                    await store.load_catalog()

                work: list[Callable[[int], Awaitable[None]]] = [import_and_sync, discard, tidy]
                await asyncio.gather(*(each(number) for number in range(6) for each in work))
            await self._all_is_well(opened, groups)

        run(check())

    @staticmethod
    async def _all_is_well(store: HistoryStore, groups: list[FeatureGroup]) -> None:
        live = await store.live_syncs()
        assert [each.group_id for each in live] == [each.id for each in groups]
        assert [await store.claim_purge(each) for each in live] == [False, False]
        everything: set[int] = set()
        for mine in groups:
            dummy, *made = await store.revisions(mine)
            assert dummy.is_dummy
            assert len(made) == 3
            everything |= {dummy.id, *(each.id for each in made)}
            for each in made:
                rows = await store.scan_revision(mine, each)
                first = int(str(rows[0].values[0]))
                assert rows == lines(*range(first, first + 50))
        assert len(everything) == 8
        shown = {each.revision_id for each in live}
        assert shown == {(await seen(store, mine.name))[1] for mine in groups}
