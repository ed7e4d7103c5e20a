"""A topic read as any Kafka client reads it: partition by partition, from the first offset to the end it has now."""

from __future__ import annotations

import time
from collections.abc import Iterator

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from oomstream.streams.broker import Broker

TIMEOUT_S = 60.0
"""How long the broker may say nothing."""


class TopicReader:
    """Reads topics; for one thread.

    Args:
        broker: Where.
    """

    def __init__(self, broker: Broker) -> None:
        self._consumer = Consumer(
            {
                **broker.client_config(TIMEOUT_S),
                "group.id": "topic-reader",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
            }
        )

    def partitions(self, topic: str) -> list[int]:
        """Partitions of a topic."""
        return sorted(self._consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic].partitions)

    def end(self, topic: str, partition: int) -> int:
        """End of a partition: the offset of the next record to come."""
        _, end = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), TIMEOUT_S)
        return int(end)

    def messages(self, topic: str, partition: int) -> Iterator[Message]:
        """Messages of a partition, in order of offset; read one partition after the other."""
        self._consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
        heard_at = time.monotonic()
        while True:
            for message in self._consumer.consume(5_000, timeout=0.2):
                heard_at = time.monotonic()
                if (error := message.error()) is not None:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    if message.partition() == partition:
                        return
                    continue
                yield message
            assert time.monotonic() - heard_at < TIMEOUT_S, f"{topic}[{partition}] is silent"

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()
