"""The benchmark of growth: what it fills is what workers would leave, and its tables say what was measured."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from benchmarks import growth_figures as of
from benchmarks import wide_planes
from benchmarks.growth import series
from benchmarks.growth_figures import PAGE, Grown, Size, figures, tables, write_tables
from benchmarks.plane_history import ROWS_PER_ENTITY
from benchmarks.read_rows import tail
from benchmarks.results import load
from oomstream.stores.opening import open_stores
from oomstream.stores.settings import load_settings
from oomstream.streams.verify import Verifier

if TYPE_CHECKING:
    from pathlib import Path

    from oomstream.schemas.catalog import RegisteredGroup
    from oomstream.stores.settings import Settings

ENTITIES = 20


async def _check_filled(settings: Settings, registered: RegisteredGroup) -> None:
    async with open_stores(settings) as (history, online):
        verified = await Verifier(history, online).verify(registered)
        assert (verified.entities, verified.differing) == (ENTITIES, 0)
        sources = await history.sources()
        assert sum(each.next_sequence for each in sources) == ENTITIES * ROWS_PER_ENTITY
        for source in sources:
            assert source.online_sequence == source.next_sequence
            rows = await history.rows_of_source(registered.group, source.id, 0, source.next_sequence)
            assert [each.sequence for each in rows] == list(range(source.next_sequence))
            for row in rows:
                place = next(at for at in range(ENTITIES) if tail(at) == row.key[0])
                step = (row.event_time_us - rows[0].event_time_us) // 60_000_000
                assert list(row.values) == wide_planes.values(place * ROWS_PER_ENTITY + step, 10)


def test_what_is_filled_is_what_workers_would_leave(tmp_path: Path) -> None:
    """Online equals history by `verify`, positions and identities have no gap, and SQL made the values of Python."""
    settings = load_settings(data_dir=tmp_path)
    registered = wide_planes.make(settings, 10, 8)
    wide_planes.fill(settings, registered, ENTITIES * ROWS_PER_ENTITY)
    asyncio.run(_check_filled(settings, registered))


def _found() -> of.Found:
    small, large = Size("rows", 1_000), Size("rows", 10_000)
    return {
        (of.INGEST, small): [100, 100, 100],
        (of.READ_P50, small): [1, 1, 1],
        (of.INGEST, large): [50, 100, 40],
        (of.READ_P50, large): [1, 2, 3],
    }


def test_every_size_stands_beside_the_smallest_of_its_series() -> None:
    """The smallest is the yardstick of the others, round by round, and what is kept can be read back."""
    made = list(figures(_found()))
    assert [(each.what, each.yardstick, each.pairs and each.pairs.ratios) for each in made] == [
        ("10,000 rows: ingest", "1,000 rows", [0.4, 0.5, 1.0]),
        ("10,000 rows: online read of 100 keys", "1,000 rows", [1.0, 2.0, 3.0]),
    ]
    assert [Grown.of(each).size for each in made] == [Size("rows", 10_000)] * 2
    assert [Grown.of(each).measure for each in made] == [of.INGEST, of.READ_P50]


def test_a_rate_that_falls_is_a_cost_that_rises() -> None:
    """Half the events a second are twice the time an event."""
    rate, read = map(Grown.of, figures(_found()))
    assert rate.costs == [1.0, 2.0, 2.5]
    assert read.costs == [1.0, 2.0, 3.0]


def test_tables_take_their_place_in_a_page_again_and_again(tmp_path: Path) -> None:
    """What is between the marks is replaced; the rest of the page stays."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{of.BEGIN}old\n{of.END}after\n")
    made = list(figures(_found()))
    for _ in range(2):
        write_tables(made, page)
        text = page.read_text()
        assert text.startswith("before\n")
        assert text.endswith("after\n")
        assert "old" not in text
        assert "| ingest, events/s | 100 | 50: **0.50** (0.40 to 1.00) |" in text


def test_a_page_with_no_place_for_the_tables_stays_as_it_is(tmp_path: Path) -> None:
    """A mark that is missing is an error, not a page that is cut off."""
    page = tmp_path / "page.md"
    page.write_text("before\n")
    with pytest.raises(ValueError, match=r"page\.md"):
        write_tables(list(figures(_found())), page)
    assert page.read_text() == "before\n"


def test_the_published_tables_show_the_published_figures() -> None:
    """What docs/performance.md says of growth is what `make bench` wrote out of benchmarks/results.json."""
    published, _ = load()
    assert tables(published) in PAGE.read_text()


def test_every_series_begins_with_its_smallest_size() -> None:
    """The yardstick of a series is its first."""
    for sizes in series():
        counts = [size.count for size, _ in sizes]
        assert counts == sorted(counts)
        assert len({size.series for size, _ in sizes}) == 1
        assert sizes[0][0].series in of.SERIES
