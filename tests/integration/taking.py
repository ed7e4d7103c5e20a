"""A topic taken in by the product's own pipeline in this process, one partition after the other, with no worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from confluent_kafka import Producer

from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import HistoryStore, OnlineStore, SourceName
from oomstream.stores.catalog_cache import CatalogCache
from oomstream.stores.opening import open_stores
from oomstream.stores.settings import Settings
from oomstream.streams.broker import Broker
from oomstream.streams.dead_letters import DeadLetter, DeadLetterSink
from oomstream.streams.dlq_topic import KafkaDeadLetterSink, dlq_topic
from oomstream.streams.ingest import SourceIngest
from oomstream.streams.log_result import LogCheck
from oomstream.streams.topic_log import TopicLog
from oomstream.streams.topics import Incarnations
from oomstream.streams.verify_log import LogVerifier
from tests.integration.planting import Planting


class Taken:
    """A group, its topic, and the stores that the topic is taken into.

    Args:
        settings: Where the stores are.
        broker: Where the topic is.
        group: The group.
        history: Open history store.
        online: Open online store.
    """

    def __init__(
        self, settings: Settings, broker: Broker, group: FeatureGroup, history: HistoryStore, online: OnlineStore
    ) -> None:
        self.settings = settings
        self.broker = broker
        self.group = group
        self.history = history
        self.online = online
        self.planting = Planting(settings)

    @property
    def incarnation(self) -> str:
        """Of the topic."""
        return Incarnations(self.broker, timeout_s=30).of([self.group.topic])[self.group.topic]

    def produce(self, *values: bytes | None, partition: int = 0, key: bytes | None = None) -> None:
        """Write values as any client would."""
        producer = Producer(self.broker.client_config(30))
        for value in values:
            producer.produce(self.group.topic, value, key, partition=partition)
        assert producer.flush(30) == 0

    def produce_letters(self, *letters: DeadLetter) -> None:
        """Write messages into the dead-letter topic as any client would."""
        producer = Producer(self.broker.client_config(30))
        for letter in letters:
            headers: list[tuple[str, str | bytes | None]] = list(letter.message_headers())
            producer.produce(dlq_topic(self.group.topic), letter.value, letter.key, headers=headers)
        assert producer.flush(30) == 0

    async def take(self, sink: DeadLetterSink | None = None) -> None:
        """Take in what the topic has and is not taken in yet."""
        catalog = CatalogCache(self.history)
        for partition in range(self.group.partitions):
            name = SourceName(SourceKind.TOPIC, self.group.topic, self.incarnation, partition)
            pipeline = SourceIngest(
                history=self.history,
                online=self.online,
                catalog=catalog,
                dead_letters=sink or KafkaDeadLetterSink(self.broker, timeout_s=30),
                name=name,
                settings=self.settings,
            )
            with TopicLog(self.broker, self.group.topic, timeout_s=30) as log:
                first, end = log.bounds(partition)
                position = await pipeline.start(first, end, begin=end if self.settings.start == "latest" else first)
                for stretch in log.read(partition, position, end):
                    await pipeline.ingest(stretch.records)
                    pipeline.passed(stretch.end)
            await pipeline.flush()

    async def check(self, **more: Any) -> LogCheck:
        """Compare history with the log."""
        registered = (await self.history.load_catalog()).groups[self.group.name]
        return await LogVerifier(self.history, self.broker, self.settings, **more).verify(registered)


@asynccontextmanager
async def taking(settings: Settings, broker: Broker, group: FeatureGroup) -> AsyncIterator[Taken]:
    """Stores that were prepared for the group, open."""
    async with open_stores(settings) as (history, online):
        yield Taken(settings, broker, group, history, online)
