"""What `oomstream serve` promises of a push that it has acknowledged: by a killed server, by two, through a broker."""

from __future__ import annotations

import asyncio
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from oomstream.agents.broker import EmbeddedBroker
from oomstream.agents.serve import oomagent_pb2 as pb
from oomstream.query.sync import FeatureStore
from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.groups import FeatureGroup
from oomstream.stores.opening import open_stores
from oomstream.stores.settings import Settings
from oomstream.streams.broker import Broker
from oomstream.streams.verify import Verifier
from tests.integration.agent_groups import CLICKS
from tests.integration.backends import Backends, prepare
from tests.integration.feed import workers_on
from tests.integration.served import AgentClient, Served, serving
from tests.services.tikv import TikvServer


@pytest.fixture
def settings(backends: Backends) -> Settings:
    """Stores that hold the group `clicks` and nothing else."""
    settings = backends.fresh()
    prepare(settings, [CLICKS])
    return settings


def number(client: AgentClient, key: str = "ann") -> int | None:
    """What is online now."""
    found: int | None = client.values(key, "clicks.number")["clicks.number"]
    return found


def push(client: AgentClient, value: int, key: str = "ann") -> None:
    """Push a number."""
    client.push("clicks", key, number=pb.Value(int64=value))


def test_an_acknowledged_push_survives_kill_9(settings: Settings, tmp_path: Path) -> None:
    """Of a server killed while 8 clients push, every acknowledged push is there, and the next server serves it."""
    acknowledged: dict[str, int] = {}
    enough = threading.Event()

    def push_until_killed(client: AgentClient, key: str) -> None:
        try:
            for value in range(10_000):
                push(client, value, key)
                acknowledged[key] = value
                if len(acknowledged) == 8 and value >= 5:
                    enough.set()
        except grpc.RpcError as exc:
            failed: grpc.Call = exc  # type: ignore[assignment]
            assert failed.code() is grpc.StatusCode.UNAVAILABLE, failed.details()

    server = Served(settings, tmp_path)
    with server.agent() as client, ThreadPoolExecutor(8) as pool:
        pushing = [pool.submit(push_until_killed, client, f"k{at}") for at in range(8)]
        assert enough.wait(60)
        server.kill()
        for each in pushing:
            each.result(60)
    with serving(settings, tmp_path) as (_, client):
        for key, value in acknowledged.items():
            found = number(client, key)
            assert found in (value, value + 1), f"{key}: {value} was acknowledged, and {found} is there"
    with FeatureStore.open(settings=settings) as store:
        exported = store.get_online_features(["clicks.number"], [{"user": key} for key in acknowledged]).to_dict()
    assert all(found >= value for found, value in zip(exported["clicks.number"], acknowledged.values(), strict=True))


def test_two_agents_push_the_same_entity_and_the_newest_stays(settings: Settings, tmp_path: Path) -> None:
    """A push acknowledged by one agent is read from the other at once; after a race, online is history's newest."""
    with serving(settings, tmp_path) as (_, one), serving(settings, tmp_path) as (_, other):
        for value in range(0, 40, 2):
            push(one, value)
            push(other, value + 1)
            assert number(one) == number(other) == value + 1
            push(other, value)
            push(one, value + 1)
            assert number(one) == number(other) == value + 1
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda at: push((one, other)[at % 2], at), range(200)))
        assert number(one) == number(other)

    async def differing() -> int:
        async with open_stores(settings) as (history, online):
            registered = (await history.load_catalog()).groups["clicks"]
            return (await Verifier(history, online).verify(registered)).differing

    assert asyncio.run(differing()) == 0


def test_stores_that_are_down_are_unavailable(
    tmp_path: Path, request: pytest.FixtureRequest, tikv_server: TikvServer
) -> None:
    """While a store is down, reads and health are UNAVAILABLE and 503 with a sentence; afterwards all is well."""
    tidb = request.getfixturevalue("tidb_server")
    backends = Backends("tidb+tikv", tmp_path, tidb, tikv_server)
    settings = backends.fresh(proxied=True)
    prepare(settings, [CLICKS])
    with serving(settings, tmp_path, OOMSTREAM_CALL_TIMEOUT="5s") as (server, client):
        push(client, 1)
        read = pb.OnlineGetRequest(entity_key="ann", features=["clicks.number"])
        tikv_server.proxy.reset()
        tikv_server.proxy.refuse()
        for name, message in (("OnlineGet", read), ("HealthCheck", pb.HealthCheckRequest())):
            code, sentence = client.failure(name, message)
            assert code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}, sentence
            assert "tikv://" in sentence or "OOMSTREAM_CALL_TIMEOUT" in sentence
        status, answer = server.ask("/ready")
        assert status in {503, 504}
        assert set(answer) == {"error", "code"}
        assert server.ask("/health") == (200, {"status": "ok"})
        tikv_server.proxy.normal()
        assert number(client) == 1
        tidb.proxy.reset()
        tidb.proxy.refuse()
        event = pb.PushRequest(group="clicks", entity_key="ann", feature_values={"number": pb.Value(int64=2)})
        code, sentence = client.failure("Push", event)
        assert code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}, sentence
        assert number(client) == 1
        tidb.proxy.normal()
        push(client, 3)
        assert number(client) == 3


def clicks_on_a_topic() -> FeatureGroup:
    """The group on a topic that no other test uses."""
    return group_from_avsc({**CLICKS.schema, "topic": f"clicks-{uuid.uuid4().hex[:12]}", "partitions": 2})


def test_with_a_broker_a_push_goes_through_its_topic(backends: Backends, broker: Broker, tmp_path: Path) -> None:
    """A push is produced, and acknowledged when a worker has brought it online; what workers refuse is said."""
    settings = backends.fresh(broker_url=broker.url)
    prepare(settings, [clicks_on_a_topic()], broker)
    with workers_on(settings, broker) as start_worker, serving(settings, tmp_path) as (server, client):
        start_worker()
        for value in range(20):
            push(client, value)
            assert number(client) == value
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda at: push(client, at, f"k{at}"), range(50)))
        assert [number(client, f"k{at}") for at in range(50)] == list(range(50))
        rows = {"user": ["x", "y", "x"], "number": [1, 2, 3]}
        assert server.ask("/push", {"push_source_name": "clicks", "df": rows}) == (200, {"status": "ok", "rows": 3})
        assert (number(client, "x"), number(client, "y")) == (3, 2)
        future = {"user": ["x"], "number": [9], "event_timestamp": ["2199-01-01"]}
        status, answer = server.ask("/push", {"push_source_name": "clicks", "df": future})
        assert (status, "workers refused the event" in answer["error"]) == (400, True)
        assert number(client, "x") == 3

    async def kinds() -> set[str]:
        async with open_stores(settings) as (history, _):
            return {source.name.kind.name for source in await history.sources()}

    assert asyncio.run(kinds()) == {"TOPIC"}


def test_without_a_worker_a_push_through_a_broker_says_so(tmp_path: Path) -> None:
    """DEADLINE_EXCEEDED asks whether a worker is running; the event is in the topic."""
    backends = Backends("sqlite+sqlite", tmp_path)
    with EmbeddedBroker() as embedded:
        settings = backends.fresh(broker_url=embedded.broker.url)
        prepare(settings, [clicks_on_a_topic()], embedded.broker)
        with serving(settings, tmp_path, OOMSTREAM_CALL_TIMEOUT="2s") as (server, client):
            event = pb.PushRequest(group="clicks", entity_key="ann", feature_values={"number": pb.Value(int64=2)})
            code, sentence = client.failure("Push", event)
            assert (code, "is one running?" in sentence) == (grpc.StatusCode.DEADLINE_EXCEEDED, True)
            status, answer = server.ask("/push", {"push_source_name": "clicks", "df": {"user": ["x"]}})
            assert (status, "is one running?" in answer["error"]) == (504, True)
            with workers_on(settings, embedded.broker) as start_worker:
                start_worker().until(lambda: number(client) == 2)
                push(client, 3)
                assert number(client) == 3
