"""A Kafka broker: KRaft, broker and controller in one process.

It has three listeners: one for clients, one whose advertised address is a proxy's, and the controller's. A client that
starts at the proxy is told the proxy's address for everything after, and so never goes round it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.services import build, docker
from tests.services.native import HOST, NativeProcess, free_ports
from tests.services.proxy import Proxy
from tests.services.server import Availability, NotReady, Process, Server, Way, choose, temporary_folder

VERSION = "4.3.1"
IMAGE = f"apache/kafka:{VERSION}"

_POM = Path(__file__).parent / "kafka" / "pom.xml"
_LOG4J = Path(__file__).parent / "kafka" / "log4j2.properties"
_CLUSTER_ID = "b29tc3RyZWFtLXRlc3RzMQ"
_BUILD_TIMEOUT_S = 900.0
_PROBE_TIMEOUT_S = 2.0
_LISTS = frozenset({"listeners", "advertised.listeners", "listener.security.protocol.map"})
_JAVA_OPTIONS = ["-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]


def available(way: Way | None = None) -> Availability:
    """Say whether and how a broker can be started here."""
    lacking: dict[Way, str] = {"docker": docker.missing(), "native": build.lacking("java", "mvn")}
    return choose(f"Kafka {VERSION}", lacking, "apt-get install default-jre-headless maven", way)


def jars() -> Path:
    """Return the folder of the broker's jars, fetched by Maven the first time."""

    def fetch(folder: Path) -> None:
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder / 'libs'}"]
        build.run(["mvn", "-q", "-B", "-f", str(_POM), *goal], folder, _BUILD_TIMEOUT_S)

    return build.built(f"kafka-{VERSION}", [_POM], fetch) / "libs"


def start(way: Way | None = None, *, more: Mapping[str, str] | None = None) -> Server:
    """Start a broker with no topics; ``url`` is ``kafka://host:port``.

    Args:
        way: How; None = as it can be.
        more: Settings of the broker beside ours; listeners are added to ours.
    """
    chosen = available(way).required()
    client_port, proxied_port, controller_port = free_ports(3)
    proxy = Proxy(proxied_port)
    folder = temporary_folder("kafka")
    settings = _settings(client_port, proxied_port, controller_port, proxy.address, folder / "data")
    for name, value in (more or {}).items():
        settings[name] = f"{settings[name]},{value}" if name in _LISTS else value
    process = _native(settings, folder) if chosen == "native" else _container(settings)
    address = f"{HOST}:{client_port}"
    return Server(
        "Kafka",
        [process],
        functools.partial(_probe, address),
        folder,
        url=f"kafka://{address}",
        proxied_url=f"kafka://{proxy.address}",
        proxies=[proxy],
    ).start()


def _settings(client_port: int, proxied_port: int, controller_port: int, proxy: str, data: Path) -> dict[str, str]:
    client, controller = f"{HOST}:{client_port}", f"{HOST}:{controller_port}"
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"CLIENT://{client},PROXIED://{HOST}:{proxied_port},CONTROLLER://{controller}",
        "advertised.listeners": f"CLIENT://{client},PROXIED://{proxy}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(data),
        # One broker.
        "default.replication.factor": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # Quick to start and small: fewer internal partitions, a small cleaner.
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        "log.cleaner.dedupe.buffer.size": "4194304",
        # Tests kill group members and must not wait for long until the group notices.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "500",
        "group.consumer.min.session.timeout.ms": "500",
        "group.consumer.min.heartbeat.interval.ms": "100",
        # A topic that is not there is an error here, as it should be in production.
        "auto.create.topics.enable": "false",
        "message.max.bytes": "1048588",
        # After a kill the controller takes the broker back only when its last session is over (default 9 s).
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
    }


def _native(settings: dict[str, str], folder: Path) -> Process:
    properties = folder / "server.properties"
    properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    java = ["java", *_JAVA_OPTIONS, f"-Dlog4j2.configurationFile={_LOG4J}", "-cp", f"{jars()}/*"]
    formatting = ["kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(properties)]
    build.run([*java, *formatting], folder, _BUILD_TIMEOUT_S)
    return NativeProcess("kafka", [*java, "kafka.Kafka", str(properties)], folder)


def _container(settings: dict[str, str]) -> Process:
    # The image turns KAFKA_SOME_NAME into some.name, and formats the storage itself.
    env = {"KAFKA_" + name.upper().replace(".", "_"): value for name, value in settings.items()}
    env["KAFKA_LOG_DIRS"] = "/tmp/kraft-combined-logs"
    return docker.Container("kafka", IMAGE, env={**env, "CLUSTER_ID": _CLUSTER_ID})


def _probe(address: str) -> None:
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    try:
        brokers = admin.list_topics(timeout=_PROBE_TIMEOUT_S).brokers
    except KafkaException as exc:
        raise NotReady(str(exc)) from exc
    if not brokers:
        raise NotReady("the broker has not registered itself yet")
