"""Where a run takes place: the embedded broker and SQLite, or real Kafka, TiDB and TiKV behind proxies."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # its stub re-exports them

from oomstream.agents.broker import EmbeddedBroker
from oomstream.schemas.avsc import group_from_avsc
from oomstream.stores.settings import Settings, load_settings
from oomstream.streams.broker import Broker, parse_broker
from oomstream.streams.topics import partition_counts
from tests.integration.backends import prepare
from tests.services import kafka, tidb, tikv
from tests.services.mysql_protocol import SqlServer
from tests.services.server import Server
from tests.services.tikv import TikvServer
from tests.torture.groups import TortureGroup, torture_groups
from tests.torture.schedule import FIRST_PARTITIONS, Options

SESSION_US = 500_000
"""The embedded broker lets a rebalance take as long as a session, where that is a second or less."""

SERVERS_SESSION_US = 1_500_000
CALL_TIMEOUT_US = 3_000_000
BATCH_ROWS = 50
CONSUMER_GROUP = "torture"
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Stage:
    """Where a run takes place.

    Attributes:
        folder: The working folder.
        settings: The stores' own addresses.
        broker: The broker's own address.
        groups: The groups by name.
        worker_settings: Settings of the workers, as JSON.
        servers: The servers by name, between which and the workers are proxies; none on the embedded broker.
    """

    folder: Path
    settings: Settings
    broker: Broker
    groups: dict[str, TortureGroup]
    worker_settings: dict[str, Any]
    servers: Mapping[str, Server] = field(default_factory=dict)

    @property
    def embedded(self) -> bool:
        """Whether no server is used."""
        return not self.servers

    def partitions(self) -> dict[str, int]:
        """How many partitions each group's topic has now."""
        counts = partition_counts(self.broker, timeout_s=_TIMEOUT_S)
        return {name: counts[group.topic] for name, group in self.groups.items()}


def open_stage(folder: Path, options: Options) -> AbstractContextManager[Stage]:
    """The stage that the options ask for, with servers of its own."""
    return _own_servers(folder) if options.servers else embedded_stage(folder)


@contextmanager
def embedded_stage(folder: Path) -> Iterator[Stage]:
    """The embedded broker, SQLite, and the groups."""
    data = folder / "data"
    with EmbeddedBroker(data) as running:
        settings = load_settings(data_dir=data, broker_url=running.url, consumer_group=CONSUMER_GROUP)
        groups = torture_groups(FIRST_PARTITIONS)
        _register(settings, running.broker, groups)
        worker = _worker_settings(data, running.url, SESSION_US)
        yield Stage(folder, settings, running.broker, groups, worker)


@contextmanager
def _own_servers(folder: Path) -> Iterator[Stage]:
    with ExitStack() as running:
        started = (kafka.start(), tidb.start(), tikv.start())
        for server in started:
            running.enter_context(server)
        with server_stage(folder, *started) as stage:
            yield stage


@contextmanager
def server_stage(folder: Path, broker: Server, history: SqlServer, online: TikvServer) -> Iterator[Stage]:
    """Servers that run already: a database, a namespace, topics and a consumer group of the run's own."""
    run = uuid.uuid4().hex[:8]
    data, namespace = folder / "data", f"torture_{run}"
    database = history.fresh_database()
    data.mkdir(parents=True)
    settings = load_settings(
        data_dir=data,
        broker_url=broker.url,
        history_url=database,
        online_url=f"{online.url}/{namespace}",
        consumer_group=CONSUMER_GROUP,
    )
    groups = torture_groups(FIRST_PARTITIONS, f"-{run}")
    at = parse_broker(broker.url)
    _make_topics(at, groups)
    _register(settings, at, groups)
    worker = {
        **_worker_settings(data, broker.proxied_url, SERVERS_SESSION_US),
        "history_url": f"{history.proxied_url}/{database.rpartition('/')[2]}",
        "online_url": f"{online.proxied_url}/{namespace}",
        "call_timeout_us": CALL_TIMEOUT_US,
    }
    yield Stage(folder, settings, at, groups, worker, {"kafka": broker, "tidb": history, "tikv": online})


def _worker_settings(data: Path, broker_url: str, session_us: int) -> dict[str, Any]:
    return {
        "data_dir": str(data),
        "broker_url": broker_url,
        "consumer_group": CONSUMER_GROUP,
        "session_timeout_us": session_us,
        "batch_rows": BATCH_ROWS,
    }


def _make_topics(broker: Broker, groups: Mapping[str, TortureGroup]) -> None:
    """Topics that keep records of any age: those of the torture carry timestamps of a fixed day."""
    admin = AdminClient(broker.client_config(_TIMEOUT_S))
    topics = [
        NewTopic(group.topic, num_partitions=FIRST_PARTITIONS, config={"retention.ms": "-1"})
        for group in groups.values()
    ]
    for future in admin.create_topics(topics, operation_timeout=_TIMEOUT_S).values():
        future.result(_TIMEOUT_S)


def _register(settings: Settings, broker: Broker, groups: Mapping[str, TortureGroup]) -> None:
    prepare(settings, [group_from_avsc(each.avsc) for each in groups.values()], broker)
