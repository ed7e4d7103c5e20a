"""Training sets and exports over batch groups, alone and beside stream groups, on every pair of stores."""

from __future__ import annotations

import asyncio
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.stores.opening import history_store
from oomstream.stores.revisions import Revision, RevisionRow
from oomstream.stores.settings import Settings
from oomstream.stores.testing.samples import group
from tests.integration.backends import Backends, prepare_async
from tests.integration.test_training_oracle import SINGLE

T0 = 1_700_000_000_000_000
FEATURES = {"number": ["null", "long"], "text": ["null", "string"]}
NAMES = ["state.number", "state.text"]

Rows = dict[int, int | None]
"""Number by place of the key in SINGLE."""


async def imported(settings: Settings, revisions: list[tuple[int, Rows]]) -> list[Revision]:
    """Make a batch group of entity `thing` and publish revisions of it, anchored to times after T0."""
    catalog = await prepare_async(
        settings,
        [
            group("state", FEATURES, {"id": "string"}, entity="thing", category="batch"),
            group("event", FEATURES, {"id": "string"}, entity="thing"),
        ],
    )
    mine = catalog.group("state")
    published = []
    async with history_store(settings.history, settings) as history:
        for time, rows in revisions:
            draft = await history.begin_revision(mine)
            lines = [RevisionRow(SINGLE[at], (number, f"text {number}")) for at, number in rows.items()]
            await history.load_revision(mine, draft, lines)
            published.append(await history.publish_revision(mine, draft, time_us=T0 + time))
    return published


def right(revisions: list[tuple[int, Rows]], at: int, time: int) -> tuple[int | None, str | None]:
    """What the newest revision of a time has of an entity; of one time the later import."""
    found: tuple[int, Rows] = (-1, {})
    for each in revisions:
        if found[0] <= each[0] <= time:
            found = each
    if at not in found[1]:
        return (None, None)
    return (found[1][at], f"text {found[1][at]}")


def test_labels_see_the_newest_revision_of_their_time(backends: Backends) -> None:
    """For any revisions and labels: the entity's row in the newest revision whose time is not after the label's."""
    times = st.integers(1, 9)
    places = st.integers(0, len(SINGLE) - 1)
    contents = st.dictionaries(places, st.none() | st.integers(-3, 3))

    @settings(deadline=None, max_examples=backends.examples(25))
    @given(st.lists(st.tuples(times, contents), max_size=4), st.lists(st.tuples(st.none() | places, times), max_size=9))
    def check(revisions: list[tuple[int, Rows]], asked: list[tuple[int | None, int]]) -> None:
        async def scenario() -> None:
            chosen = backends.fresh()
            await imported(chosen, revisions)
            labels = pa.table(
                {
                    "id": pa.array([None if at is None else SINGLE[at][0] for at, _ in asked], pa.string()),
                    "event_timestamp": pa.array([T0 + time for _, time in asked], pa.timestamp("us")),
                }
            )
            async with AsyncFeatureStore.open(settings=chosen) as store:
                joined = (await store.get_historical_features(labels, [*NAMES, "event.number"])).to_arrow()
                found = list(zip(*(joined.column(name).to_pylist() for name in NAMES), strict=True))
                assert found == [(None, None) if at is None else right(revisions, at, time) for at, time in asked]
                assert joined.column("event.number").null_count == len(asked)
                for time in range(10):
                    await check_export(store, revisions, time)

        asyncio.run(scenario())

    check()


async def check_export(store: AsyncFeatureStore, revisions: list[tuple[int, Rows]], time: int) -> None:
    """An export at a time is the whole revision of that time."""
    table = (await store.export([*NAMES, "event.text"], at=T0 + time)).to_arrow()
    state: Any = max(enumerate(revisions), key=lambda each: (each[1][0] <= time, each[1][0], each[0]), default=None)
    rows = state[1][1] if state is not None and state[1][0] <= time else {}
    keys = sorted((SINGLE[at][0].encode(), at) for at in rows)
    assert table.column("id").to_pylist() == [SINGLE[at][0] for _, at in keys]
    assert table.column("state.number").to_pylist() == [rows[at] for _, at in keys]
    assert table.column("event.text").null_count == len(keys)


def test_a_revision_counts_from_when_it_was_known(backends: Backends) -> None:
    """`available` lets a backdated revision count from its import on; `as_of` before the import does not see it."""

    async def scenario() -> None:
        chosen = backends.fresh()
        [revision] = await imported(chosen, [(5, {0: 1})])
        before, after = revision.create_time_us - 1, revision.create_time_us
        labels = pa.table({"id": ["a"] * 3, "event_timestamp": pa.array([T0 + 5, before, after], pa.timestamp("us"))})
        async with AsyncFeatureStore.open(settings=chosen) as store:

            async def numbers(**options: Any) -> list[Any]:
                joined = await store.get_historical_features(labels, ["state.number"], **options)
                return joined.to_arrow().column("state.number").to_pylist()

            assert await numbers() == [1, 1, 1]
            assert await numbers(available=True) == [None, None, 1]
            assert await numbers(as_of=T0) == [None, None, None]

    asyncio.run(scenario())
