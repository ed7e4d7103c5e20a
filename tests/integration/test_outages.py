"""A worker under load whose network or servers fail (cases 10 to 19): afterwards 0 lost, 0 doubled, 0 differing.

What each store does by itself when its server fails is in tests/faults.
"""

from __future__ import annotations

import functools
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from oomstream.schemas.errors import Reason
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import encode_key
from oomstream.stores.settings import Settings
from oomstream.stores.tikv.address import TikvAddress
from oomstream.streams.broker import Broker, parse_broker
from oomstream.streams.dlq_topic import read_dead_letters
from oomstream.streams.producer import FeatureProducer
from tests.faults.harness import WorkerProcess
from tests.integration.backends import Backends, prepare
from tests.integration.feed import START, Feed, Progress, Watching, assigned, plane_group, workers_on
from tests.integration.topic_oracle import Outcome, check
from tests.services.mysql_protocol import SqlServer, run
from tests.services.proxy import Proxy
from tests.services.proxy_link import Direction
from tests.services.server import Server
from tests.services.tikv import TikvServer

PARTITIONS = 4
CALL_TIMEOUT_US = 2_000_000
DIRECTIONS: tuple[Direction, Direction] = ("to_server", "to_client")


class Scene:
    """Kafka, TiDB and TiKV, a topic that is being filled, and one worker that reaches the stores through proxies.

    Attributes:
        kafka: The broker.
        tidb: The server of the history.
        tikv: The server of the online rows.
        settings: The stores' own addresses.
        broker: The broker's own address.
        group: The group `plane` on a topic of its own.
    """

    def __init__(self, folder: Path, kafka: Server, tidb: SqlServer, tikv: TikvServer) -> None:
        self.kafka, self.tidb, self.tikv = kafka, tidb, tikv
        self.broker: Broker = parse_broker(kafka.url)
        self.settings: Settings = Backends("tidb+tikv", folder, tidb, tikv).fresh(call_timeout_us=30_000_000)
        self.group = plane_group(PARTITIONS)

    @contextmanager
    def under_load(self, **more: Any) -> Iterator[tuple[Callable[[], WorkerProcess], Watching]]:
        """Gives what starts a worker, and what waits for it; in the end everything is ingested and checked."""
        catalog = prepare(self.settings, [self.group], self.broker)
        through = {
            "history_url": f"{self.tidb.proxied_url}/{self.settings.history.rpartition('/')[2]}",
            "online_url": f"{self.tikv.proxied_url}/{self.settings.online.rpartition('/')[2]}",
            "call_timeout_us": CALL_TIMEOUT_US,
            "batch_rows": 300,
        }
        with (
            workers_on(self.settings, self.broker, **{**through, **more}) as start_worker,
            Progress(self.settings) as progress,
            Feed(self.settings, self.broker, catalog, seed=12) as feed,
        ):
            watching = Watching(progress)
            yield start_worker, watching
            watching.until_more(1_000)
            feed.stop()
            watching.drain(feed.made)
        found = check(self.settings, self.broker, self.group.topic).outcome
        assert found == Outcome(events=found.events)
        assert found.events > 1_000


@pytest.fixture
def scene(tmp_path: Path, kafka_server: Server, tidb_server: SqlServer, native_tikv: TikvServer) -> Scene:
    """Fresh stores and a fresh topic."""
    return Scene(tmp_path, kafka_server, tidb_server, native_tikv)


def outages_told(worker: WorkerProcess, store: str) -> int:
    """How often a worker has said that it tries a store again."""
    return len(re.findall(rf"WARNING.*{store}.*trying again", worker.log))


def claims(worker: WorkerProcess) -> int:
    """How often a worker has claimed a partition."""
    return worker.log.count("claimed at offset")


def test_stores_that_refuse_at_start(scene: Scene) -> None:
    """Case 10: a worker whose stores refuse waits for one after the other, and then works."""
    with scene.under_load() as (start_worker, watching):
        scene.tidb.proxy.refuse()
        scene.tikv.pd_proxy.refuse()
        worker = start_worker()
        watching.workers.append(worker)
        watching.until(lambda: outages_told(worker, "tidb://") >= 2)
        scene.tidb.proxy.normal()
        watching.until(lambda: outages_told(worker, "tikv://") >= 2)
        scene.tikv.pd_proxy.normal()
        watching.until_more(1_000)


@pytest.mark.parametrize("store", ["tidb://", "tikv://"])
def test_a_store_that_accepts_and_never_answers(scene: Scene, store: str) -> None:
    """Case 11: for longer than a session lasts, a silent store costs no partition: heartbeats go on."""
    with scene.under_load(session_timeout_us=4_000_000) as (start_worker, watching):
        worker = start_worker()
        watching.workers.append(worker)
        watching.until_more(1_000)
        proxy = scene.tidb.proxy if store == "tidb://" else scene.tikv.proxy
        proxy.blackhole()
        # Each partition says it once in every deadline of a call: three rounds are longer than the session timeout.
        watching.until(lambda: outages_told(worker, store) >= 3 * PARTITIONS)
        assert assigned(scene.broker, scene.settings.consumer_group) == [PARTITIONS]
        assert claims(worker) == PARTITIONS
        proxy.normal()
        watching.until_more(1_000)
        assert claims(worker) == PARTITIONS
        assert assigned(scene.broker, scene.settings.consumer_group) == [PARTITIONS]


def test_connections_that_are_cut(scene: Scene) -> None:
    """Cases 12 and 13: connections to both stores end in the middle of what they carry, many times, either way."""
    with scene.under_load() as (start_worker, watching):
        worker = start_worker()
        watching.workers.append(worker)
        watching.until_more(500)
        for proxy in (scene.tidb.proxy, scene.tikv.proxy):
            for count in (700, 5_000, 20_000):
                for direction in DIRECTIONS:
                    goal = proxy.traffic.cuts + 2
                    proxy.cut_after(count, direction, times=2)
                    watching.until(functools.partial(_has_cut, proxy, goal))
            proxy.normal()
            watching.until_more(500)


def _has_cut(proxy: Proxy, times: int) -> bool:
    return proxy.traffic.cuts >= times


@pytest.mark.parametrize("which", ["tidb", "tikv", "kafka"])
def test_a_server_restarted_under_load(scene: Scene, which: str) -> None:
    """Cases 17 and 30: a server goes away and comes back with its data, twice; the worker goes on by itself."""
    with scene.under_load(session_timeout_us=6_000_000) as (start_worker, watching):
        server: Server = getattr(scene, which)
        worker = start_worker()
        watching.workers.append(worker)
        for _ in range(2):
            watching.until_more(1_000)
            if which != "tidb":  # unistore forgets half of what was being committed when it is killed
                server.kill()
            server.restart()
        watching.until_more(1_000)


def test_regions_split_under_load(scene: Scene) -> None:
    """Case 18: regions of the online rows split, and lose their leader for a moment, in the middle of batches."""
    namespace = TikvAddress.parse(scene.settings.online).row_prefix
    with scene.under_load() as (start_worker, watching):
        worker = start_worker()
        watching.workers.append(worker)
        watching.until_more(500)
        for tail in ("N1", "N15", "N2", "N222", "N8"):
            scene.tikv.control.split(namespace + encode_key(1, encode_entity((tail,))))
            scene.tikv.control.fault("GetRegion", "no-leader", times=1)
            watching.until_more(300)


@pytest.mark.parametrize(("store", "what"), [("tidb", "history store"), ("tikv", "cannot write online store")])
def test_an_outage_longer_than_the_budget(scene: Scene, store: str, what: str) -> None:
    """Case 14: past its budget the worker ends with a sentence and exit code 1; the next one misses nothing."""
    with scene.under_load(outage_budget_us=1_000_000) as (start_worker, watching):
        worker = start_worker()
        watching.workers.append(worker)
        watching.until_more(1_000)
        watching.workers.clear()
        proxy = getattr(scene, store).proxy
        proxy.refuse()
        ended = worker.wait()
        proxy.normal()
        assert ended.code == 1, ended.log
        assert (
            f"gave up after 1 s of trying: {'history' if store == 'tidb' else 'cannot write online'} store" in ended.log
        )
        assert "Traceback" not in ended.log
        watching.workers.append(start_worker())
        watching.until_more(1_000)


def test_a_database_that_is_read_only_for_a_while(scene: Scene) -> None:
    """Case 16: a database that takes no writes is an outage: there is no dead letter, and afterwards all is there."""
    user, database = f"u{uuid.uuid4().hex[:12]}", scene.settings.history.rpartition("/")[2]
    run(scene.tidb.port, f"CREATE USER {user}")
    run(scene.tidb.port, f"GRANT ALL ON `{database}`.* TO {user}")  # root may write all the same
    url = f"tidb://{user}@{scene.tidb.proxy.address}/{database}"
    try:
        with scene.under_load(history_url=url) as (start_worker, watching):
            worker = start_worker()
            watching.workers.append(worker)
            watching.until_more(1_000)
            run(scene.tidb.port, "SET GLOBAL tidb_super_read_only = ON")
            watching.until(lambda: outages_told(worker, "tidb://") >= 2 * PARTITIONS)
            run(scene.tidb.port, "SET GLOBAL tidb_super_read_only = OFF")
            watching.until_more(1_000)
    finally:
        run(scene.tidb.port, "SET GLOBAL tidb_super_read_only = OFF")
        run(scene.tidb.port, f"DROP USER {user}")


def test_a_row_that_the_database_rejects(scene: Scene) -> None:
    """Case 15: of 500 the one row that does not fit into its column is a dead letter; all others are stored."""
    settings, broker, group = scene.settings, scene.broker, scene.group
    catalog = prepare(settings, [group], broker)
    database = settings.history.rpartition("/")[2]
    run(scene.tidb.port, f"ALTER TABLE `{database}`.history_plane MODIFY carrier VARCHAR(8)")
    with FeatureProducer(broker, settings, catalog) as producer:
        for at in range(500):
            carrier = "wider than that" if at == 250 else "UA"
            producer.produce("plane", {"tail": f"N{at}", "at": START, "delay": at, "carrier": carrier})
    with workers_on(settings, broker) as start_worker, Progress(settings) as progress:
        Watching(progress, start_worker()).drain(500)
    assert check(settings, broker, group.topic).outcome == Outcome(500, lost=1, letters=1, online_differs=1)
    [letter] = read_dead_letters(broker, group.topic, timeout_s=30)
    assert (letter.key, letter.stage, letter.reason) == (b"N250", "store", Reason.REJECTED_BY_STORE)
    assert "wider" not in letter.message
