"""Events in, features out, on every pair of stores: broker, worker, history, online reads and training sets."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pyarrow as pa

from oomstream.query.sync import FeatureStore
from oomstream.streams.broker import Broker
from tests.integration.backends import Backends, prepare
from tests.integration.feed import PLANES, START, Events, Progress, Watching, plane_group, workers_on
from tests.integration.topic_oracle import Outcome, check
from tests.oracle import Oracle

COUNT = 4_000
FEATURES = ["plane.delay", "plane.carrier"]


def test_events_in_features_out(backends: Backends, broker: Broker) -> None:
    """Late, equal, null, deleted and invalid events through a worker: every read is what the topic says it must be."""
    settings = backends.fresh()
    group = plane_group(partitions=4)
    catalog = prepare(settings, [group], broker)
    events = Events(settings, broker, catalog, seed=7)
    with workers_on(settings, broker) as start_worker, Progress(settings) as progress:
        worker = start_worker()
        events.produce(COUNT)
        Watching(progress, worker).drain(COUNT)
    events.close()
    found = check(settings, broker, group.topic)
    assert found.outcome == Outcome(events=found.outcome.events)
    assert found.outcome.events > 0.9 * COUNT
    with FeatureStore.open(settings=settings) as store:
        check_online(store, found.oracle)
        check_training(store, found.oracle)


def check_online(store: FeatureStore, oracle: Oracle) -> None:
    """Every plane, and one that never was: values, statuses and event times are the oracle's."""
    tails = [f"N{number}" for number in range(PLANES + 1)]
    answer = store.get_online_features(FEATURES, [{"tail": tail} for tail in tails])
    values = answer.to_dict()
    for at, tail in enumerate(tails):
        right = oracle.online("plane", (tail,), now_us=0)
        for name in ("delay", "carrier"):
            value = right.values[name] if right.values is not None else None
            status = "NULL_VALUE" if right.status == "PRESENT" and value is None else right.status
            assert values[f"plane.{name}"][at] == value
            assert answer.statuses[f"plane.{name}"][at] == status


def check_training(store: FeatureStore, oracle: Oracle) -> None:
    """Labels at any times, at those of events too: the oracle's rows, in the labels' order."""
    chance = random.Random(8)
    labels: list[tuple[str, int]] = []
    for _ in range(200):
        at = START + timedelta(seconds=chance.randrange(-10, 3_010))
        labels.append((f"N{chance.randrange(PLANES + 1)}", int(at.timestamp()) * 1_000_000))
    table = pa.table(
        {
            "tail": [tail for tail, _ in labels],
            "event_timestamp": pa.array([at for _, at in labels], pa.timestamp("us", "UTC")),
        }
    )
    made = store.get_historical_features(table, FEATURES).to_arrow()
    assert made.select(table.column_names).equals(table)
    got: list[list[Any]] = [list(row.values())[2:] for row in made.to_pylist()]
    assert got == oracle.training_rows([((tail,), at) for tail, at in labels], "plane", ["delay", "carrier"])
    assert any(row != [None, None] for row in got)
