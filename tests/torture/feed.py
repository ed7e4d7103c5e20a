"""The producers: a thread that writes the stream to the broker, as far as the plan has come, and logs every answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from oomstream.streams.broker import Broker
from tests.torture.errors import TortureFailed
from tests.torture.groups import TortureGroup
from tests.torture.produced import ProducedLog
from tests.torture.stream import Made, records

AHEAD = 4_000
"""How many records at most are produced and not ingested: the embedded broker would drop what it cannot hold."""

_DELIVERY_S = 300
_TURN = 200
_LARGEST_BYTES = 4 << 20
_UNKNOWN = {KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC}


class TortureFeed:
    """Writes records in turn; for one run.

    Args:
        broker: Where.
        groups: What the records are of.
        seed: Chooses the records.
        log: Where every acknowledged record is noted.
        ingested: How many records are ingested by now; called from the feed's thread.
    """

    def __init__(
        self,
        broker: Broker,
        groups: Mapping[str, TortureGroup],
        seed: int,
        log: Path,
        ingested: Callable[[], int],
    ) -> None:
        self._groups = groups
        self._records = records(groups, seed)
        self._ingested = ingested
        self._log = ProducedLog(log)
        self._partitions = {name: int(group.avsc["partitions"]) for name, group in groups.items()}
        self._wanted = 0
        self._made = 0
        self._acknowledged = 0
        self._ending = False
        self._failure: BaseException | None = None
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._producer = Producer(
            {
                **broker.client_config(_DELIVERY_S),
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 2,
                "compression.type": "lz4",  # so that events of more than 1 MiB pass the broker's limit
                "message.max.bytes": _LARGEST_BYTES,
                "message.timeout.ms": _DELIVERY_S * 1000,
                "topic.metadata.refresh.interval.ms": 1_000,
            }
        )

    @property
    def wanted(self) -> int:
        """How many records are asked for so far."""
        return self._wanted

    @property
    def acknowledged(self) -> int:
        """How many records the broker has acknowledged."""
        return self._acknowledged

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._more:
            self._ending = True
            self._more.notify_all()
        self._thread.join(_DELIVERY_S)
        self._log.close()

    def ask(self, count: int) -> None:
        """Ask for so many more records."""
        self.check()
        with self._more:
            self._wanted += count
            self._more.notify_all()

    def check(self) -> None:
        """Raise what ended the thread, if something did.

        Raises:
            TortureFailed: The broker did not take a record.
        """
        if self._failure is not None:
            raise TortureFailed(f"the producers failed: {self._failure!r}") from self._failure

    def grow(self, group: str, partitions: int) -> None:
        """Use so many partitions of a group's topic from now on."""
        self._partitions[group] = partitions

    def _run(self) -> None:
        try:
            while not self._ending:
                with self._more:
                    self._more.wait_for(lambda: self._ending or self._made < self._wanted, timeout=0.05)
                behind = min(self._wanted - self._made, AHEAD - (self._made - self._ingested()), _TURN)
                for _ in range(behind):
                    self._produce(next(self._records))
                self._producer.poll(0.0 if behind > 0 else 0.01)
                if behind <= 0:
                    self._log.flush()
            if self._producer.flush(_DELIVERY_S):
                raise TimeoutError("records not acknowledged at the end")
        except BaseException as exc:
            self._failure = exc

    def _produce(self, made: Made) -> None:
        topic = self._groups[made.group].topic
        partition = made.pick % self._partitions[made.group]

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._failure = KafkaException(error)
                self._ending = True
                return
            self._log.add(topic, partition, cast(int, message.offset()), made)
            self._acknowledged += 1

        deadline = time.monotonic() + _DELIVERY_S
        while True:
            try:
                self._producer.produce(
                    topic,
                    made.value,
                    made.key,
                    partition,
                    timestamp=made.timestamp_ms,
                    headers=cast(Any, list(made.headers)),
                    on_delivery=delivered,
                )
                break
            except BufferError:
                self._producer.poll(0.01)
            except KafkaException as exc:
                if exc.args[0].code() not in _UNKNOWN or time.monotonic() > deadline:
                    raise
                self._producer.poll(0.05)  # a partition that was just added
        self._made += 1
