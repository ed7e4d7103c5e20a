"""What every history store must do: making it, and the catalog."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from oomstream.schemas.catalog import Catalog
from oomstream.schemas.errors import DefinitionChanged, InvalidDefinition
from oomstream.schemas.groups import NO_DEFAULT
from oomstream.schemas.plan import make_plan
from oomstream.stores.base import HistoryBatch, HistoryStore
from oomstream.stores.testing.history_suite import HistorySuite, append, register, topic
from oomstream.stores.testing.samples import all_types, event, group
from oomstream.stores.testing.suite import Run


class CatalogTests(HistorySuite):
    """Making the store, and definitions."""

    def test_pairing_id(self, place: str, run: Run) -> None:
        """A place has no UUID before `init`, and the same one ever after."""

        async def check() -> None:
            async with self.store(place) as store:
                assert await store.pairing_id() is None
                made = await store.init()
                assert await store.init() == made
                assert await store.pairing_id() == made
            async with self.store(place) as store:
                assert await store.pairing_id() == made

        run(check())

    def test_opening_and_closing(self, place: str, run: Run) -> None:
        """Closing is harmless before opening and twice; a store that was closed opens again."""
        store = self.store(place)

        async def check() -> None:
            await store.close()
            for _ in range(2):
                await store.open()
                await store.init()
                await store.load_catalog()
                await store.close()
                await store.close()

        run(check())

    def test_catalog_begins_empty(self, opened: HistoryStore, run: Run) -> None:
        """A fresh store has no definitions and no sources, and an empty plan changes nothing."""
        assert run(opened.load_catalog()) == Catalog()
        assert run(opened.apply(make_plan(Catalog(), []))) == Catalog()
        assert run(opened.sources()) == []

    def test_definitions_come_back_as_they_were_applied(self, opened: HistoryStore, place: str, run: Run) -> None:
        """Everything in a definition is stored; ids begin at 1 per kind, in order of creation."""
        mine = group(
            "user-click", {"x": ["null", "string"], "y": {"type": "long", "default": 7}}, {"a": "bytes", "b": "int"},
            ttl="90m", topic="clicks", partitions=3, doc="what they clicked", entity="user",
        )  # fmt: skip
        run(register(opened, mine, group("plane"), all_types()))

        async def reload() -> Catalog:
            async with self.store(place) as other:
                return await other.load_catalog()

        for catalog in (run(opened.load_catalog()), run(reload())):
            got = catalog.group("user-click")
            assert (got.id, got.version, [each.id for each in got.features]) == (1, 1, [1, 2])
            assert (got.keys, got.event_time, got.ttl_us, got.topic) == (
                mine.keys,
                mine.event_time,
                mine.ttl_us,
                "clicks",
            )
            assert (got.partitions, got.doc, got.schema, got.fingerprint) == (
                3,
                mine.doc,
                mine.schema,
                mine.fingerprint,
            )
            assert [each.default for each in got.features] == [None, 7]
            assert catalog.entities["user"].keys == mine.keys
            assert {each.group.id for each in catalog.groups.values()} == {1, 2, 3}
            assert {each.id for each in catalog.entities.values()} == {1, 2, 3}
            assert [each.id for each in catalog.group("plane").features] == [3]
            writer = catalog.groups["user-click"].writers[mine.fingerprint]
            assert (writer.version, writer.schema) == (1, mine.schema)
            assert catalog.groups["plane"].create_time_us > 0

    def test_added_feature_fills_old_rows(self, opened: HistoryStore, run: Run) -> None:
        """Old rows read a new feature's default, deletes nothing; older schemas stay known."""

        async def check() -> None:
            [first] = await register(opened, group())
            source = await opened.claim(topic())
            await append(opened, source, first, event(0), event(1, "b", deleted=True))
            added: dict[str, Any] = {
                "n": "long",
                "i": {"type": "long", "default": 7},
                "f": {"type": "double", "default": -1.5},
                "s": {"type": "string", "default": 'it\'s \\ "so"'},
                "y": {"type": "bytes", "default": "\u0000\u00ff"},
                "t": {"type": "boolean", "default": True},
                "z": ["null", "string"],
            }
            [second] = await register(opened, group(features=added))
            assert (second.version, second.id) == (2, first.id)
            values = (0, 7, -1.5, 'it\'s \\ "so"', b"\x00\xff", True, None)
            rows = await opened.rows_of_source(second, source.id, 0, 9)
            assert [row.values for row in rows] == [values, (None,) * 7]
            names = [each.name for each in second.features]
            async with opened.cut() as cut:
                tables = [table async for table in cut.scan(second, names)]
            assert [tuple(row[name] for name in names) for row in tables[0].to_pylist()] == [values, (None,) * 7]
            registered = (await opened.load_catalog()).groups["plane"]
            assert {each.version for each in registered.writers.values()} == {1, 2}
            with pytest.raises(DefinitionChanged):
                await append(opened, source, first, event(2))
            await append(opened, source, second, event(2, "c", 0, 2, 3, 0.5, "x", b"y", False, "z"))

        run(check())

    def test_retired_feature_comes_back(self, opened: HistoryStore, run: Run) -> None:
        """A retired feature keeps its id, its type and its values, and shows them when it is active again."""

        async def check() -> None:
            both = {"n": "long", "m": ["null", "string"]}
            [first] = await register(opened, group(features=both))
            source = await opened.claim(topic())
            await append(opened, source, first, event(0, "a", 0, 1, "kept"))
            [second] = await register(opened, group())
            assert [each.name for each in second.features] == ["n"]
            assert [(each.name, each.id, str(each.type)) for each in second.retired] == [("m", 2, "string")]
            await append(opened, source, second, event(1, "a", 1))
            [third] = await register(opened, group(features=both))
            assert [each.id for each in third.features] == [1, 2]
            assert third.retired == ()
            rows = await opened.rows_of_source(third, source.id, 0, 9)
            assert [row.values for row in rows] == [(1, "kept"), (1, None)]

        run(check())

    def test_change_of_words_only(self, opened: HistoryStore, run: Run) -> None:
        """A changed ttl or doc is a new version under the same fingerprint."""
        [first] = run(register(opened, group(ttl="7d")))
        [second] = run(register(opened, group(ttl="8d", doc="more")))
        assert (second.version, second.fingerprint, second.doc) == (2, first.fingerprint, "more")
        writers = run(opened.load_catalog()).groups["plane"].writers
        assert [each.version for each in writers.values()] == [2]
        assert first.features[0].default is NO_DEFAULT

    def test_features_have_times_of_their_own(self, opened: HistoryStore, run: Run) -> None:
        """A feature's times are of its registration and of its own last change, not of its group's."""

        def times() -> dict[str, tuple[int, int]]:
            registered = run(opened.load_catalog()).groups["plane"]
            return {each.name: registered.feature_times[each.id] for each in registered.group.features}

        run(register(opened, group(features={"n": "long"})))
        first = times()["n"]
        assert 0 < first[0] == first[1]
        added: dict[str, Any] = {"type": ["null", "string"], "default": None}
        run(register(opened, group(features={"n": "long", "m": added}, doc="more")))
        assert times()["n"] == first
        second = times()["m"]
        assert first[0] < second[0] == second[1]
        run(register(opened, group(features={"n": "long", "m": {**added, "doc": "what m means"}}, doc="more")))
        assert times()["n"] == first
        assert times()["m"][0] == second[0] < times()["m"][1]

    def test_outdated_plan_is_refused(self, opened: HistoryStore, run: Run) -> None:
        """Of plans made from the same catalog only the first is carried out, and a plan only once."""
        for turn in ("new", "changed"):
            before = run(opened.load_catalog())
            first, second = (make_plan(before, [group(doc=f"{turn} {name}")]) for name in ("one", "two"))
            run(opened.apply(first))
            for plan in (second, first):
                with pytest.raises(InvalidDefinition, match="meanwhile"):
                    run(opened.apply(plan))
            assert run(opened.load_catalog()).group("plane").doc == f"{turn} one"

    def test_topic_taken_meanwhile(self, opened: HistoryStore, run: Run) -> None:
        """Two new groups whose plans were made apart cannot get the same topic, nor one the other's DLQ."""
        before = run(opened.load_catalog())
        run(opened.apply(make_plan(before, [group("one", topic="t")])))
        for other in (group("two", topic="t"), group("two", topic="t.dlq")):
            with pytest.raises(InvalidDefinition, match="topic"):
                run(opened.apply(make_plan(before, [other])))
        assert list(run(opened.load_catalog()).groups) == ["one"]

    def test_concurrent_applies(self, opened: HistoryStore, place: str, run: Run) -> None:
        """Two clients that apply different groups at once both succeed, with ids of their own."""

        async def check() -> None:
            before = await opened.load_catalog()
            async with self.store(place) as other:
                await asyncio.gather(
                    opened.apply(make_plan(before, [group("one")])), other.apply(make_plan(before, [group("two")]))
                )
            catalog = await opened.load_catalog()
            assert {each.group.id for each in catalog.groups.values()} == {1, 2}
            assert {each.group.features[0].id for each in catalog.groups.values()} == {1, 2}

        run(check())

    def test_refused_position(self, opened: HistoryStore, run: Run) -> None:
        """A batch of no events that was decoded with an older definition does not move the position either."""

        async def check() -> None:
            [first] = await register(opened, group())
            source = await opened.claim(topic())
            await register(opened, group(doc="newer"))
            with pytest.raises(DefinitionChanged):
                await opened.append(source, HistoryBatch(first, (), 5, 0))
            assert (await opened.sources())[0].next_sequence == 0

        run(check())
