"""The events that benchmarks ingest: landings of the demo, in a log on the embedded broker."""

from __future__ import annotations

import asyncio
import io
from itertools import islice
from pathlib import Path

from confluent_kafka import Producer
from fastavro import parse_schema, schemaless_writer

from oomstream.agents.demo import flights
from oomstream.schemas.avsc import load_avsc
from oomstream.schemas.framing import frame
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.plan import make_plan
from oomstream.stores.opening import history_store, init_stores, online_store
from oomstream.stores.settings import Settings
from oomstream.streams.broker import Broker

GROUP = "plane"
PARTITIONS = 4
"""Partitions of the demo's group."""


def ready_stores(settings: Settings) -> FeatureGroup:
    """Make both stores and register the group in them; gives it as registered."""
    return asyncio.run(_ready_stores(settings))


async def _ready_stores(settings: Settings) -> FeatureGroup:
    file = Path(flights.__file__).with_name("plane.avsc")
    async with history_store(settings.history, settings) as history, online_store(settings.online, settings) as online:
        await init_stores(history, online)
        plan = make_plan(await history.load_catalog(), [load_avsc(file.read_bytes(), str(file))])
        return (await history.apply(plan)).group(GROUP)


def produce(broker: Broker, group: FeatureGroup, events: int) -> int:
    """Fill the topic with that many landings, or as many as there are; gives how many."""
    schema = parse_schema({"type": "record", "name": GROUP, "fields": group.schema["fields"]})
    producer = Producer({**broker.client_config(30.0), "linger.ms": 20, "partitioner": "murmur2_random"})
    rows = flights.in_arrival_order(flights.plane_events(flights.read_flights()), flights.NO_WEATHER)
    made = 0
    for _, values in islice(rows, events):
        body = io.BytesIO()
        schemaless_writer(body, schema, values)
        producer.produce(GROUP, frame(group.fingerprint, body.getvalue()), values["tailnum"])
        made += 1
        if made % 1_000 == 0:
            producer.poll(0)
        if made % 50_000 == 0:
            producer.flush()
    producer.flush()
    return made
