"""Which broker a process talks to, and how each client library is told.

A broker URL is ``kafka://host:9092[,host2:9092]``, or ``embedded://127.0.0.1:PORT/INCARNATION/CONTROL`` for the
broker inside `oomstream dev` and `oomstream broker`. PORT speaks Kafka's protocol; CONTROL does what that broker's
Kafka side cannot: make topics with a chosen number of partitions, and say which incarnation runs (see
`oomstream.streams.control`). The embedded broker writes its URL into ``broker.url`` in the data folder, where other
processes find it.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from oomstream.schemas.errors import InvalidSetting, OomstreamError, StoreUnavailable
from oomstream.stores.settings import Settings
from oomstream.streams.control import PING_TIMEOUT_S, ping
from oomstream.streams.kafka_security import KafkaSecurity
from oomstream.streams.kafka_troubles import KafkaTroubles

URL_FILE = "broker.url"
DEFAULT_PORT = 9092
MAX_MESSAGE_BYTES = 1_048_588
"""Kafka's own default of ``max.message.bytes``: room for an event of 1 MiB."""

_SERVER = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:,/@\[\]]+)(?::(\d{1,5}))?")
_FORMS = "kafka://host:9092[,host2:9092] or the embedded://… that `oomstream broker` prints"

ClientConfig = dict[str, Any]
"""Options of a confluent-kafka client."""


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker as its URL describes it.

    Attributes:
        servers: ``host:port`` of each bootstrap server.
        incarnation: UUID of an embedded broker's run; empty for a real one.
        control_port: Loopback port of an embedded broker's control socket; 0 for a real one.
        security: How clients connect; None = in clear and with no user.
        troubles: What clients of this broker met last; for messages.
    """

    servers: tuple[str, ...]
    incarnation: str = ""
    control_port: int = 0
    security: KafkaSecurity | None = None
    troubles: KafkaTroubles = field(default_factory=KafkaTroubles, compare=False, repr=False)

    @property
    def embedded(self) -> bool:
        """Whether it is the embedded broker."""
        return bool(self.incarnation)

    @property
    def url(self) -> str:
        """The URL, which `parse_broker` reads back."""
        if self.embedded:
            return f"embedded://{self.servers[0]}/{self.incarnation}/{self.control_port}"
        return f"kafka://{','.join(self.servers)}"

    def client_config(self, timeout_s: float) -> ClientConfig:
        """What every confluent-kafka client of ours begins with.

        Args:
            timeout_s: Deadline of one request, seconds.
        """
        return {
            "bootstrap.servers": ",".join(self.servers),
            "socket.timeout.ms": int(timeout_s * 1000),
            "socket.keepalive.enable": True,
            "client.id": "oomstream",
            # Connection errors reach us as errors of calls; librdkafka's own lines on stderr would only repeat them.
            "log_level": 2,
            "error_cb": self.troubles.note,
            **(self.security.client_config() if self.security is not None else {}),
        }

    def error(self, exc: object, doing: str = "", client: Any = None) -> OomstreamError:
        """What a failed call to this broker means; `InvalidSetting` where it refuses this user or TLS fails.

        Args:
            exc: What the call raised or was told; anything that is not Kafka's own = no answer in time.
            doing: What failed, to begin the sentence with.
            client: The client that failed: what it still has to say of it is heard first.
        """
        if client is not None:
            client.poll(0)
        return self.troubles.error(exc, f"{doing}: broker {self.url}" if doing else f"broker {self.url}")


def parse_broker(url: str) -> Broker:
    """Read a broker URL.

    Raises:
        InvalidSetting: It is not of one of the two forms.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise InvalidSetting(
            f"the broker URL must be {_FORMS}, with no user: set OOMSTREAM_KAFKA_USER and OOMSTREAM_KAFKA_PASSWORD"
        )
    if parts.query or parts.fragment:
        raise InvalidSetting(f"the broker URL must be {_FORMS}, with no query or fragment")
    servers = tuple(_server(each) for each in parts.netloc.split(","))
    path = parts.path.strip("/").split("/")
    if parts.scheme == "kafka" and path == [""]:
        return Broker(servers)
    if parts.scheme == "embedded" and len(servers) == 1 and len(path) == 2 and path[0] and path[1].isdecimal():
        return Broker(servers, path[0], int(path[1]))
    raise InvalidSetting(f"the broker URL must be {_FORMS}")


def _server(text: str) -> str:
    match = _SERVER.fullmatch(text)
    if match is None or int(match[2] or DEFAULT_PORT) > 65_535:
        raise InvalidSetting(f"the broker URL must be {_FORMS}")
    return f"{match[1]}:{match[2] or DEFAULT_PORT}"


def publish_broker(data_dir: Path, broker: Broker) -> None:
    """Write an embedded broker's URL where other processes look for it."""
    data_dir.mkdir(parents=True, exist_ok=True)
    fresh = data_dir / f"{URL_FILE}.new"
    fresh.write_text(f"{broker.url}\n", encoding="utf-8")
    fresh.replace(data_dir / URL_FILE)


def withdraw_broker(data_dir: Path, broker: Broker) -> None:
    """Remove the URL again, unless a later broker has written its own."""
    with contextlib.suppress(FileNotFoundError):
        if (data_dir / URL_FILE).read_text(encoding="utf-8").strip() == broker.url:
            (data_dir / URL_FILE).unlink()


def published_broker(data_dir: Path) -> Broker | None:
    """The embedded broker that runs on a data folder; None if there is none, or a killed one left its file behind."""
    try:
        broker = parse_broker((data_dir / URL_FILE).read_text(encoding="utf-8").strip())
    except (FileNotFoundError, NotADirectoryError, InvalidSetting):
        return None
    try:
        return broker if ping(broker.control_port, timeout_s=PING_TIMEOUT_S) == broker.incarnation else None
    except StoreUnavailable:
        return None


def find_broker(settings: Settings) -> Broker | None:
    """The broker that settings name, else the embedded one that runs on the data folder, else None.

    Raises:
        InvalidSetting: The broker URL, or a setting of its security, is wrong.
    """
    if settings.broker_url is None:
        return published_broker(settings.data_dir)
    broker = parse_broker(settings.broker_url)
    security = None if broker.embedded else KafkaSecurity.of(settings)
    if security is not None:
        security.check()
    return replace(broker, security=security)


def need_broker(settings: Settings) -> Broker:
    """As `find_broker`, for work that cannot be done without one.

    Raises:
        InvalidSetting: There is none, or its URL is wrong; says what to do.
    """
    broker = find_broker(settings)
    if broker is None:
        raise InvalidSetting(
            f"no broker: OOMSTREAM_BROKER_URL is not set and no embedded broker runs on {settings.data_dir} "
            "(start `oomstream dev` or `oomstream broker`)"
        )
    return broker
