"""What every history store must do for batch groups: imports, linked tables, and reading revisions."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from oomstream.schemas.errors import DefinitionChanged, Fenced, InvalidEvent, InvalidRequest
from oomstream.schemas.events import Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.keys import encode_entity
from oomstream.stores.base import HistoryStore
from oomstream.stores.revisions import DuplicateKey, Revision, RevisionRow
from oomstream.stores.testing.history_suite import HistorySuite, register
from oomstream.stores.testing.samples import EXTREMES, TIME_US, TYPES, group
from oomstream.stores.testing.suite import Run

_TEXTS = ("a", "a ", "A", "a\0", "é", "e\u0301", "\uffff", "🚀", "'", "%s", "1", "01", "ß" * 127)
_LEASE_OVER_S = 1e-6


def batch(name: str = "state", features: dict[str, Any] | None = None, **more: Any) -> FeatureGroup:
    """An unregistered batch group."""
    return group(name, features, category="batch", **more)


def lines(*numbers: int, prefix: str = "k") -> list[RevisionRow]:
    """Rows of a group whose key is one text and whose only feature is a long."""
    return [RevisionRow((f"{prefix}{number:06}",), (number,)) for number in numbers]


async def publish(
    store: HistoryStore, mine: FeatureGroup, rows: list[RevisionRow], *, time: int | None = None, doc: str = ""
) -> Revision:
    """Import rows as a revision; `time` is in microseconds after `TIME_US`."""
    draft = await store.begin_revision(mine, doc=doc)
    await store.load_revision(mine, draft, rows)
    return await store.publish_revision(mine, draft, time_us=None if time is None else TIME_US + time)


async def read(store: HistoryStore, mine: FeatureGroup, revision: Revision, **how: Any) -> list[dict[str, Any]]:
    """Rows of a revision as a cut gives them; no table is empty."""
    async with store.cut() as cut:
        names = [each.name for each in mine.features]
        tables: list[pa.Table] = [each async for each in cut.scan_revision(mine, revision, names, **how)]
    assert all(table.num_rows for table in tables)
    return [row for table in tables for row in table.to_pylist()]


class RevisionTests(HistorySuite):
    """Revisions."""

    def test_first_import(self, opened: HistoryStore, place: str, run: Run) -> None:
        """A group's first import makes the dummy revision too; nobody sees a draft; each has a table of its own."""

        async def check() -> None:
            [mine] = await register(opened, batch())
            before_us = await now_us(opened)
            draft = await opened.begin_revision(mine, doc="the first")
            await opened.load_revision(mine, draft, lines(2, 0, 1))
            assert await opened.revisions() == []
            made = await opened.publish_revision(mine, draft)
            dummy, first = await opened.revisions(mine)
            assert made == first
            assert (dummy.id, dummy.time_us, dummy.is_dummy, dummy.doc) == (1, 0, True, "dummy revision")
            assert dummy.table == f"offline_batch_snapshot_{mine.id}_1"
            assert (first.id, first.group_id, first.doc, first.version) == (2, mine.id, "the first", mine.version)
            assert (first.anchored, first.moved, first.linked, first.is_dummy) == (False, False, False, False)
            assert before_us <= first.time_us == first.create_time_us == first.modify_time_us <= await now_us(opened)
            assert await opened.scan_revision(mine, first) == lines(0, 1, 2)
            assert await opened.scan_revision(mine, dummy) == []
            raw = await self.raw_table(place, first.table)
            assert [(text(row["k"]), row["n"]) for row in raw] == [
                (row.key[0], row.values[0]) for row in lines(0, 1, 2)
            ]
            assert await self.raw_table(place, dummy.table) == []
            second = await publish(opened, mine, lines(7), time=5)
            assert (second.id, second.time_us, second.anchored) == (3, TIME_US + 5, True)
            assert await opened.revisions() == [dummy, first, second]

        run(check())

    def test_groups_are_apart(self, opened: HistoryStore, run: Run) -> None:
        """Ids count over all groups, revisions are listed by group; stream groups have none."""

        async def check() -> None:
            one, two, stream = await register(opened, batch("one"), batch("two-b"), group("stream"))
            made = [await publish(opened, each, lines(at)) for at, each in enumerate((one, two, one))]
            assert [each.id for each in made] == [2, 4, 5]
            assert [each.id for each in await opened.revisions(one)] == [1, 2, 5]
            assert [each.id for each in await opened.revisions(two)] == [3, 4]
            assert await opened.revisions(stream) == []
            with pytest.raises(InvalidRequest, match="stream group"):
                await opened.begin_revision(stream)

        run(check())

    def test_every_value_of_a_revision(self, opened: HistoryStore, run: Run) -> None:
        """Each type's extremes are stored exactly and come back alike from both ways of reading."""

        async def check() -> None:
            [mine] = await register(opened, batch("all", {name: ["null", kind] for name, kind in TYPES.items()}))
            columns = [EXTREMES[feature.name] for feature in mine.features]
            height = max(map(len, columns))
            rows = [
                RevisionRow((f"{at:03}",), tuple(column[at] if at < len(column) else None for column in columns))
                for at in range(height)
            ]
            made = await publish(opened, mine, rows)
            found = await opened.scan_revision(mine, made)
            assert [exact(row.values) for row in found] == [exact(row.values) for row in rows]
            arrow = await read(opened, mine, made)
            names = [feature.name for feature in mine.features]
            assert [exact(tuple(row[name] for name in names)) for row in arrow] == [exact(row.values) for row in rows]

        run(check())

    def test_order_and_pages_of_revisions(self, opened: HistoryStore, run: Run) -> None:
        """Rows come in the order of exact bytes, page by page, all or those of some keys, each once."""

        async def check() -> None:
            [mine] = await register(opened, batch(keys={"a": "string", "b": "long"}))
            keys = [(name, number) for name in _TEXTS for number in (-(1 << 63), -1, 0, (1 << 63) - 1)]
            made = await publish(opened, mine, [RevisionRow(key, (at,)) for at, key in enumerate(keys)])
            ordered = sorted(keys, key=lambda key: (key[0].encode(), key[1]))
            found: list[tuple[Plain, ...]] = []
            while page := await opened.scan_revision(mine, made, after=found[-1] if found else None, limit=7):
                assert len(page) <= 7
                found += [row.key for row in page]
            assert found == ordered

            def of(rows: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
                return [(row["a"], row["b"]) for row in rows]

            for rows in (1, 3, 1000):
                assert of(await read(opened, mine, made, batch_rows=rows)) == ordered
            wanted = [*keys[::5], ("nobody", 0), *keys[::5]]
            for rows in (1, 1000):
                assert of(await read(opened, mine, made, keys=wanted, batch_rows=rows)) == [
                    key for key in ordered if key in wanted
                ]
            assert await read(opened, mine, made, keys=[]) == []
            assert await read(opened, mine, made, keys=[("nobody", 0)]) == []

        run(check())

    def test_many_rows_of_a_revision(self, opened: HistoryStore, run: Run) -> None:
        """Thousands of rows go in at once and come back, with thousands of keys asked for too."""

        async def check() -> None:
            [mine] = await register(opened, batch())
            made = await publish(opened, mine, lines(*range(12_000)))
            assert [row["n"] for row in await read(opened, mine, made, batch_rows=5_000)] == list(range(12_000))
            keys = [row.key for row in lines(*range(0, 12_000, 7))]
            assert [row["n"] for row in await read(opened, mine, made, keys=keys)] == list(range(0, 12_000, 7))

        run(check())

    def test_second_row_of_an_entity(self, opened: HistoryStore, run: Run) -> None:
        """A key that is there already, among the rows or in the table, is named by its place; nothing is written."""

        async def check() -> None:
            [mine] = await register(opened, batch())
            draft = await opened.begin_revision(mine)
            await opened.load_revision(mine, draft, lines(*range(1000)))
            for rows, at in (
                (lines(1000, 1001, 1000), 2),
                (lines(*range(1000, 3000), 5), 2000),
                ([*lines(1000), *lines(999), *lines(998)], 1),
            ):
                with pytest.raises(DuplicateKey) as found:
                    await opened.load_revision(mine, draft, rows)
                assert found.value.at == at
                assert "k0" not in str(found.value)
            await opened.load_revision(mine, draft, lines(1000))
            made = await opened.publish_revision(mine, draft)
            assert [row.values[0] for row in await opened.scan_revision(mine, made)] == list(range(1001))

        run(check())

    def test_rejected_row_of_a_revision(self, opened: HistoryStore, run: Run) -> None:
        """A row that the database does not take is no reason to keep the others of its call, nor to lose the draft."""

        async def check() -> None:
            [mine] = await register(opened, batch(features={"s": ["null", "string"]}))
            draft = await opened.begin_revision(mine)
            with pytest.raises(InvalidEvent):
                await opened.load_revision(mine, draft, [RevisionRow(("a",), ("x",)), RevisionRow(("b",), ("\ud800",))])
            await opened.load_revision(mine, draft, [RevisionRow(("a",), ("y",))])
            await opened.load_revision(mine, draft, [])
            made = await opened.publish_revision(mine, draft)
            assert await opened.scan_revision(mine, made) == [RevisionRow(("a",), ("y",))]

        run(check())

    def test_discarded_drafts(self, opened: HistoryStore, place: str, run: Run) -> None:
        """A draft that is dropped leaves no table and, where nobody passed it, no gap; again does no harm."""

        async def check() -> None:
            [mine] = await register(opened, batch())
            for _ in range(2):
                draft = await opened.begin_revision(mine)
                assert draft.id == 2
                await opened.load_revision(mine, draft, lines(1))
                await opened.discard_revision(draft)
                await opened.discard_revision(draft)
                for table in (draft.table, draft.table.replace("_2", "_1")):
                    assert not await self.has_table(place, table)
            one, two = await opened.begin_revision(mine), await opened.begin_revision(mine)
            await opened.discard_revision(one)
            with pytest.raises(Fenced):
                await opened.load_revision(mine, one, lines(1))
            await opened.load_revision(mine, two, lines(2))
            made = await opened.publish_revision(mine, two)
            assert await opened.publish_revision(mine, two) == made
            await opened.discard_revision(two)
            assert [each.id for each in await opened.revisions(mine)] == [1, 3]
            assert await opened.scan_revision(mine, made) == lines(2)

        run(check())

    def test_drafts_that_nobody_finishes(self, opened: HistoryStore, place: str, run: Run) -> None:
        """A draft whose lease is over is collected, and its writer finds it gone; one that lives is left alone."""

        async def check() -> None:
            [mine] = await register(opened, batch())
            dead = await opened.begin_revision(mine, lease_s=_LEASE_OVER_S)
            await opened.load_revision(mine, dead, lines(1))
            alive = await opened.begin_revision(mine, lease_s=600)
            assert await opened.collect_drafts() == 1
            assert await opened.collect_drafts() == 0
            for late in (opened.load_revision(mine, dead, lines(2)), opened.publish_revision(mine, dead)):
                with pytest.raises(Fenced):
                    await late
            assert not await self.has_table(place, dead.table)
            await opened.load_revision(mine, alive, lines(3))
            made = await opened.publish_revision(mine, alive)
            assert [each.id for each in await opened.revisions()] == [1, made.id]
            assert await opened.scan_revision(mine, made) == lines(3)

        run(check())

    def test_entities_forgotten_while_a_draft_is_filled(self, opened: HistoryStore, run: Run) -> None:
        """A draft is not published by who does not know of marks made meanwhile; what is published already, is."""

        async def check() -> None:
            [mine] = await register(opened, batch())
            done, draft = await opened.begin_revision(mine), await opened.begin_revision(mine)
            made = await opened.publish_revision(mine, done)
            rows = lines(1, 2)
            await opened.load_revision(mine, draft, rows)
            await opened.forget(mine.entity, [encode_entity(rows[0].key)])
            for time_us in (None, TIME_US):
                with pytest.raises(DefinitionChanged, match="forgotten"):
                    await opened.publish_revision(mine, draft, time_us=time_us)
            assert await opened.publish_revision(mine, done) == made  # its answer was lost
            assert await opened.scan_revision(mine, draft) == rows
            assert await opened.erase_from_revision(mine, draft, [rows[0].key]) == 1
            newest = (await opened.load_catalog()).group(mine.name)
            made = await opened.publish_revision(newest, draft)
            assert await opened.scan_revision(newest, made) == rows[1:]

        run(check())

    def test_features_that_came_later(self, opened: HistoryStore, run: Run) -> None:
        """An older revision reads a later feature's default, or null; drafts know which definition they are of."""

        async def check() -> None:
            [first] = await register(opened, batch())
            old = await publish(opened, first, lines(1))
            more = {"s": {"type": "string", "default": "it's"}, "n": "long", "z": ["null", "double"]}
            [second] = await register(opened, batch(features=more))
            values: dict[str, Plain] = {"s": "it's", "n": 1, "z": None}
            assert await opened.scan_revision(second, old) == [RevisionRow(("k000001",), tuple(values.values()))]
            for keys in (None, [("k000001",)]):
                assert await read(opened, second, old, keys=keys) == [{"k": "k000001", **values}]
            with pytest.raises(DefinitionChanged):
                await opened.begin_revision(first)
            new = await publish(opened, second, [RevisionRow(("a",), ("x", 2, 0.5))])
            assert (old.version, new.version) == (1, 2)
            assert await opened.scan_revision(second, new) == [RevisionRow(("a",), ("x", 2, 0.5))]
            [third] = await register(opened, batch(features={"n": "long"}))
            assert await opened.scan_revision(third, new) == [RevisionRow(("a",), (2,))]

        run(check())

    def test_a_cut_is_of_one_moment(self, opened: HistoryStore, run: Run) -> None:
        """A cut knows the revisions of its moment, and goes on reading them, whatever is imported meanwhile."""

        async def check() -> None:
            [mine] = await register(opened, batch())
            old = await publish(opened, mine, lines(1, 2))
            async with opened.cut() as cut:
                await publish(opened, mine, lines(3))
                dummy, found = await cut.revisions(mine)
                assert (dummy.is_dummy, found) == (True, old)
                assert [table.num_rows async for table in cut.scan_revision(mine, found, ["n"])] == [2]
                assert [table.num_rows async for table in cut.scan_revision(mine, dummy, ["n"])] == []
            async with opened.cut() as cut:
                assert len(await cut.revisions(mine)) == 3

        run(check())

    def test_time_of_a_revision(self, opened: HistoryStore, run: Run) -> None:
        """Only times after 1970 anchor a revision."""

        async def check() -> None:
            [mine] = await register(opened, batch())
            draft = await opened.begin_revision(mine)
            for time_us in (0, -1):
                with pytest.raises(InvalidRequest, match="1970"):
                    await opened.publish_revision(mine, draft, time_us=time_us)
            assert (await opened.publish_revision(mine, draft, time_us=1)).time_us == 1

        run(check())


async def now_us(store: HistoryStore) -> int:
    """The database's clock."""
    async with store.cut() as cut:
        return cut.now_us


def text(value: Any) -> Any:
    """A key field as text."""
    return value.decode() if isinstance(value, bytes) else value


def exact(values: tuple[Plain, ...]) -> list[tuple[str, Plain]]:
    """Values with their types: 1, 1.0 and True are not the same."""
    return [(type(value).__name__, value) for value in values]
