"""What is done to the consumer group, to topics and to servers, while workers run or are down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]  # its stub re-exports them

from tests.services.server import Server
from tests.torture.errors import TortureFailed
from tests.torture.stage import CONSUMER_GROUP, Stage

_TIMEOUT_S = 60.0
_FAR = 1 << 40
_CUTS = 2
"""How many connections are cut in the middle of what they carry."""


def join_and_commit(stage: Stage, how: str) -> None:
    """Commit offsets for the workers' consumer group: the first one, or one behind the end, of every partition.

    Somebody joins the group to do it, as any client with the group's name could; meanwhile it holds some of the
    workers' partitions.
    """
    wanted, session_ms = _offsets(stage, how), stage.worker_settings["session_timeout_us"] // 1000
    consumer = Consumer(
        {
            **stage.broker.client_config(_TIMEOUT_S),
            "group.id": CONSUMER_GROUP,
            "enable.auto.commit": False,
            "partition.assignment.strategy": "roundrobin",  # as workers have it
            "session.timeout.ms": session_ms,
            "heartbeat.interval.ms": session_ms // 3,
        }
    )
    consumer.subscribe([group.topic for group in stage.groups.values()])

    def commit() -> bool:
        consumer.poll(0.1)
        if not consumer.assignment():
            return False
        consumer.commit(offsets=wanted, asynchronous=False)
        return True

    try:
        _again(commit, "setting the offsets of the consumer group")
    finally:
        consumer.close()


def delete_group(stage: Stage) -> None:
    """Delete the consumer group, as soon as Kafka has seen that its members are gone."""
    admin = AdminClient(stage.broker.client_config(_TIMEOUT_S))

    def delete() -> bool:
        admin.delete_consumer_groups([CONSUMER_GROUP])[CONSUMER_GROUP].result(_TIMEOUT_S)
        return True

    _again(delete, "deleting the consumer group")


def alter_group(stage: Stage, how: str) -> None:
    """Set the offsets of the group by an administrator's call, which Kafka allows while it has no members."""
    admin = AdminClient(stage.broker.client_config(_TIMEOUT_S))
    wanted = _offsets(stage, how)

    def alter() -> bool:
        request = [ConsumerGroupTopicPartitions(CONSUMER_GROUP, wanted)]
        admin.alter_consumer_group_offsets(request)[CONSUMER_GROUP].result(_TIMEOUT_S)
        return True

    _again(alter, "setting the offsets of the consumer group")


def add_partitions(stage: Stage, group: str, more: int) -> int:
    """Add partitions to a group's topic; returns how many it has then."""
    topic, now = stage.groups[group].topic, stage.partitions()[group]
    admin = AdminClient(stage.broker.client_config(_TIMEOUT_S))
    admin.create_partitions([NewPartitions(topic, now + more)])[topic].result(_TIMEOUT_S)
    _again(lambda: stage.partitions()[group] == now + more, "adding partitions")
    return now + more


@contextmanager
def server_away(server: Server, how: str) -> Iterator[None]:
    """A server ended in order or killed; afterwards it is back with its data."""
    if how == "kill":
        server.kill()
    else:
        server.shut_down()
    yield
    server.restart()


@contextmanager
def server_cut_off(server: Server, how: str, seconds: int) -> Iterator[None]:
    """A server that cannot be reached for a while; afterwards it can."""
    for proxy in server.proxies:
        getattr(proxy, how)()  # refuse, reset or blackhole
    began = time.monotonic()
    yield
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    for proxy in server.proxies:
        proxy.normal()


@contextmanager
def connections_cut(server: Server, way: str, after_bytes: int) -> Iterator[None]:
    """A server some of whose connections end in the middle of what they carry."""
    server.proxy.cut_after(after_bytes, "to_server" if way == "to_server" else "to_client", times=_CUTS)
    yield
    server.proxy.normal()


def _offsets(stage: Stage, how: str) -> list[TopicPartition]:
    """For every partition the first offset, or one far behind the end."""
    offset = 0 if how.startswith("back") else _FAR
    return [
        TopicPartition(stage.groups[name].topic, number, offset)
        for name, count in stage.partitions().items()
        for number in range(count)
    ]


def _again(attempt: Callable[[], bool], what: str) -> None:
    """Try until it works: a group has members until their sessions are over."""
    deadline = time.monotonic() + _TIMEOUT_S
    problem: Exception | None = None
    while time.monotonic() < deadline:
        try:
            if attempt():
                return
        except KafkaException as exc:
            problem = exc
        time.sleep(0.05)
    raise TortureFailed(f"{what}: not within {_TIMEOUT_S:g} s: {problem}")
