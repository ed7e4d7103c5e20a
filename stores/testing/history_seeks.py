"""What every history store must do that looks rows up one by one, or scans in parts, where it says that it does."""

from __future__ import annotations

import random
from collections.abc import Sequence
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

_KEYS: list[tuple[Plain, ...]] = [("1", 11), ("11", 1), ("a", 1), ("a ", 1), ("A", 1), ("a\0", -(1 << 63))]
_FILE, _PUSH = SourceName(SourceKind.FILE, "f", "sha"), SourceName(SourceKind.PUSH, "local", "uuid")


class SeekTests(HistorySuite):
    """Looking up; a store that would rather scan passes, as readers then do."""

    @pytest.mark.parametrize(
        "sources",
        [[topic()], [_FILE, _PUSH, topic(), topic(partition=1)], [topic(partition=1), _PUSH, topic(), _FILE]],
        ids=["one source", "ids in order of kinds", "ids in another order"],
    )
    def test_seek_finds_the_newest_row_of_a_scan(
        self, opened: HistoryStore, run: Run, sources: list[SourceName]
    ) -> None:
        """For every moment the row of greatest version at or before it, of equal times too, and deletes as they are."""

        async def check() -> None:
            chance = random.Random(len(sources))  # noqa: S311 - not for secrets
            features: dict[str, Any] = {"n": ["null", "long"], "s": "string"}
            [mine] = await register(opened, group(features=features, keys={"a": "string", "b": "long"}))
            claimed = [await opened.claim(each) for each in sources]
            for at in range(120):
                source, key = chance.choice(claimed), chance.choice(_KEYS)
                values = (chance.choice([None, at]), f"row {at}")
                gone = chance.random() < 0.2
                await append(opened, source, mine, event(at, key, chance.randrange(8), *values, deleted=gone))
            times = [TIME_US + chance.randrange(-1, 10) for _ in range(100)]
            keys = [chance.choice([*_KEYS, ("nobody", 0)]) for _ in times]
            async with opened.cut() as cut:
                scanned = pa.concat_tables([each async for each in cut.scan(mine, ["s", "n"])]).to_pylist()
                for max_age_us in (None, 0, 3):
                    right = [_newest(scanned, cut, *each, max_age_us) for each in zip(keys, times, strict=True)]
                    for known in (None, [*_KEYS, ("nobody", 0)]):
                        found = await _seek(cut, mine, ["s", "n"], keys, times, keys=known, max_age_us=max_age_us)
                        assert found in (None, {at: row for at, row in enumerate(right) if row is not None})

        run(check())

    def test_seek_has_exact_plain_values(self, opened: HistoryStore, run: Run) -> None:
        """Every type's values come out of a seek as they come out of a scan."""

        async def check() -> None:
            [mine] = await register(opened, all_types())
            source = await opened.claim(topic())
            names, rows = list(EXTREMES), extreme_rows()
            await append(opened, source, mine, *(event(at, "a", at, *row) for at, row in enumerate(rows)))
            moments = pa.table({"k": ["a"] * len(rows), "t": [TIME_US + at for at in range(len(rows))]})
            async with opened.cut() as cut:
                tables = await cut.seek(mine, names, moments)
                if tables is None:
                    return
                found = pa.concat_tables([each async for each in tables]).sort_by("_moment").drop_columns(["_moment"])
                scanned = pa.concat_tables([each async for each in cut.scan(mine, names)])
            assert found.schema == scanned.select(found.column_names).schema
            same = scanned.select(found.column_names).to_pylist()
            assert [repr(row) for row in found.to_pylist()] == [repr(row) for row in same]

        run(check())

    def test_seek_is_of_the_cut(self, opened: HistoryStore, place: str, run: Run) -> None:
        """What is written after the cut is not found in it; many moments and tables of few rows are no different."""

        async def check() -> None:
            [mine] = await register(opened, group())
            source = await opened.claim(topic())
            await append(opened, source, mine, *(event(at, f"k{at % 50}", at) for at in range(3_000)))
            keys: list[tuple[Plain, ...]] = [(f"k{at % 50}",) for at in reversed(range(2_500))]
            times = [TIME_US + at for at in reversed(range(2_500))]
            async with self.store(place) as writer, opened.cut() as cut:
                await append(writer, source, mine, *(event(3_000 + at, f"k{at % 50}", at) for at in range(100)))
                found = await _seek(cut, mine, ["n"], keys, times, batch_rows=7)
            assert found in (None, {at: (False, 2_499 - at) for at in range(2_500)})

        run(check())

    def test_scan_in_parts_is_the_scan(self, opened: HistoryStore, run: Run) -> None:
        """Wherever it is split, a scan in parts gives the rows of the scan, in its order, and can be left early."""

        async def check() -> None:
            [mine] = await register(opened, group(keys={"a": "string", "b": "long"}))
            source = await opened.claim(topic())
            # Few rows of most entities, and a third of all of one.
            keys: list[tuple[Plain, ...]] = [(f"k{at % 97:02}" if at % 3 else "k50", at % 2) for at in range(14_000)]
            for start in range(0, len(keys), 2_000):
                part = range(start, start + 2_000)
                await append(opened, source, mine, *(event(at, keys[at], at, at) for at in part))
            limits: dict[str, Any] = {
                "min_event_time_us": TIME_US + 5,
                "max_event_time_us": TIME_US + 13_990,
                "batch_rows": 900,
            }
            async with opened.cut() as cut:
                whole = pa.concat_tables([each async for each in cut.scan(mine, ["n"], **limits)])
                for splits in ([], ["k00"], ["zz"], [f"k{at:02}" for at in range(97)], ["k49", "k50", "k51"]):
                    tables = [each async for each in cut.scan_in_parts(mine, ["n"], splits=splits, **limits)]
                    assert pa.concat_tables(tables).equals(whole)
                    assert max(each.num_rows for each in tables) <= 900
                async for _ in cut.scan_in_parts(mine, ["n"], splits=["k10", "k20"], batch_rows=900):
                    break
                assert (await _seek(cut, mine, ["n"], [keys[0]], [TIME_US])) in (None, {0: (False, 0)})

        run(check())

    @pytest.mark.parametrize("tied", [[], [0, 1], list(range(1_790, 1_810)), list(range(9_000, 9_950)), [13_999]])
    def test_scan_without_versions(self, opened: HistoryStore, run: Run, tied: Sequence[int]) -> None:
        """A scan for the newest rows alone gives the same rows, and versions wherever rows are of one time."""

        async def check() -> None:
            [mine] = await register(opened, group(keys={"a": "string"}))
            source, other = await opened.claim(topic()), await opened.claim(topic(partition=1))
            for start in range(0, 14_000, 2_000):
                part = range(start, start + 2_000)
                await append(opened, source, mine, *(event(at, f"k{at // 100:03}", at) for at in part))
            if tied:
                await append(opened, other, mine, *(event(at, f"k{at // 100:03}", at, -at) for at in tied))
            async with opened.cut() as cut:
                whole = pa.concat_tables([each async for each in cut.scan(mine, ["n"])])
                splits = [f"k{at:03}" for at in range(140)]
                scan = cut.scan_in_parts(mine, ["n"], splits=splits, batch_rows=900, versions=False)
                tables = [each async for each in scan]
            names = ["a", "_event_time", "_deleted", "n"]
            assert pa.concat_tables([each.select(names) for each in tables]).equals(whole.select(names))
            rows = pa.concat_tables(tables, promote_options="default")
            versions = ["_source", "_sequence", "_ingest_time"]
            if "_source" not in rows.column_names:
                assert not tied
                return
            for told, expected in zip(rows.to_pylist(), whole.to_pylist(), strict=True):
                if told["_source"] is None:
                    assert told["_event_time"] - TIME_US not in tied
                else:
                    assert [told[name] for name in versions] == [expected[name] for name in versions]

        run(check())


async def _seek(
    cut: Cut,
    mine: FeatureGroup,
    features: Sequence[str],
    of: Sequence[tuple[Plain, ...]],
    times: Sequence[int],
    **options: Any,
) -> dict[int, tuple[Any, ...]] | None:
    """What is found of each moment: whether it is a delete, then the features; None if the store would rather scan."""
    columns: list[Any] = [pa.array(column) for column in (*zip(*of, strict=True), times)]
    moments = pa.table(columns, names=[f"column {at}" for at in range(len(columns))])
    tables = await cut.seek(mine, features, moments, **options)
    if tables is None:
        return None
    found = [row async for table in tables for row in table.to_pylist()]
    by_moment = {row["_moment"]: (row["_deleted"], *(row[name] for name in features)) for row in found}
    assert len(by_moment) == len(found)
    return by_moment


def _newest(
    rows: list[dict[str, Any]], cut: Cut, key: tuple[Plain, ...], time_us: int, max_age_us: int | None
) -> tuple[Any, ...] | None:
    mine = [row for row in rows if (row["a"], row["b"]) == key and row["_event_time"] <= time_us]
    if not mine:
        return None
    newest = max(
        mine, key=lambda row: (row["_event_time"], cut.kinds[row["_source"]], row["_source"], row["_sequence"])
    )
    if max_age_us is not None and time_us - newest["_event_time"] > max_age_us:
        return None
    return newest["_deleted"], newest["s"], newest["n"]
