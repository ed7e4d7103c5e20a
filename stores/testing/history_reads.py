"""What every history store must do: reading, by source, by entity, and in bulk."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from oomstream.schemas.events import Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import Cut, HistoryStore, SourceName
from oomstream.stores.testing.history_suite import HistorySuite, append, register, topic
from oomstream.stores.testing.samples import EXTREMES, TIME_US, all_types, event, extreme_rows, group
from oomstream.stores.testing.suite import Run

_TEXTS = ("a", "a ", "A", "a\0", "a\0b", "é", "e\u0301", "\uffff", "🚀", "'", '"', "%", "1", "01", "ß" * 127)
_BYTES = (b"a", b"a ", b"a\0", b"\0", b"\xff" * 255, b"\x80", b"\x7f")
_LONGS = (-(1 << 63), -1, 0, 1, (1 << 63) - 1, (1 << 53) + 1)


class ReadTests(HistorySuite):
    """Reading."""

    def test_rows_of_a_source(self, opened: HistoryStore, run: Run) -> None:
        """Rows of one source between two positions, by sequence, at most the limit, of one group."""

        async def check() -> None:
            mine, other = await register(opened, group(), group("other"))
            source, second = await opened.claim(topic()), await opened.claim(topic(partition=1))
            await append(opened, source, mine, *(event(at, f"{9 - at}", -at) for at in range(0, 10, 2)))
            await append(opened, source, other, event(10))
            await append(opened, second, mine, event(4))

            async def sequences(start: int, end: int, limit: int = 99) -> list[int]:
                return [row.sequence for row in await opened.rows_of_source(mine, source.id, start, end, limit=limit)]

            assert await sequences(0, 99) == [0, 2, 4, 6, 8]
            assert await sequences(2, 6) == [2, 4]
            assert await sequences(3, 99, 2) == [4, 6]
            assert await sequences(5, 5) == await sequences(9, 99) == []
            [row] = await opened.rows_of_source(other, source.id, 0, 99)
            assert (row.key, row.event_time_us, row.source_id, row.values) == (("a",), TIME_US, source.id, (10,))

        run(check())

    def test_newest_is_of_greatest_version(self, opened: HistoryStore, run: Run) -> None:
        """Event time, kind of source, source id, sequence decide, in this order, whatever order they arrived in."""

        async def check() -> None:
            [mine] = await register(opened, group())
            topic_1 = await opened.claim(topic())
            file = await opened.claim(SourceName(SourceKind.FILE, "f", "sha"))
            push = await opened.claim(SourceName(SourceKind.PUSH, "local", "uuid"))
            topic_2 = await opened.claim(topic(partition=1))
            await append(opened, push, mine, event(5, "kind"), event(6, "time", 1), event(7, "file"))
            await append(opened, file, mine, event(90, "kind"), event(91, "time", 2), event(92, "file", 1))
            await append(
                opened, topic_2, mine, event(0, "kind"), event(1, "source"), event(3, "late", 5), event(4, "late", 4)
            )
            await append(
                opened, topic_1, mine, event(1, "kind"), event(2, "kind"), event(3, "source"), event(4, "time"),
                event(6, "gone", 7), event(7, "gone", 7, deleted=True), event(8, "back", deleted=True),
                event(9, "back"),
            )  # fmt: skip
            # The topic has the smallest id here: only its kind makes it the winner.
            await append(opened, topic_1, mine, event(10, "rank"))
            await append(opened, file, mine, event(93, "rank"))
            await append(opened, push, mine, event(8, "rank"))
            [rank] = await opened.newest(mine, [("rank",)])
            assert rank is not None
            assert (rank.source_id, rank.sequence) == (topic_1.id, 10)
            asked = [(key,) for key in ("time", "kind", "nobody", "source", "late", "file", "gone", "back", "time")]
            found = await opened.newest(mine, asked)
            assert [row and (row.source_id, row.sequence) for row in found] == [
                (file.id, 91), (topic_2.id, 0), None, (topic_2.id, 1), (topic_2.id, 3), (file.id, 92),
                (topic_1.id, 7), (topic_1.id, 9), (file.id, 91),
            ]  # fmt: skip
            gone = found[6]
            assert gone is not None
            assert (gone.deleted, gone.values) == (True, (None,))
            everything = await opened.scan_newest(mine)
            assert everything == sorted((row for row in {rank, *found} if row), key=lambda row: row.key)
            assert await opened.newest(mine, []) == []

        run(check())

    def test_newest_of_many(self, opened: HistoryStore, run: Run) -> None:
        """Thousands of entities can be asked for in one call."""

        async def check() -> None:
            [mine] = await register(opened, group(keys={"a": "string", "b": "long"}))
            source = await opened.claim(topic())
            keys = [(f"k{number % 50}", number) for number in range(2_000)]
            await append(opened, source, mine, *(event(at, key, at) for at, key in enumerate(keys)))
            asked = [*reversed(keys), ("k0", 1), *keys[:3]]
            found = await opened.newest(mine, asked)
            assert [row and row.key for row in found] == [key if key != ("k0", 1) else None for key in asked]

        run(check())

    @pytest.mark.parametrize(
        ("keys", "parts"),
        [
            ({"k": "string"}, [(text,) for text in _TEXTS]),
            ({"k": "bytes"}, [(raw,) for raw in _BYTES]),
            ({"k": "long"}, [(number,) for number in _LONGS]),
            ({"k": {"type": "int", "logicalType": "date"}}, [(day,) for day in (-719_162, -1, 0, 2_932_896)]),
            ({"a": "string", "b": "string"}, [("1", "11"), ("11", "1"), ("1", "1"), ("1\0", "1")]),
            ({"a": "bytes", "b": "long"}, [(raw, number) for raw in _BYTES for number in _LONGS]),
        ],
        ids=["text", "bytes", "long", "date", "two texts", "bytes and long"],
    )
    def test_keys_are_compared_exactly(
        self, opened: HistoryStore, run: Run, keys: dict[str, Any], parts: list[tuple[Plain, ...]]
    ) -> None:
        """Case 38: no two different keys collide, and order is by value, of text by its UTF-8 bytes."""

        async def check() -> None:
            [mine] = await register(opened, group(keys=keys))
            source = await opened.claim(topic())
            await append(opened, source, mine, *(event(at, key) for at, key in enumerate(parts)))
            in_order = sorted(parts, key=lambda key: [part.encode() if isinstance(part, str) else part for part in key])
            assert [row and row.key for row in await opened.newest(mine, parts)] == parts
            paged: list[tuple[Plain, ...]] = []
            while page := await opened.scan_newest(mine, after=paged[-1] if paged else None, limit=2):
                assert len(page) <= 2
                paged += [row.key for row in page]
            assert paged == in_order
            async with opened.cut() as cut:
                assert _keys(await _scan(cut, mine), mine) == in_order
                half = in_order[::2]
                assert _keys(await _scan(cut, mine, keys=[*reversed(half), half[0]]), mine) == half

        run(check())

    def test_scan_gives_every_row_in_order(self, opened: HistoryStore, run: Run) -> None:
        """A scan has the documented columns, in order of key, event time, source, sequence, in bounded tables."""

        async def check() -> None:
            [mine] = await register(opened, group(features={"n": "long", "s": ["null", "string"]}))
            first, second = await opened.claim(topic()), await opened.claim(topic(partition=1))
            events = [event(at, f"k{at % 3}", at * 7 % 5, at, "x") for at in range(30)]
            await append(opened, first, mine, *events[:15], event(30, "k1", 2, deleted=True))
            await append(opened, second, mine, *events[15:])
            expected = sorted(
                [("k1", TIME_US + 2, 1, 30, True, None, None)]
                + [(each.key[0], each.event_time_us, 1 if each.sequence < 15 else 2, each.sequence, False, *each.values)
                   for each in events],
                key=lambda row: row[:4],
            )  # fmt: skip
            for batch_rows in (1, 7, 100_000):
                async with opened.cut() as cut:
                    tables = [table async for table in cut.scan(mine, ["s", "n"], batch_rows=batch_rows)]
                assert all(0 < table.num_rows <= max(batch_rows, 1) for table in tables)
                whole = pa.concat_tables(tables)
                assert whole.schema.names == [
                    "k",
                    "_event_time",
                    "_source",
                    "_sequence",
                    "_ingest_time",
                    "_deleted",
                    "s",
                    "n",
                ]
                columns = ("k", "_event_time", "_source", "_sequence", "_deleted", "n", "s")
                assert [tuple(row[name] for name in columns) for row in whole.to_pylist()] == expected

        run(check())

    def test_scan_has_exact_plain_values(self, opened: HistoryStore, run: Run) -> None:
        """Every type's values come out of a scan as they went in, in the documented Arrow type."""

        async def check() -> None:
            [mine] = await register(opened, all_types())
            source = await opened.claim(topic())
            names, rows = list(EXTREMES), extreme_rows()
            await append(opened, source, mine, *(event(at, "a", at, *row) for at, row in enumerate(rows)))
            async with opened.cut() as cut:
                whole = await _scan(cut, mine, features=names)
            text, whole_number = pa.string(), pa.int64()
            kinds = [pa.bool_(), whole_number, whole_number, pa.float64(), pa.float64(), text, pa.binary()]
            kinds += [whole_number] * 3 + [text] * 3
            assert [whole.schema.field(name).type for name in names] == kinds
            found = [tuple(row[name] for name in names) for row in whole.to_pylist()]
            assert [list(map(repr, row)) for row in found] == [list(map(repr, row)) for row in rows]

        run(check())

    def test_scan_filters(self, opened: HistoryStore, run: Run) -> None:
        """Entities, event time from and to, and ingest time to, all inclusive, alone and together."""

        async def check() -> None:
            [mine] = await register(opened, group())
            source = await opened.claim(topic())
            early = await append(opened, source, mine, *(event(at, f"k{at % 2}", at) for at in range(6)))
            late = await append(opened, source, mine, *(event(at, f"k{at % 2}", at - 6) for at in range(6, 12)))
            assert early <= late
            async with opened.cut() as cut:

                async def found(**filters: Any) -> list[int]:
                    found: list[Any] = (await _scan(cut, mine, **filters))["_sequence"].to_pylist()
                    return sorted(found)

                assert await found(min_event_time_us=TIME_US + 4) == [4, 5, 10, 11]
                assert await found(max_event_time_us=TIME_US + 1) == [0, 1, 6, 7]
                assert await found(min_event_time_us=TIME_US + 2, max_event_time_us=TIME_US + 2) == [2, 8]
                assert await found(max_ingest_time_us=early - 1) == []
                assert await found(max_ingest_time_us=late) == list(range(12))
                if early < late:
                    assert await found(max_ingest_time_us=early) == list(range(6))
                assert await found(keys=[("k1",), ("nobody",)]) == [1, 3, 5, 7, 9, 11]
                assert await found(keys=[]) == []
                assert await found(keys=[("k0",), ("k1",), ("k0",)], min_event_time_us=TIME_US + 5) == [5, 11]

        run(check())

    def test_scan_of_many_keys(self, opened: HistoryStore, run: Run) -> None:
        """A scan can be limited to thousands of entities, several times within one cut."""

        async def check() -> None:
            [mine] = await register(opened, group(keys={"a": "string", "b": "long"}))
            source = await opened.claim(topic())
            keys: list[tuple[Plain, ...]] = [(f"k{number % 50}", number) for number in range(3_000)]
            await append(opened, source, mine, *(event(at, key, at) for at, key in enumerate(keys)))
            async with opened.cut() as cut:
                for wanted in (keys, keys[::2], keys[:1]):
                    assert _keys(await _scan(cut, mine, keys=wanted), mine) == sorted(wanted, key=str_then_number)

        run(check())

    def test_cut_is_one_moment(self, opened: HistoryStore, place: str, run: Run) -> None:
        """What is written after the cut is not in it, through whatever client; the next cut has it."""

        async def check() -> None:
            mine, other = await register(opened, group(), group("other"))
            source = await opened.claim(topic())
            await append(opened, source, mine, event(0))
            async with self.store(place) as writer, opened.cut() as cut:
                await append(writer, source, mine, event(1), event(2, "b"))
                await append(writer, source, other, event(3))
                assert cut.kinds == {source.id: SourceKind.TOPIC}
                assert (await _scan(cut, mine))["_sequence"].to_pylist() == [0]
                assert (await _scan(cut, other)).num_rows == 0
                assert (await _scan(cut, mine, keys=[("a",), ("b",)]))["_sequence"].to_pylist() == [0]
            async with opened.cut() as cut:
                assert (await _scan(cut, mine)).num_rows == 3
                assert cut.now_us >= (await opened.sources())[0].last_ingest_time_us

        run(check())

    def test_scan_left_early(self, opened: HistoryStore, run: Run) -> None:
        """A reader that stops in the middle of a scan leaves the store usable, for reading and for writing."""

        async def check() -> None:
            [mine] = await register(opened, group())
            source = await opened.claim(topic())
            await append(opened, source, mine, *(event(at) for at in range(50)))
            async with opened.cut() as cut:
                async for table in cut.scan(mine, ["n"], batch_rows=5):
                    assert table.num_rows == 5
                    break
                assert (await _scan(cut, mine)).num_rows == 50
            await append(opened, source, mine, event(50))
            await register(opened, group(doc="still writable"))

        run(check())


def str_then_number(key: tuple[Plain, ...]) -> tuple[str, int]:
    """Sort key of a text and a number."""
    text, number = key
    assert isinstance(text, str)
    assert isinstance(number, int)
    return text, number


async def _scan(cut: Cut, group: FeatureGroup, *, features: list[str] | None = None, **filters: Any) -> pa.Table:
    names = features if features is not None else [each.name for each in group.features]
    tables = [table async for table in cut.scan(group, names, **filters)]
    if not tables:
        return pa.table({name: [] for name in (*group.key_names, "_event_time", "_sequence")})
    return pa.concat_tables(tables)


def _keys(table: pa.Table, group: FeatureGroup) -> list[tuple[Plain, ...]]:
    return list(zip(*(table[name].to_pylist() for name in group.key_names), strict=True))
