"""Case 22 on every pair of stores: a worker that is frozen over a rebalance, at the worst moments, and then wakes."""

from __future__ import annotations

import asyncio
import signal

import pytest

from oomstream.schemas.online_value import OnlineRow
from oomstream.stores.base import HistoryRow
from oomstream.stores.opening import open_stores
from oomstream.stores.settings import Settings
from oomstream.streams.broker import Broker
from tests.integration.backends import PAIRS, Backends, prepare
from tests.integration.feed import Events, Progress, Watching, plane_group, workers_on
from tests.integration.topic_oracle import Outcome, check

RECORDS = 3_000
ANYWHERE = ("after_poll", "after_history", "after_online", "before_ack")
IN_A_TRANSACTION = {"tidb": ("before_history_commit", "after_history_commit"), "tikv": ("in_online_batch",)}
"""On SQLite, who is frozen in a transaction stops every writer until it thaws, as docs/guarantees.md says."""

MOMENTS = [
    (pair, point)
    for pair in PAIRS
    for point in (*ANYWHERE, *(point for store in pair.split("+") for point in IN_A_TRANSACTION.get(store, ())))
]
BEFORE_HISTORY = ("after_poll", "before_history_commit")


async def everything(settings: Settings) -> tuple[list[HistoryRow], list[OnlineRow]]:
    """Every row of history and every online row, as they are stored."""
    async with open_stores(settings) as stores:
        plane = (await stores.history.load_catalog()).group("plane")
        history: list[HistoryRow] = []
        for source in await stores.history.sources():
            history += await stores.history.rows_of_source(plane, source.id, 0, 1 << 40, limit=1_000_000)
        return history, await stores.online.scan(b"", limit=1_000_000)


@pytest.mark.parametrize(("backends", "point"), MOMENTS, indirect=["backends"])
def test_a_zombie_writes_nothing(backends: Backends, broker: Broker, point: str) -> None:
    """Frozen with a batch in hand until another worker has done all, it wakes, and not one byte changes."""
    settings = backends.fresh()
    # On SQLite one partition only: a second one could be in its transaction when the first freezes the process.
    plane = plane_group(4 if backends.tikv is not None else 1)
    catalog = prepare(settings, [plane], broker)
    events = Events(settings, broker, catalog, seed=22)
    with workers_on(settings, broker, batch_rows=200) as start_worker, Progress(settings) as progress:
        events.produce(RECORDS)
        zombie = start_worker(crash_at=f"{point}:3:freeze")
        zombie.wait_frozen()
        assert progress.done() < RECORDS
        owner = start_worker()
        watching = Watching(progress, owner)
        watching.until(lambda: sum(each.online_sequence for each in progress.sources()) == RECORDS)
        before = asyncio.run(everything(settings))

        zombie.signal(signal.SIGCONT)
        if point in BEFORE_HISTORY:
            watching.until(lambda: "owner" in zombie.log)
        ended = zombie.drain()
        assert ended.code == 0, ended.log
        assert "Traceback" not in ended.log, ended.log
        assert asyncio.run(everything(settings)) == before
        events.produce(RECORDS)
        watching.drain(2 * RECORDS)
    events.close()
    found = check(settings, broker, plane.topic).outcome
    assert found == Outcome(events=found.events)
