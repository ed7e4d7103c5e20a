"""`oomstream dlq replay` on every pair of stores: what was refused is taken in after the fix, exactly once."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.catalog import Catalog
from oomstream.schemas.online_value import OnlineRow
from oomstream.stores.base import HistoryRow
from oomstream.stores.opening import history_store, online_store
from oomstream.stores.settings import Settings
from oomstream.streams.broker import Broker
from oomstream.streams.producer import FeatureProducer
from tests.faults.harness import ROOT
from tests.integration.backends import Backends, environment_of, prepare
from tests.integration.feed import Events, Feed, Progress, Watching, plane_group, workers_on
from tests.integration.topic_oracle import Outcome, check

PARTITIONS = 4
OLD = datetime(1985, 5, 1, tzinfo=UTC)
"""An event time that is refused by default."""

NO_LIMIT = {"dlq_max_consecutive": 0, "dlq_max_ratio": 1.0}


class Kept(NamedTuple):
    """What the stores hold, byte for byte."""

    history: list[HistoryRow]
    online: list[OnlineRow]


async def _kept(settings: Settings) -> Kept:
    async with history_store(settings.history, settings) as history, online_store(settings.online, settings) as online:
        group = (await history.load_catalog()).group("plane")
        rows: list[HistoryRow] = []
        for source in await history.sources():
            rows += await history.rows_of_source(group, source.id, 0, 1 << 40, limit=1_000_000)
        return Kept(rows, await online.scan(b"o", limit=1_000_000))


def kept(settings: Settings) -> Kept:
    """Read both stores whole."""
    return asyncio.run(_kept(settings))


def start(settings: Settings, broker: Broker, *args: str, **more: str) -> subprocess.Popen[str]:
    """`oomstream dlq replay` in a process of its own, by rules under which old events are valid."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OOMSTREAM_")},
        **environment_of(settings),
        "OOMSTREAM_BROKER_URL": broker.url,
        "OOMSTREAM_MIN_EVENT_TIME": "1970-01-01",
        **more,
    }
    command = [sys.executable, "-m", "oomstream.agents.cli.main", "dlq", "replay", "-o", "json", *args]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def ended(process: subprocess.Popen[str], code: int = 0) -> dict[str, Any]:
    """What a replay says of its only topic."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    return dict(json.loads(out)[0]) if code == 0 else {}


def produce_old(settings: Settings, broker: Broker, catalog: Catalog, count: int) -> None:
    """Events and deletes of old event times, of planes that have newer ones too and of planes that have not."""
    with FeatureProducer(broker, settings, catalog) as producer:
        for number in range(count):
            tail = f"N{number % 150}" if number % 2 else f"X{number % 40}"
            at = OLD + timedelta(seconds=number % 37)
            if number % 10 == 9:
                producer.produce_delete("plane", [tail], at)
            else:
                producer.produce("plane", {"tail": tail, "at": at, "delay": number, "carrier": None})


def test_replays_beside_workers(backends: Backends, broker: Broker) -> None:
    """Two replays at once beside a worker under load: nothing is lost, doubled or moved backwards; again: no byte."""
    settings = backends.fresh()
    group = plane_group(PARTITIONS)
    catalog = prepare(settings, [group], broker)
    old = 1_500
    events = Events(settings, broker, catalog, seed=21)
    with workers_on(settings, broker, batch_rows=300, **NO_LIMIT) as start_worker, Progress(settings) as progress:
        watching = Watching(progress, start_worker())
        events.produce(1_000)
        produce_old(settings, broker, catalog, old)
        watching.until(lambda: progress.done() == 1_000 + old)
        with Feed(settings, broker, catalog, seed=22) as feed:
            watching.until_more(1_000)
            two = [start(settings, broker, "-g", "plane") for _ in range(2)]
            said = [ended(each) for each in two]
            feed.stop()
        watching.drain(1_000 + old + feed.made)
    events.close()
    assert sum(each["replayed"] for each in said) == old
    assert {each["replayed"] + each["present"] for each in said} == {old}
    before = kept(settings)
    again = ended(start(settings, broker, group.topic))
    assert (again["replayed"], again["present"], again["waiting"]) == (0, old, 0)
    assert again["reasons"] == {"unknown_framing": again["letters"] - old}
    assert kept(settings) == before
    found = check(settings, broker, group.topic).outcome
    # What the oracle takes for letters of valid events are the ones that were replayed.
    assert found == Outcome(events=found.events, letters=old)


KILLS = ("before_history_commit", "after_history_commit", "after_history", "in_online_batch", "after_online:2")


def test_killed_anywhere_and_done_again(backends: Backends, broker: Broker) -> None:
    """A replay killed in history, between history and online, or in online is completed by the next one."""
    settings = backends.fresh()
    group = plane_group(PARTITIONS)
    catalog = prepare(settings, [group], broker)
    old = 400
    produce_old(settings, broker, catalog, old)
    with workers_on(settings, broker, **NO_LIMIT) as start_worker, Progress(settings) as progress:
        Watching(progress, start_worker()).drain(old)
    assert kept(settings) == Kept([], [])
    rows: list[int] = []
    for point in KILLS:
        ended(start(settings, broker, OOMSTREAM_CRASH_AT=point), code=-9)
        rows.append(len(kept(settings).history))
    assert rows == sorted(rows)
    assert rows[0] == 0 < rows[1] < rows[2] < old
    assert ended(start(settings, broker))["letters"] == old
    assert len(kept(settings).history) == old
    found = check(settings, broker, group.topic).outcome
    assert found == Outcome(events=old, letters=old)


def test_a_definition_that_comes_after_its_events(backends: Backends, broker: Broker) -> None:
    """Case 8: producers are ahead of `apply`: the worker stops at the limit, and after `apply` nothing is lost."""
    settings = backends.fresh()
    older = plane_group(1)
    more = {"name": "gate", "type": ["null", "string"]}
    schema = {**older.schema, "fields": [*older.schema["fields"], more]}
    attributes = {"entity": "plane", "keys": ["tail"], "event_time": "at", "topic": older.topic, "partitions": 1}
    newer = group_from_avsc({**schema, **attributes})
    prepare(settings, [older], broker)
    elsewhere = prepare(backends.fresh(), [newer])
    made = [("N1", number) for number in range(300)]
    with FeatureProducer(broker, settings, elsewhere) as producer:
        for tail, number in made:
            at = datetime(2024, 5, 1, tzinfo=UTC) + timedelta(seconds=number)
            producer.produce("plane", {"tail": tail, "at": at, "delay": number, "carrier": None, "gate": f"A{number}"})
    with workers_on(settings, broker, dlq_max_consecutive=50) as start_worker, Progress(settings) as progress:
        stopped = start_worker().wait()
        assert stopped.code == 1
        assert "more than 50 events in a row are invalid" in stopped.log
        assert progress.done() == 50
        assert ended(start(settings, broker))["reasons"] == {"unknown_fingerprint": 50}
        prepare(settings, [newer])
        Watching(progress, start_worker()).drain(300)
    foreseen = ended(start(settings, broker, "--dry-run"))
    assert (foreseen["replayed"], len(kept(settings).history)) == (50, 250)
    assert ended(start(settings, broker, older.topic, "0", "17"))["replayed"] == 1
    assert ended(start(settings, broker, "--reason", "unknown_fingerprint"))["replayed"] == 49
    assert [(row.sequence, row.values) for row in kept(settings).history] == [
        (number, (number, None, f"A{number}")) for _, number in made
    ]
    assert len(kept(settings).online) == 1


@pytest.mark.parametrize("words", [["-g", "plane"], []])
def test_another_installation_is_refused(backends: Backends, broker: Broker, words: Sequence[str]) -> None:
    """Letters whose source the history database has never seen are named and left alone."""
    settings = backends.fresh()
    group = plane_group(1)
    catalog = prepare(settings, [group], broker)
    produce_old(settings, broker, catalog, 3)
    with workers_on(settings, broker) as start_worker, Progress(settings) as progress:
        Watching(progress, start_worker()).drain(3)
    other = backends.fresh()
    prepare(other, [group])
    process = start(other, broker, *words)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert json.loads(out)[0]["unknown"] == 3
    assert err.startswith("Error: 3 letters not replayed, because history has never ingested what they are from: ")
    assert f"topic {group.topic} (id " in err
    assert kept(other) == Kept([], [])
