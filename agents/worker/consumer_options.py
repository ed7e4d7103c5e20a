"""How the worker's Kafka consumer is set."""

from __future__ import annotations

from typing import NamedTuple, Self

from oomstream.stores.settings import Settings
from oomstream.streams.broker import Broker

METADATA_MAX_AGE_MS = 30_000
"""After how long at most a partition that was added to a topic is noticed."""


class ConsumerOptions(NamedTuple):
    """Options of the aiokafka consumer and limits of a fetched batch.

    Attributes:
        batch_rows: Most records in a batch.
        batch_bytes: About the most bytes in a batch.
        partition_fetch_bytes: Most bytes that one fetch returns of one partition (a larger record still comes alone).
        fetch_wait_ms: How long the broker holds an empty fetch. A real broker answers as soon as a record arrives; the
            embedded one sleeps through the whole time, so there it bounds an event's latency.
        commit_interval_s: How often the hint for lag monitors is committed.
        session_timeout_ms: After how long a silent worker loses its partitions.
        rebalance_timeout_ms: How long a rebalance waits for a worker.
        request_timeout_ms: Deadline of one request.
        metadata_max_age_ms: How often topics are looked at for new partitions.
    """

    batch_rows: int
    batch_bytes: int
    partition_fetch_bytes: int
    fetch_wait_ms: int
    commit_interval_s: float
    session_timeout_ms: int
    rebalance_timeout_ms: int
    request_timeout_ms: int
    metadata_max_age_ms: int

    @classmethod
    def of(cls, settings: Settings, broker: Broker) -> Self:
        """Options for a broker, from the settings."""
        session_ms = settings.session_timeout_us // 1000
        return cls(
            batch_rows=settings.batch_rows,
            batch_bytes=settings.batch_bytes,
            partition_fetch_bytes=1 << 20,
            fetch_wait_ms=20 if broker.embedded else 500,
            # Producers on the embedded broker wait for these, so that its small log never overflows.
            commit_interval_s=0.2 if broker.embedded else 2.0,
            session_timeout_ms=session_ms,
            rebalance_timeout_ms=max(60_000, session_ms),
            request_timeout_ms=max(settings.call_timeout_us // 1000, session_ms + 5_000),
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
        )
