"""The brokers that these tests run on: the embedded one, and a real Kafka where one can be started."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from oomstream.agents.broker import EmbeddedBroker
from oomstream.streams.broker import Broker, parse_broker

_GONE_S = 30.0


@pytest.fixture(params=["embedded", "kafka"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A broker with no topics and no consumer groups."""
    if request.param == "embedded":
        with EmbeddedBroker() as embedded:
            yield embedded.broker
        return
    broker = parse_broker(request.getfixturevalue("kafka_server").url)
    yield broker
    clear(broker)


def clear(broker: Broker) -> None:
    """Delete every topic and group of a real broker, and wait until they are gone."""
    admin = AdminClient(broker.client_config(_GONE_S))
    groups = [group.group_id for group in admin.list_consumer_groups().result().valid]
    if groups:
        for future in admin.delete_consumer_groups(groups).values():
            with contextlib.suppress(KafkaException):  # a member has not left yet; no test counts on a new group
                future.result(_GONE_S)
    topics = [name for name in admin.list_topics(timeout=_GONE_S).topics if not name.startswith("__")]
    if topics:
        for future in admin.delete_topics(topics).values():
            future.result(_GONE_S)
    deadline = time.monotonic() + _GONE_S
    while any(not name.startswith("__") for name in admin.list_topics(timeout=_GONE_S).topics):
        assert time.monotonic() < deadline, "the topics are still there"
        time.sleep(0.05)
