"""What both bare loops do with messages: fastavro alone, rows of history, and the newest value of each entity.

No strict checks, no other schema than today's, no dead letters: what is left is what the job costs at least.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from fastavro import parse_schema, schemaless_reader

from benchmarks.flight_events import GROUP, PARTITIONS
from benchmarks.stopwatch import Spent, Stopwatch
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import encode_key, encode_value
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.settings import Settings
from oomstream.streams.broker import need_broker


class BareBatch(NamedTuple):
    """What one batch of messages becomes.

    Attributes:
        rows: Rows of history, in the order of `columns`.
        newest: (version, value) of each entity of the batch by its key in the online store.
        positions: Offset of the next message by partition.
    """

    rows: list[tuple[Any, ...]]
    newest: dict[bytes, tuple[bytes, bytes]]
    positions: dict[int, int]


class BareEvents:
    """Reads messages of one group."""

    def __init__(self, group: FeatureGroup) -> None:
        self._group = group
        self._names = [feature.name for feature in group.features]
        self._key, self._time = group.keys[0].name, group.event_time_field.name
        # The event time as a plain long: fastavro then makes no datetime of it, which nobody here wants.
        fields = [{**each, "type": "long"} if each["name"] == self._time else each for each in group.schema["fields"]]
        self._schema = parse_schema({"type": "record", "name": GROUP, "fields": fields})
        self.columns = [self._key, "_event_time", "_source", "_sequence", "_ingest_time", "_deleted", *self._names]

    def read(self, messages: Sequence[Any]) -> BareBatch:
        """Decode messages in the order of the log."""
        rows, positions = [], {}
        newest: dict[bytes, tuple[bytes, bytes]] = {}
        ingest_time_us = time.time_ns() // 1000
        for message in messages:
            raw: Any = message.value()
            sequence: Any = message.offset()
            partition: Any = message.partition()
            source_id = partition + 1
            event: Any = schemaless_reader(io.BytesIO(raw[10:]), self._schema, None)
            time_us, tail = event[self._time], event[self._key]
            values = [event[name] for name in self._names]
            rows.append((tail, time_us, source_id, sequence, ingest_time_us, False, *values))
            positions[partition] = sequence + 1
            version = Version(time_us, SourceKind.TOPIC, source_id, sequence).pack()
            key = encode_key(self._group.id, encode_entity((tail,)))
            if key not in newest or newest[key][0] < version:
                newest[key] = (version, encode_value(version, ingest_time_us, raw[2:10], False, raw[10:]))
        return BareBatch(rows, newest, positions)


def ingest_all(
    settings: Settings,
    topic: str,
    events: int,
    ingest: Callable[[Consumer, Sequence[Any]], None],
    **options: int,
) -> Spent:
    """Hand that many messages of a topic to `ingest`, a batch at a time; timed from fetch to commit.

    Args:
        settings: Where the broker is, and how large a batch.
        topic: The topic.
        events: How many.
        ingest: Takes the consumer and a batch.
        **options: More settings of the consumer, with underscores for dots.
    """
    consumer = Consumer(
        {
            **need_broker(settings).client_config(30.0),
            "group.id": f"bare-loop-{topic}",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            **{name.replace("_", "."): value for name, value in options.items()},
        }
    )
    consumer.assign([TopicPartition(topic, each, OFFSET_BEGINNING) for each in range(PARTITIONS)])
    done = 0
    watch = Stopwatch()
    while done < events:
        messages = [each for each in consumer.consume(settings.batch_rows, timeout=1.0) if each.error() is None]
        if messages:
            ingest(consumer, messages)
            done += len(messages)
    spent = watch.spent()
    consumer.close()
    return spent
