"""The yardstick: one thread, confluent-kafka, fastavro, and the same SQLite writes, with none of our promises.

It reads the same log, decodes with fastavro alone (no strict checks), and writes the same rows into the same tables
with sqlite3: history in one transaction with the position, then online rows where they are newer. No fence, no
dead letters, no catalog, no rebalance: what is left is what the job costs at least.
"""

from __future__ import annotations

import io
import sqlite3
import sys
import time
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from fastavro import parse_schema, schemaless_reader

from benchmarks.flight_events import GROUP, PARTITIONS, ready_stores
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import encode_key, encode_value
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.settings import Settings, load_settings
from oomstream.streams.broker import need_broker

_UPSERT = (
    "INSERT INTO online (key, version, value) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
    "SET value = excluded.value, version = excluded.version WHERE excluded.version > online.version"
)


def run(settings: Settings, events: int) -> float:
    """Ingest that many events into fresh stores; gives seconds from the first fetch to the last commit."""
    group = ready_stores(settings)
    insert = _insert_text(group)
    # The event time as a plain long: fastavro then makes no datetime of it, which nobody here wants.
    time_name = group.event_time_field.name
    fields = [{**each, "type": "long"} if each["name"] == time_name else each for each in group.schema["fields"]]
    schema = parse_schema({"type": "record", "name": GROUP, "fields": fields})
    history, online = (_connect(settings, name) for name in ("history", "online"))
    history.execute("CREATE TABLE bare_position (partition INTEGER PRIMARY KEY, next INTEGER)")
    consumer = Consumer(
        {
            **need_broker(settings).client_config(30.0),
            "group.id": "bare-loop",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "fetch.wait.max.ms": 10,
        }
    )
    consumer.assign([TopicPartition(GROUP, each, OFFSET_BEGINNING) for each in range(PARTITIONS)])
    done = 0
    began = time.perf_counter()
    while done < events:
        messages = [each for each in consumer.consume(settings.batch_rows, timeout=1.0) if each.error() is None]
        if messages:
            _ingest(messages, group, schema, insert, history, online)
            done += len(messages)
    seconds = time.perf_counter() - began
    consumer.close()
    return seconds


def _ingest(
    messages: list[Any],
    group: FeatureGroup,
    schema: Any,
    insert: str,
    history: sqlite3.Connection,
    online: sqlite3.Connection,
) -> None:
    rows, positions = [], {}
    newest: dict[bytes, tuple[bytes, bytes]] = {}
    ingest_time_us = time.time_ns() // 1000
    names = [feature.name for feature in group.features]
    key_name, time_name = group.keys[0].name, group.event_time_field.name
    for message in messages:
        raw, sequence, source_id = message.value(), message.offset(), message.partition() + 1
        event: Any = schemaless_reader(io.BytesIO(raw[10:]), schema, None)
        time_us = event[time_name]
        values = [event[name] for name in names]
        rows.append((event[key_name], time_us, source_id, sequence, ingest_time_us, False, *values))
        positions[message.partition()] = sequence + 1
        version = Version(time_us, SourceKind.TOPIC, source_id, sequence).pack()
        key = encode_key(group.id, encode_entity((event[key_name],)))
        if key not in newest or newest[key][0] < version:
            newest[key] = (version, encode_value(version, ingest_time_us, raw[2:10], False, raw[10:]))
    history.execute("BEGIN IMMEDIATE")
    history.executemany("INSERT OR REPLACE INTO bare_position VALUES (?, ?)", list(positions.items()))
    history.executemany(insert, rows)
    history.execute("COMMIT")
    online.execute("BEGIN IMMEDIATE")
    online.executemany(_UPSERT, [(key, *newest[key]) for key in sorted(newest)])
    online.execute("COMMIT")


def _insert_text(group: FeatureGroup) -> str:
    names = [*group.key_names, "_event_time", "_source", "_sequence", "_ingest_time", "_deleted"]
    names += [feature.name for feature in group.features]
    columns, places = ", ".join(f'"{name}"' for name in names), ", ".join("?" * len(names))
    return f'INSERT INTO "history_{group.name}" ({columns}) VALUES ({places}) ON CONFLICT DO NOTHING'


def _connect(settings: Settings, name: str) -> sqlite3.Connection:
    connection = sqlite3.connect(settings.data_dir / f"{name}.db", isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")  # as the stores do
    connection.execute("PRAGMA cache_size=-65536")
    return connection


if __name__ == "__main__":
    print(run(load_settings(), int(sys.argv[1])))
