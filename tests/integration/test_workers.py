"""Two, then three workers on a topic of eight partitions of Kafka, with TiDB and TiKV, while they come and go."""

from __future__ import annotations

import re
from pathlib import Path

from oomstream.streams.broker import parse_broker
from tests.faults.harness import WorkerProcess
from tests.integration.backends import Backends, prepare
from tests.integration.feed import Feed, Progress, Watching, assigned, plane_group, workers_on
from tests.integration.topic_oracle import Outcome, check
from tests.services.mysql_protocol import SqlServer
from tests.services.server import Server
from tests.services.tikv import TikvServer

PARTITIONS = 8


def claims(worker: WorkerProcess) -> set[str]:
    """Partitions that a worker has claimed so far."""
    return set(re.findall(r"(\[\d+\]): claimed at offset", worker.log))


def test_workers_come_and_go(
    tmp_path: Path, kafka_server: Server, tidb_server: SqlServer, tikv_server: TikvServer
) -> None:
    """Partitions spread over two and three workers; through joins, a leave and a kill nothing is lost or doubled."""
    broker = parse_broker(kafka_server.url)
    settings = Backends("tidb+tikv", tmp_path, tidb_server, tikv_server).fresh()
    group = plane_group(PARTITIONS)
    catalog = prepare(settings, [group], broker)
    with (
        workers_on(settings, broker, batch_rows=300) as start_worker,
        Progress(settings) as progress,
        Feed(settings, broker, catalog, seed=11) as feed,
    ):

        def spread() -> list[int]:
            return assigned(broker, settings.consumer_group)

        first = start_worker()
        watching = Watching(progress, first)
        watching.until_more(2_000)
        assert len(claims(first)) == PARTITIONS

        second = start_worker()
        watching.workers.append(second)
        watching.until(lambda: spread() == [4, 4] and len(claims(second)) >= 4)
        watching.until_more(2_000)

        third = start_worker()
        watching.workers.append(third)
        watching.until(lambda: spread() == [2, 3, 3] and len(claims(third)) >= 2)
        watching.until_more(2_000)

        watching.workers.remove(second)
        assert second.kill().code == -9
        watching.until(lambda: spread() == [4, 4])
        watching.until_more(2_000)

        watching.workers.remove(first)
        ended = first.drain()
        assert ended.code == 0, ended.log
        watching.until(lambda: spread() == [PARTITIONS])
        watching.until_more(2_000)

        watching.workers.append(start_worker())
        watching.until(lambda: spread() == [4, 4])
        watching.until_more(2_000)
        feed.stop()
        watching.drain(feed.made)
    found = check(settings, broker, group.topic).outcome
    assert found == Outcome(events=found.events)
    assert found.events > 12_000
