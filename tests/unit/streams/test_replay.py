"""Dead letters replayed after a fix become what they would have been, once, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.errors import InvalidEvent, Reason, StoreUnavailable
from oomstream.schemas.events import Event, RawRecord
from oomstream.schemas.framing import EVENT_TIME_HEADER
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.plan import make_plan
from oomstream.stores.base import Replayed
from oomstream.stores.catalog_cache import CatalogCache
from oomstream.stores.settings import load_settings
from oomstream.streams.dead_letters import DeadLetter
from oomstream.streams.decoding import Decoding, WriterSchemas
from oomstream.streams.forget import forget
from oomstream.streams.letters import Selection, replayed_identities
from oomstream.streams.replay import AT_ONCE, BEFORE_HORIZON, FORGOTTEN, Replay, ReplayCounts
from oomstream.streams.retention import retire
from oomstream.streams.verify import Verifier
from tests.unit.streams.house import GROUP, NAME, T0, House, UnreliableHistory, garbage, no_wait, valid

OLD = -(T0 - 500_000_000_000_000)
"""Before T0: 1985, older than is accepted by default."""

PERMISSIVE = {"min_event_time_us": "1970-01-01"}


def decoding(house: House, registry: WriterSchemas | None = None, **settings: Any) -> Decoding:
    """What decodes under other settings than the house's."""
    return Decoding(CatalogCache(house.history, sleep=no_wait), load_settings(**(settings or PERMISSIVE)), registry)


async def replay(house: House, letters: Sequence[DeadLetter] | None = None, **more: Any) -> ReplayCounts:
    """Replay the house's letters, or some."""
    group = (await house.history.load_catalog()).group("reading")
    chosen = more.pop("decoding", None) or decoding(house)
    made = Replay(more.pop("history", house.history), house.online, chosen, group, **more)
    return await made.take(house.sink.letters if letters is None else letters)


async def ingest(house: House, *records: RawRecord) -> None:
    """Take records through the pipeline."""
    pipeline = house.pipeline()
    await pipeline.start(0, 1 << 40, begin=0)
    await pipeline.ingest(records)
    await pipeline.flush()


async def differing(house: House) -> int:
    """Entities whose online row is not the newest in history."""
    registered = (await house.history.load_catalog()).groups["reading"]
    return (await Verifier(house.history, house.online).verify(registered)).differing


def deleted(offset: int, key: str, at: int) -> RawRecord:
    """A delete."""
    return RawRecord(offset, key.encode(), None, T0 // 1000 + 10, ((EVENT_TIME_HEADER, str(T0 + at).encode()),))


def test_letters_become_what_they_would_have_been(tmp_path: Path) -> None:
    """Values and deletes are in history under their own offsets; online, each entity has its newest row."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            await ingest(
                house, valid(0, "a", OLD), valid(1, "a", 5), valid(2, "b", OLD, 2.0), deleted(3, "b", OLD + 1),
                garbage(4), valid(5, "c", OLD), valid(6, "c", OLD, None),
            )  # fmt: skip
            assert [each.offset for each in house.sink.letters] == [0, 2, 3, 4, 5, 6]
            assert await house.online_versions() == {"a": (T0 + 5, 1, False)}
            counts = await replay(house)
            assert (counts.letters, counts.replayed, counts.present, counts.waiting) == (6, 5, 0, 0)
            assert counts.refused == {Reason.UNKNOWN_FRAMING: 1}
            rows = sorted((row.sequence, row.key[0], row.event_time_us - T0, row.deleted) for row in await house.rows())
            assert rows == [
                (0, "a", OLD, False), (1, "a", 5, False), (2, "b", OLD, False), (3, "b", OLD + 1, True),
                (5, "c", OLD, False), (6, "c", OLD, False),
            ]  # fmt: skip
            assert await house.online_versions() == {
                "a": (T0 + 5, 1, False), "b": (T0 + OLD + 1, 3, True), "c": (T0 + OLD, 6, False),
            }  # fmt: skip
            assert len(house.sink.letters) == 6, "what is refused again is no new letter"
            assert await differing(house) == 0

    asyncio.run(scenario())


def test_replaying_again_changes_nothing(tmp_path: Path) -> None:
    """A second replay finds everything there, byte for byte, even where the rules of now would refuse it."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            await ingest(house, *(valid(at, "abc"[at % 3], OLD + at) for at in range(20)))
            assert (await replay(house)).replayed == 20
            before = await house.rows(), await house.online.scan(b""), await house.history.sources()
            for chosen in (decoding(house), decoding(house, min_event_time_us="2000-01-01")):
                counts = await replay(house, decoding=chosen)
                assert (counts.replayed, counts.present, counts.refused) == (0, 20, Counter())
            assert (await house.rows(), await house.online.scan(b""), await house.history.sources()) == before

    asyncio.run(scenario())


def test_many_letters_go_in_small_transactions(tmp_path: Path) -> None:
    """However many letters there are, in whatever order, no transaction has more than a few hundred of them."""
    sizes: list[int] = []

    class Watched(UnreliableHistory):
        async def append_replayed(self, source_id: int, group: FeatureGroup, events: Sequence[Event]) -> Replayed:
            sizes.append(len(events))
            return await super().append_replayed(source_id, group, events)

    async def scenario() -> None:
        async with House(tmp_path, dlq_max_consecutive=0, dlq_max_ratio=1.0) as house:
            await ingest(house, *(valid(at, f"{at}", OLD + at) for at in range(2 * AT_ONCE + 7)))
            async with Watched(house.settings.history, house.settings) as watched:
                counts = await replay(house, house.sink.letters[::-1], history=watched)
            assert counts.replayed == 2 * AT_ONCE + 7
            assert sizes == [AT_ONCE, AT_ONCE, 7]

    asyncio.run(scenario())


def test_killed_between_history_and_online(tmp_path: Path) -> None:
    """A replay that was cut off after history is completed by another one, online too."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            await ingest(house, valid(0, "a", OLD), valid(1, "b", OLD), valid(2, "c", OLD))
            house.online.faults = [1]
            with pytest.raises(StoreUnavailable):
                await replay(house)
            assert len(await house.rows()) == 3
            assert len(await house.online_versions()) == 1
            counts = await replay(house)
            assert (counts.replayed, counts.present) == (0, 3)
            assert len(await house.online_versions()) == 3
            assert await differing(house) == 0

    asyncio.run(scenario())


def test_the_definition_of_the_producer_comes_late(tmp_path: Path) -> None:
    """Events of a definition that was not applied yet are valid after `apply`, also when it comes during the replay."""
    fields = [*GROUP.schema["fields"], {"name": "unit", "type": "string", "default": "C"}]
    attributes = {"entity": "sensor", "keys": ["sensor_id"], "event_time": "at"}
    newer = group_from_avsc({**GROUP.schema, **attributes, "fields": fields})

    async def scenario() -> None:
        async with House(tmp_path) as house:
            catalog_of_then = decoding(house)
            await ingest(house, valid(0, "a", OLD), valid(1, "b", 5))
            await catalog_of_then.decode([], "reading")
            await house.history.apply(make_plan(await house.history.load_catalog(), [newer]))
            counts = await replay(house, decoding=catalog_of_then)
            assert counts.replayed == 1
            assert sorted((row.key, row.values) for row in await house.rows()) == [
                (("a",), (1.0, "C")), (("b",), (1.0, "C")),
            ]  # fmt: skip
            assert await differing(house) == 0

    asyncio.run(scenario())


def test_the_registry_knows_the_schema_by_now(tmp_path: Path) -> None:
    """Events of a schema id that the registry did not have are valid when it has it."""

    class Registry:
        known: Mapping[int, dict[str, Any]] = {}

        async def fetch(self, ids: frozenset[int]) -> None:
            self.known = dict.fromkeys(ids, GROUP.schema)

    async def scenario() -> None:
        async with House(tmp_path) as house:
            body = b"\x02a" + _long(T0) + b"\x02" + b"\0" * 8
            await ingest(house, RawRecord(0, b"a", b"\0\0\0\0\x09" + body, T0 // 1000))
            assert [each.reason for each in house.sink.letters] == [Reason.UNKNOWN_SCHEMA_ID]
            assert (await replay(house)).refused == {Reason.UNKNOWN_SCHEMA_ID: 1}
            assert (await replay(house, decoding=decoding(house, Registry()))).replayed == 1
            assert [row.values for row in await house.rows()] == [(0.0,)]

    asyncio.run(scenario())


def _long(value: int) -> bytes:
    zigzag, out = value << 1, bytearray()
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    return bytes([*out, zigzag])


def test_a_row_that_the_database_rejects(tmp_path: Path) -> None:
    """Of a batch in which the database rejects a row for its data, the others are replayed."""

    class Picky(UnreliableHistory):
        async def append_replayed(self, source_id: int, group: FeatureGroup, events: Sequence[Event]) -> Replayed:
            if any(event.key == ("b",) for event in events):
                raise InvalidEvent(Reason.REJECTED_BY_STORE, "history rejects a row for its data")
            return await super().append_replayed(source_id, group, events)

    async def scenario() -> None:
        async with House(tmp_path) as house:
            await ingest(house, *(valid(at, "abc"[at % 3], OLD) for at in range(9)))
            async with Picky(house.settings.history, house.settings) as picky:
                counts = await replay(house, history=picky)
            assert (counts.replayed, counts.refused) == (6, {Reason.REJECTED_BY_STORE: 3})
            assert await differing(house) == 0

    asyncio.run(scenario())


def test_sources_that_history_does_not_know(tmp_path: Path) -> None:
    """Letters of another incarnation, of another topic, or ahead of the position are counted and left alone."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            await ingest(house, valid(0, "a", OLD), valid(1, "b", 5))
            (mine,) = house.sink.letters
            elsewhere = _of(mine, "reading", "incarnation-2", 0)
            other_topic = _of(mine, "boat", "incarnation-1", 0)
            ahead = _of(mine, "reading", "incarnation-1", 2)
            counts = await replay(house, [mine, elsewhere, other_topic, ahead])
            assert (counts.letters, counts.replayed, counts.waiting) == (4, 1, 1)
            assert counts.unknown == {NAME._replace(incarnation="incarnation-2"): 1, NAME._replace(name="boat"): 1}
            assert [row.sequence for row in await house.rows()] == [0, 1]
            group = (await house.history.load_catalog()).group("reading")
            found = await replayed_identities(house.history, group, [mine, elsewhere, other_topic, ahead])
            assert found == {mine.identity}
            # The topic was made again: the letters of before still belong to the source of before.
            await house.history.claim(NAME._replace(incarnation="incarnation-3"))
            assert (await replay(house, [mine])).present == 1

    asyncio.run(scenario())


def _of(letter: DeadLetter, topic: str, incarnation: str, offset: int) -> DeadLetter:
    return DeadLetter(
        topic, incarnation, letter.partition, offset, letter.timestamp, letter.stage, letter.reason, letter.message,
        letter.key, letter.value, letter.headers,
    )  # fmt: skip


def test_what_retention_removed_is_not_replayed_again(tmp_path: Path) -> None:
    """An entity that was deleted, and whose rows are gone by retention, does not come back by replaying all letters."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            await ingest(house, valid(0, "a", OLD), deleted(1, "a", OLD + 1), valid(2, "b", 1))
            assert (await replay(house)).replayed == 2
            registered = (await house.history.load_catalog()).groups["reading"]
            await retire(house.history, house.online, registered, age_us=0)
            assert await house.online_versions() == {"b": (T0 + 1, 2, False)}
            before = await house.rows()
            counts = await replay(house)
            assert (counts.letters, counts.replayed, counts.refused) == (2, 0, {BEFORE_HORIZON: 2})
            assert await house.rows() == before
            assert await house.online_versions() == {"b": (T0 + 1, 2, False)}

    asyncio.run(scenario())


def test_forgotten_entities_stay_out(tmp_path: Path) -> None:
    """Letters of an entity that was forgotten after them are counted, and nothing of them is written."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            await ingest(house, valid(0, "a", OLD), valid(1, "b", OLD))
            await forget(house.history, house.online, await house.history.load_catalog(), "sensor", [("a",)], hold_s=0)
            counts = await replay(house)
            assert (counts.letters, counts.replayed, counts.refused) == (2, 1, {FORGOTTEN: 1})
            assert [row.key for row in await house.rows()] == [("b",)]

    asyncio.run(scenario())


def test_dry_run_says_what_would_happen(tmp_path: Path) -> None:
    """A dry run counts what a replay does next, and writes nothing."""

    async def scenario() -> None:
        async with House(tmp_path) as house:
            await ingest(house, valid(0, "a", OLD), valid(1, "b", OLD), garbage(2))
            await replay(house, house.sink.letters[:1])
            before = await house.rows(), await house.history.sources()
            letters = [*house.sink.letters, _of(house.sink.letters[0], "reading", "incarnation-1", 9)]
            foreseen = await replay(house, letters, dry_run=True)
            assert (await house.rows(), await house.history.sources()) == before
            assert (foreseen.letters, foreseen.replayed, foreseen.present, foreseen.waiting) == (4, 1, 1, 1)
            assert await replay(house, letters) == foreseen

    asyncio.run(scenario())


def test_owner_goes_on_beside_replays(tmp_path: Path) -> None:
    """A pipeline that ingests while its letters are replayed again and again is neither fenced nor wrong."""

    async def scenario() -> None:
        async with House(tmp_path, dlq_max_consecutive=0, dlq_max_ratio=1.0) as house:
            pipeline = house.pipeline()
            await pipeline.start(0, 1 << 40, begin=0)
            for start in range(0, 200, 10):
                batch = [valid(at, "abc"[at % 3], OLD + at if at % 2 else at) for at in range(start, start + 10)]
                letters = list(house.sink.letters)
                await asyncio.gather(pipeline.ingest(batch), replay(house, letters), replay(house, letters))
            await replay(house)
            await pipeline.flush()
            assert sorted(row.sequence for row in await house.rows()) == list(range(200))
            newest = {"abc"[at % 3]: (T0 + at, at, False) for at in range(0, 200, 2)}
            assert await house.online_versions() == newest
            assert await differing(house) == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), [0, 1, 2]),
        (Selection(partition=0), [0, 1, 2]),
        (Selection(partition=1), []),
        (Selection(offset=1), [1]),
        (Selection(reason="too_large"), [2]),
        (Selection(since_us=5_000), [1, 2]),
        (Selection(until_us=10_000), [0, 1]),
        (Selection(since_us=5_001, until_us=10_001), [2]),
    ],
)
def test_selection(selection: Selection, expected: list[int]) -> None:
    """Every part of a selection must fit; `since` is inclusive, `until` is not."""
    letters = [
        DeadLetter("reading", "id", 0, at, time_ms, "decode", reason, "no", None, b"{}", ())
        for at, (time_ms, reason) in enumerate([(0, "wrong_type"), (5, "wrong_type"), (10, "too_large")])
    ]
    assert [each.offset for each in letters if selection.holds(each)] == expected


def test_json_letters_keep_their_bytes(tmp_path: Path) -> None:
    """Replay decodes the original bytes: a field that was added since has the value that the event had all along."""
    fields = [*GROUP.schema["fields"], {"name": "unit", "type": ["null", "string"], "default": None}]
    attributes = {"entity": "sensor", "keys": ["sensor_id"], "event_time": "at"}
    newer = group_from_avsc({**GROUP.schema, **attributes, "fields": fields})

    async def scenario() -> None:
        async with House(tmp_path) as house:
            body = orjson.dumps({"sensor_id": "a", "at": T0 + OLD, "value": 1.5, "unit": "K"})
            await ingest(house, RawRecord(0, b"a", body, T0 // 1000))
            await house.history.apply(make_plan(await house.history.load_catalog(), [newer]))
            assert (await replay(house)).replayed == 1
            assert [row.values for row in await house.rows()] == [(1.5, "K")]

    asyncio.run(scenario())
