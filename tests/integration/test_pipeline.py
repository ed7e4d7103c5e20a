"""The pipeline loses nothing, doubles nothing and keeps the newest, whatever the batches and the outages are."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomstream.schemas.errors import StoreUnavailable
from oomstream.schemas.events import RawRecord
from oomstream.streams.backoff import Backoff
from tests.integration.backends import Backends
from tests.unit.streams.house import T0, House, garbage, tombstone, valid


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backoff waits no real time."""

    async def wait(self: Backoff, error: StoreUnavailable) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(Backoff, "wait", wait)


ITEMS = st.lists(
    st.one_of(
        st.tuples(st.just("valid"), st.sampled_from("abc"), st.integers(0, 5)),
        st.tuples(st.just("delete"), st.sampled_from("abc"), st.integers(0, 5)),
        st.tuples(st.just("garbage"), st.just(""), st.just(0)),
    ),
    max_size=40,
)


def make_log(items: Sequence[tuple[str, str, int]]) -> list[RawRecord]:
    """Records of a log, with gaps between offsets as transaction markers leave them."""
    make = {"valid": valid, "delete": tombstone, "garbage": lambda offset, *_: garbage(offset)}
    return [make[kind](2 * number, key, at) for number, (kind, key, at) in enumerate(items)]


def test_any_batches_any_outages(backends: Backends) -> None:
    """Case 28: every valid event is in history once, online is the greatest version, every invalid one is a letter."""

    @settings(deadline=None, max_examples=backends.examples(40))
    @given(
        items=ITEMS,
        cuts=st.lists(st.integers(1, 7), min_size=40, max_size=40),
        history_faults=st.lists(st.sampled_from(["none", "before", "after"]), max_size=15),
        online_faults=st.lists(st.integers(0, 2), max_size=6),
        restarts=st.sets(st.integers(0, 39)),
        ahead=st.sets(st.integers(0, 39)),
    )
    def check(
        items: list[tuple[str, str, int]],
        cuts: list[int],
        history_faults: list[str],
        online_faults: list[int],
        restarts: set[int],
        ahead: set[int],
    ) -> None:
        house = house_on(backends)
        house.history.faults, house.online.faults = list(history_faults), list(online_faults)
        asyncio.run(ingest_and_check(house, items, cuts, restarts, ahead))

    check()


def house_on(backends: Backends) -> House:
    """Empty stores, with no limit of dead letters."""
    fresh = backends.fresh()
    fresh.data_dir.mkdir()
    return House(
        fresh.data_dir,
        history_url=fresh.history_url,
        online_url=fresh.online_url,
        dlq_max_consecutive=0,
        dlq_max_ratio=1.0,
    )


async def ingest_and_check(
    house: House,
    items: list[tuple[str, str, int]],
    cuts: Sequence[int],
    restarts: set[int],
    ahead: Collection[int] = (),
) -> None:
    """Take a log through pipelines in batches of the given sizes, with a new owner after some of them.

    After the batches `ahead` nobody waits for their online rows, neither the next batch nor the next owner.
    """
    log = make_log(items)
    async with house:
        end = log[-1].offset + 1 if log else 0
        pipeline = house.pipeline()
        position = await pipeline.start(0, end, begin=0)
        for number, size in enumerate(cuts):
            batch = [record for record in log if record.offset >= position][:size]
            if batch:
                await pipeline.advance(batch)
                position = batch[-1].offset + 1
            if number not in ahead:
                await pipeline.settle()
            if number in restarts:
                # A new owner begins where the database says, though the log repeats what was not acknowledged.
                former, pipeline = pipeline, house.pipeline()
                position = await pipeline.start(0, end, begin=0)
                await former.settle()
        await pipeline.settle()
        await check_stores(house, items)


async def check_stores(house: House, items: Sequence[tuple[str, str, int]]) -> None:
    """Compare stores and dead letters with what the log holds, by obvious means."""
    expected = [
        (key, T0 + at, 2 * number, kind == "delete")
        for number, (kind, key, at) in enumerate(items)
        if kind != "garbage"
    ]
    rows = await house.rows()
    assert sorted((row.key[0], row.event_time_us, row.sequence, row.deleted) for row in rows) == sorted(expected)
    newest: dict[str, tuple[int, int, bool]] = {}
    for key, at, sequence, deleted in expected:
        newest[key] = max(newest.get(key, (0, 0, False)), (at, sequence, deleted))
    assert await house.online_versions() == newest
    letters = {letter.identity for letter in house.sink.letters}
    assert letters == {("incarnation-1", 0, 2 * n) for n, (kind, *_) in enumerate(items) if kind == "garbage"}
