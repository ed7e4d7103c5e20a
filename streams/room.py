"""How producers keep from overrunning the embedded broker, whose log holds about 5 MB a partition and drops the rest.

Before a producer goes on it waits until no partition's unread part is large. What is unread is known from the offsets
that workers commit (a hint, no more: a worker that finds its position dropped from the log stops and says so). Several
producers share the room: each may add a small share after it last looked, so a dozen of them still fit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from oomstream.schemas.errors import StoreUnavailable
from oomstream.streams.broker import Broker
from oomstream.streams.topics import log_ends

UNREAD_BYTES = 2 << 20
"""How much of a partition may be unread when a producer goes on."""

SHARE_BYTES = 256 << 10
"""How much one producer adds to a topic before it looks again."""

MESSAGE_OVERHEAD_BYTES = 80
"""Most that the log's format adds to a message that travels alone."""

_LOOK_S = 0.02


class Room:
    """One producer's view of the embedded broker's room.

    Args:
        broker: The embedded broker.
        consumer_group: Group of the workers.
        timeout_s: How long workers may stand still before it is an error, seconds.
        clock: Monotonic clock, seconds.
        sleep: Waits that many seconds.
    """

    def __init__(
        self,
        broker: Broker,
        consumer_group: str,
        *,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._broker = broker
        self._group = consumer_group
        self._timeout_s = timeout_s
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._fresh: dict[str, int] = {}
        self._messages: dict[str, int] = {}
        self._bytes: dict[str, int] = {}
        self._admin = AdminClient(broker.client_config(timeout_s))
        self._committed = Consumer({**broker.client_config(timeout_s), "group.id": consumer_group})

    def close(self) -> None:
        """Give the connections back."""
        self._committed.close()

    def take(self, topic: str, size: int, flush: Callable[[], None]) -> None:
        """Count a message that is about to be produced, and wait for room when this producer's share is used up.

        Args:
            topic: Where it goes.
            size: Bytes of its key, value and headers.
            flush: Sends out what is still in this process.

        Raises:
            StoreUnavailable: There is no room, and no worker makes any.
        """
        size += MESSAGE_OVERHEAD_BYTES
        with self._lock:
            self._messages[topic] = self._messages.get(topic, 0) + 1
            self._bytes[topic] = self._bytes.get(topic, 0) + size
            fresh = self._fresh.get(topic, 0) + size
            self._fresh[topic] = fresh if fresh < SHARE_BYTES else 0
        if fresh >= SHARE_BYTES:
            flush()
            self._wait(topic, self._bytes[topic] / self._messages[topic])

    def _wait(self, topic: str, mean_bytes: float) -> None:
        moved_at, last = self._clock(), -1
        while True:
            unread, read = self._unread(topic)
            if unread * mean_bytes <= UNREAD_BYTES:
                return
            now = self._clock()
            if read != last:
                moved_at, last = now, read
            elif now - moved_at > self._timeout_s:
                raise StoreUnavailable(
                    f"topic {topic!r}: the embedded broker has no room left, and no worker of group {self._group!r} "
                    f"has read any of it for {self._timeout_s:g} s (start `oomstream worker`)"
                )
            self._sleep(_LOOK_S)

    def _unread(self, topic: str) -> tuple[int, int]:
        """Messages that the partition with the most of them has unread, and how many are read in all partitions."""
        try:
            partitions = self._committed.list_topics(topic, timeout=self._timeout_s).topics[topic].partitions
            wanted = [TopicPartition(topic, number) for number in partitions]
            committed = self._committed.committed(wanted, timeout=self._timeout_s)
        except KafkaException as exc:
            raise self._broker.error(exc, client=self._admin) from exc
        ends = log_ends(self._admin, self._broker, wanted, timeout_s=self._timeout_s)
        read = [(each.partition, max(each.offset, 0)) for each in committed]
        return max((ends[topic, number] - offset for number, offset in read), default=0), sum(at for _, at in read)
