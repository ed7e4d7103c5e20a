"""Training sets and events that were dead letters at first: they were ingested when they were replayed."""

from __future__ import annotations

from oomstream.stores.base import HistoryBatch
from oomstream.stores.testing.history_suite import topic
from oomstream.stores.testing.samples import event, group
from tests.unit.query.conftest import Fill, Run
from tests.unit.query.filled import T0
from tests.unit.query.test_training_cases import SECOND, values

SAMPLES_T0 = 1_600_000_000_000_000


def test_a_replayed_event_is_seen_from_its_replay_on(fill: Fill, run: Run) -> None:
    """`as_of` before a replay does not see what it brought, `available` only for labels behind it; else it counts."""
    filled = fill(group("plane"))
    mine = filled.catalog.group("plane")
    label = ("a", SAMPLES_T0 + 100)

    async def ingest_and_replay() -> None:
        filled.now_us = T0
        source = await filled.history.claim(topic())
        await filled.history.append(source, HistoryBatch(mine, [event(0, "a", 10), event(3, "a", 30)], 5, 5))
        filled.now_us = T0 + 200 * SECOND
        done = await filled.history.append_replayed(source.id, mine, [event(1, "a", 20), event(2, "a", 40)])
        assert done.written == {1, 2}
        filled.now_us = T0 + 10_000 * SECOND

    run(ingest_and_replay())
    assert values(run, filled, [label]) == [2]
    assert values(run, filled, [("a", SAMPLES_T0 + 25), ("a", SAMPLES_T0 + 35)]) == [1, 3]
    for as_of, expected in ((T0 + 199 * SECOND, [3, 0]), (T0 + 200 * SECOND, [2, 1])):
        assert values(run, filled, [label, ("a", SAMPLES_T0 + 25)], as_of=as_of) == expected
    late = [("a", T0 + 199 * SECOND), ("a", T0 + 200 * SECOND)]
    assert values(run, filled, late, available=True) == [3, 2]
