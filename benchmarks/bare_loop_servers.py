"""The yardstick on servers: one thread, confluent-kafka, fastavro, pymysql, tikv-client, with none of our promises.

It reads the same log, decodes with fastavro alone, and writes the same rows into the same tables, batch by batch: one
transaction of multi-row INSERTs (pymysql makes them of `executemany`), then one optimistic transaction of TiKV that
gets the batch's keys, compares versions and puts what is newer, all puts at once; then the offsets go to Kafka. No
fence, no dead letters, no deadlines, no retries: it dies with the first error.

Usage: python -m benchmarks.bare_loop_servers EVENTS TOPIC
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any

import pymysql
from confluent_kafka import Consumer, TopicPartition
from tikv_client.asynchronous import TransactionClient

from benchmarks.bare_events import BareEvents, ingest_all
from benchmarks.flight_events import GROUP, ready_stores
from benchmarks.stopwatch import Spent
from oomstream.schemas.online_value import VERSION_END, VERSION_START
from oomstream.stores.settings import Settings, load_settings
from oomstream.stores.sql.mysql_connection import ServerAddress
from oomstream.stores.tikv.address import TikvAddress
from oomstream.stores.urls import StoreUrl


def run(settings: Settings, events: int, topic: str) -> Spent:
    """Ingest that many events into fresh stores."""
    bare = BareEvents(ready_stores(settings, topic))
    insert = _insert_text(bare.columns)
    history = _connect(settings)
    tikv = TikvAddress.parse(settings.online)
    with asyncio.Runner() as runner:
        online = runner.run(TransactionClient.connect(list(tikv.pd)))

        def ingest(consumer: Consumer, messages: Sequence[Any]) -> None:
            batch = bare.read(messages)
            with history.cursor() as cursor:
                cursor.executemany(insert, batch.rows)
            history.commit()
            runner.run(_put_newer(online, {tikv.row_prefix + key: each for key, each in batch.newest.items()}))
            consumer.commit(offsets=[TopicPartition(topic, *each) for each in batch.positions.items()])

        return ingest_all(settings, topic, events, ingest)


async def _put_newer(client: Any, rows: dict[bytes, tuple[bytes, bytes]]) -> None:
    transaction = await client.begin(False)
    stored = dict(await transaction.batch_get(list(rows)))
    newer = [
        transaction.put(key, value)
        for key, (version, value) in rows.items()
        if key not in stored or stored[key][VERSION_START:VERSION_END] < version
    ]
    await asyncio.gather(*newer)
    await transaction.commit()


def _insert_text(names: Sequence[str]) -> str:
    columns, places = ", ".join(f"`{name}`" for name in names), ", ".join(["%s"] * len(names))
    kept = f"`{names[0]}` = `{names[0]}`"
    return f"INSERT INTO `history_{GROUP}` ({columns}) VALUES ({places}) ON DUPLICATE KEY UPDATE {kept}"


def _connect(settings: Settings) -> Any:
    at = ServerAddress.of(StoreUrl.parse(settings.history))
    return pymysql.connect(
        host=at.host, port=at.port, user=at.user, password=at.password, database=at.database, charset="utf8mb4"
    )


if __name__ == "__main__":
    print(run(load_settings(), int(sys.argv[1]), sys.argv[2]).told())
    time.sleep(0.5)  # tikv-client's threads touch Python after the last call; at exit that can crash the process
