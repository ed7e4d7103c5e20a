"""Kafka's committed offsets decide nothing: where a worker begins, and what it decides, is in the database alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, ConsumerGroupTopicPartitions, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from oomstream.streams.broker import Broker, parse_broker
from oomstream.streams.dlq_topic import dlq_topic
from tests.faults.harness import WorkerProcess
from tests.integration.backends import Backends, prepare
from tests.integration.feed import DEADLINE_S, Events, Progress, Watching, plane_group, workers_on
from tests.integration.topic_oracle import Outcome, check, read_topic
from tests.services.mysql_protocol import SqlServer
from tests.services.server import Server
from tests.services.tikv import TikvServer

PARTITIONS = 4
RECORDS = 800


class Group:
    """The workers' consumer group, as an administrator has it.

    Args:
        broker: Where.
        name: The group.
        topic: The topic that it reads.
    """

    def __init__(self, broker: Broker, name: str, topic: str) -> None:
        self._admin = AdminClient(broker.client_config(30))
        self._name = name
        self._places = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]

    def offsets(self) -> dict[int, int]:
        """What the group has committed, by partition; nothing if there is no group."""
        asked = ConsumerGroupTopicPartitions(self._name, self._places)
        found: Any = self._admin.list_consumer_group_offsets([asked])[self._name].result(30).topic_partitions
        return {each.partition: each.offset for each in found if each.offset >= 0}

    def delete(self) -> None:
        """Delete the group."""
        self._admin.delete_consumer_groups([self._name])[self._name].result(30)
        assert self.offsets() == {}

    def set(self, offsets: dict[int, int]) -> None:
        """Set the group to other offsets."""
        places = [TopicPartition(self._places[0].topic, partition, offset) for partition, offset in offsets.items()]
        asked = ConsumerGroupTopicPartitions(self._name, places)
        for place in self._admin.alter_consumer_group_offsets([asked])[self._name].result(30).topic_partitions:
            assert place.error is None
        assert self.offsets() == offsets


Meddle = Callable[[Group, dict[int, int]], None]
"""Does something to the group while no worker runs, knowing the log's ends."""

MEDDLING: dict[str, Meddle] = {
    "deleted": lambda group, ends: group.delete(),
    "back": lambda group, ends: group.set(dict.fromkeys(ends, 0)),
    "forward": lambda group, ends: group.set(ends),
    "outside": lambda group, ends: group.set({partition: end + 1_000_000 for partition, end in ends.items()}),
}


@pytest.mark.parametrize("what", MEDDLING)
def test_what_is_done_to_the_group_changes_nothing(
    tmp_path: Path, kafka_server: Server, tidb_server: SqlServer, tikv_server: TikvServer, what: str
) -> None:
    """Deleting the consumer group, or setting it back or forward, changes nothing: nothing is lost or decided twice.

    A letter is written each time an event is judged to be invalid, so that letters count decisions.
    """
    broker = parse_broker(kafka_server.url)
    settings = Backends("tidb+tikv", tmp_path, tidb_server, tikv_server).fresh()
    plane = plane_group(PARTITIONS)
    catalog = prepare(settings, [plane], broker)
    events = Events(settings, broker, catalog, seed=21)
    group = Group(broker, settings.consumer_group, plane.topic)
    with workers_on(settings, broker, batch_rows=100) as start_worker, Progress(settings) as progress:
        for run in range(2):
            positions = {each.name.partition: each.next_sequence for each in progress.sources()}
            events.produce(RECORDS)
            if run:
                MEDDLING[what](group, read_topic(broker, plane.topic).ends)
            worker = start_worker()
            Watching(progress, worker).drain(events.made)
            assert begins(worker) == (positions or dict.fromkeys(range(PARTITIONS), 0))
    events.close()
    found = check(settings, broker, plane.topic)
    assert found.outcome == Outcome(events=found.outcome.events)
    topic = read_topic(broker, plane.topic)
    assert letters_written(broker, plane.topic) == len(topic.garbage) > 5
    assert group.offsets() == topic.ends


def begins(worker: WorkerProcess) -> dict[int, int]:
    """Where a worker, which claims each partition once, began to read."""
    claims = re.findall(r"\[(\d+)\]: claimed at offset (\d+) ", worker.log)
    assert len(claims) == PARTITIONS
    return {int(partition): int(offset) for partition, offset in claims}


def letters_written(broker: Broker, topic: str) -> int:
    """Messages in the dead-letter topic, each counted."""
    name = dlq_topic(topic)
    options = {"group.id": "counts-letters", "enable.auto.commit": False, "enable.partition.eof": True}
    consumer = Consumer({**broker.client_config(30), **options})
    try:
        left = set(consumer.list_topics(name, timeout=30).topics[name].partitions)
        consumer.assign([TopicPartition(name, partition, OFFSET_BEGINNING) for partition in left])
        count = 0
        while left:
            message = consumer.poll(DEADLINE_S)
            assert message is not None
            if (error := message.error()) is None:
                count += 1
            else:
                assert error.code() == KafkaError._PARTITION_EOF, error
                left.discard(message.partition() or 0)
    finally:
        consumer.close()
    return count
