"""The embedded broker: a Kafka-protocol log that needs no server and forgets everything when its process ends."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from oomstream.agents.broker.control_server import ControlServer
from oomstream.agents.broker.mock_cluster import MockCluster
from oomstream.schemas.errors import InvalidRequest
from oomstream.streams.broker import Broker, publish_broker, published_broker, withdraw_broker

MAX_PARTITIONS = 1_024
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)


class EmbeddedBroker:
    """One run of the embedded broker; every start is a new incarnation of every topic.

    Loopback only, and with no protection: any process of this machine can read and write it.

    Args:
        data_dir: Folder in which to publish the URL (``broker.url``); None = do not publish.
    """

    def __init__(self, data_dir: Path | None = None) -> None:
        self._data_dir = data_dir
        self._cluster = MockCluster()
        self._stack = ExitStack()
        self._topics: dict[str, int] = {}
        self._lock = threading.Lock()
        self._broker: Broker | None = None

    def start(self) -> None:
        """Start it and publish its URL.

        Raises:
            InvalidRequest: Another embedded broker runs on the same data folder.
            Fatal: It cannot start.
        """
        if self._data_dir is not None and (running := published_broker(self._data_dir)):
            raise InvalidRequest(f"an embedded broker already runs on {self._data_dir}: {running.url}")
        with ExitStack() as stack:
            stack.enter_context(self._cluster)
            incarnation = str(uuid.uuid4())
            control = ControlServer(self._answer)
            self._broker = Broker((self._cluster.server,), incarnation, control.port)
            control.start()
            stack.callback(control.stop)
            if self._data_dir is not None:
                publish_broker(self._data_dir, self._broker)
                stack.callback(withdraw_broker, self._data_dir, self._broker)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """End it and withdraw its URL; its topics and their messages are gone. Harmless when called twice."""
        self._stack.close()
        self._broker = None
        self._topics.clear()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def broker(self) -> Broker:
        """How clients reach it.

        Raises:
            InvalidRequest: It is not running.
        """
        if self._broker is None:
            raise InvalidRequest("the embedded broker is not running")
        return self._broker

    @property
    def url(self) -> str:
        """Its URL, for OOMSTREAM_BROKER_URL."""
        return self.broker.url

    def create_topic(self, name: str, partitions: int) -> bool:
        """Make a topic.

        Returns:
            False if it was there already, with as many partitions.

        Raises:
            InvalidRequest: The name is no topic's name, the number is out of range, or the topic is there with
                another number of partitions.
        """
        if not _TOPIC.fullmatch(name) or name in {".", ".."}:
            raise InvalidRequest(f"{name[:60]!r} cannot be a topic's name")
        if not 1 <= partitions <= MAX_PARTITIONS:
            raise InvalidRequest(f"topic {name!r} can have 1 to {MAX_PARTITIONS} partitions, not {partitions}")
        with self._lock:
            known = self._topics.get(name)
            if known is None:
                if not self._cluster.create_topic(name, partitions):
                    raise InvalidRequest(
                        f"topic {name!r} sprang up when a client named it before `oomstream apply` made it: "
                        "start the embedded broker anew"
                    )
                self._topics[name] = partitions
                return True
        if known != partitions:
            raise InvalidRequest(f"topic {name!r} has {known} partitions, not {partitions}")
        return False

    def _answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        match request:
            case {"ask": "ping"}:
                return {"incarnation": self.broker.incarnation}
            case {"ask": "topics", "topics": dict(wanted)}:
                made = [name for name, count in wanted.items() if self._make_if_missing(name, count)]
                return {"topics": {name: self._topics[name] for name in wanted}, "made": made}
        raise InvalidRequest("unknown request")

    def _make_if_missing(self, name: str, partitions: int) -> bool:
        return name not in self._topics and self.create_topic(name, int(partitions))
