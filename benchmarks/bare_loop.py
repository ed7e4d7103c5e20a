"""The yardstick: one thread, confluent-kafka, fastavro, and the same SQLite writes, with none of our promises.

It reads the same log, decodes with fastavro alone (no strict checks), and writes the same rows into the same tables
with sqlite3: history in one transaction with the position, then online rows where they are newer. No fence, no
dead letters, no catalog, no rebalance: what is left is what the job costs at least.

Usage: python -m benchmarks.bare_loop EVENTS TOPIC
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Consumer

from benchmarks.bare_events import BareEvents, ingest_all
from benchmarks.flight_events import GROUP, ready_stores
from benchmarks.stopwatch import Spent
from oomstream.stores.settings import Settings, load_settings

_UPSERT = (
    "INSERT INTO online (key, version, value) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
    "SET value = excluded.value, version = excluded.version WHERE excluded.version > online.version"
)


def run(settings: Settings, events: int, topic: str) -> Spent:
    """Ingest that many events into fresh stores."""
    bare = BareEvents(ready_stores(settings, topic))
    insert = _insert_text(bare.columns)
    history, online = (_connect(settings, name) for name in ("history", "online"))
    history.execute("CREATE TABLE bare_position (partition INTEGER PRIMARY KEY, next INTEGER)")

    def ingest(_: Consumer, messages: Sequence[Any]) -> None:
        batch = bare.read(messages)
        history.execute("BEGIN IMMEDIATE")
        history.executemany("INSERT OR REPLACE INTO bare_position VALUES (?, ?)", list(batch.positions.items()))
        history.executemany(insert, batch.rows)
        history.execute("COMMIT")
        online.execute("BEGIN IMMEDIATE")
        online.executemany(_UPSERT, [(key, *batch.newest[key]) for key in sorted(batch.newest)])
        online.execute("COMMIT")

    return ingest_all(settings, topic, events, ingest, fetch_wait_max_ms=10)


def _insert_text(names: Sequence[str]) -> str:
    columns, places = ", ".join(f'"{name}"' for name in names), ", ".join("?" * len(names))
    return f'INSERT INTO "history_{GROUP}" ({columns}) VALUES ({places}) ON CONFLICT DO NOTHING'


def _connect(settings: Settings, name: str) -> sqlite3.Connection:
    connection = sqlite3.connect(settings.data_dir / f"{name}.db", isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")  # as the stores do
    connection.execute("PRAGMA cache_size=-65536")
    return connection


if __name__ == "__main__":
    print(run(load_settings(), int(sys.argv[1]), sys.argv[2]).told())
