"""The events that benchmarks ingest: landings of the demo, in a log."""

from __future__ import annotations

import asyncio
import io
import json
from itertools import islice
from pathlib import Path

import pymysql
from confluent_kafka import Producer
from fastavro import parse_schema, schemaless_writer

from oomstream.agents.demo import flights
from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.framing import frame
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.plan import make_plan
from oomstream.stores.opening import history_store, init_stores, online_store
from oomstream.stores.settings import Settings
from oomstream.stores.sql.mysql_connection import ServerAddress
from oomstream.stores.sql.text import quote_name
from oomstream.stores.urls import StoreUrl
from oomstream.streams.broker import Broker

GROUP = "plane"
PARTITIONS = 4
"""Partitions of the demo's group."""

_ROWS_AT_ONCE = 1_000


def ready_stores(settings: Settings, topic: str = GROUP) -> FeatureGroup:
    """Make both stores and register the group, which has that topic, in them; gives it as registered."""
    return asyncio.run(_ready_stores(settings, topic))


async def _ready_stores(settings: Settings, topic: str) -> FeatureGroup:
    file = Path(flights.__file__).with_name("plane.avsc")
    async with history_store(settings.history, settings) as history, online_store(settings.online, settings) as online:
        await init_stores(history, online)
        definition = group_from_avsc({**json.loads(file.read_bytes()), "topic": topic})
        plan = make_plan(await history.load_catalog(), [definition])
        return (await history.apply(plan)).group(GROUP)


def forget_stores(settings: Settings) -> None:
    """Remove a database of TiDB and a namespace of TiKV."""
    at = ServerAddress.of(StoreUrl.parse(settings.history))
    login = {"host": at.host, "port": at.port, "user": at.user, "password": at.password}
    with pymysql.connect(**login) as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {quote_name(at.database, '`')}")
    asyncio.run(_clear_online(settings))


async def _clear_online(settings: Settings) -> None:
    async with online_store(settings.online, settings) as online:
        while rows := await online.scan(b"", limit=_ROWS_AT_ONCE):
            await online.delete([row.key for row in rows])


def produce(broker: Broker, group: FeatureGroup, events: int) -> int:
    """Fill the topic with that many landings, or as many as there are; gives how many."""
    schema = parse_schema({"type": "record", "name": GROUP, "fields": group.schema["fields"]})
    producer = Producer({**broker.client_config(30.0), "linger.ms": 20, "partitioner": "murmur2_random"})
    rows = flights.in_arrival_order(flights.plane_events(flights.read_flights()), flights.NO_WEATHER)
    made = 0
    for _, values in islice(rows, events):
        body = io.BytesIO()
        schemaless_writer(body, schema, values)
        producer.produce(group.topic, frame(group.fingerprint, body.getvalue()), values["tailnum"])
        made += 1
        if made % 1_000 == 0:
            producer.poll(0)
        if made % 50_000 == 0:
            producer.flush()
    producer.flush()
    return made
