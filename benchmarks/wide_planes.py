"""Planes with any number of features, and as much of their past as is wanted: what the benchmark of growth works on.

History is written by SQLite itself, a partition of the log at a time and in each in order of arrival, so that the
pages of the file are as full as ingest leaves them. Online rows are the newest of it, written through the store.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Producer

from benchmarks.plane_history import ROWS_PER_ENTITY
from benchmarks.read_rows import feature_name, feature_type, tail
from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.framing import frame
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import OnlineRow, encode_key, encode_value
from oomstream.schemas.plan import make_plan
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.base import SourceName
from oomstream.stores.opening import history_store, init_stores, online_store
from oomstream.stores.settings import Settings
from oomstream.stores.urls import StoreUrl
from oomstream.streams.broker import Broker
from oomstream.streams.topics import ensure_topics, topics_of

GROUP = "plane"

_T0 = 1_700_000_000_000_000  # that of `plane_history`, whose labels are used here
_STEP_US = 60_000_000
_END_US = _T0 + ROWS_PER_ENTITY * _STEP_US
_PAST_PARTITIONS = 8
_VALUES = 1_000_000
"""Values come again after so many rows, so that a row of a long history takes no more bytes than one of a short one."""
_CACHE_KIB = 2 << 20
_ONLINE_AT_ONCE = 2_000
_ONLINE_PASSES = 16


class Past(NamedTuple):
    """One partition of the log that filled history, as a source has it.

    Attributes:
        source_id: Its id.
        start: The first of its entities.
        end: The first entity of the next.
    """

    source_id: int
    start: int
    end: int

    def sequence(self, entity: int, step: int) -> int:
        """Offset of an entity's row: all entities in turn, then all again."""
        return step * (self.end - self.start) + entity - self.start


def names(features: int) -> list[str]:
    """Every feature of the group, as reads and training sets ask for it."""
    return [f"{GROUP}.{feature_name(at)}" for at in range(features)]


def make(settings: Settings, features: int, partitions: int) -> RegisteredGroup:
    """Make both stores, and the group in them."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return asyncio.run(_make(settings, features, partitions))


async def _make(settings: Settings, features: int, partitions: int) -> RegisteredGroup:
    fields = [{"name": feature_name(at), "type": ["null", feature_type(at)]} for at in range(features)]
    time = {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}
    definition = {
        "type": "record",
        "name": GROUP,
        "entity": "plane",
        "keys": ["tail"],
        "event_time": "at",
        "partitions": partitions,
        "fields": [{"name": "tail", "type": "string"}, time, *fields],
    }
    async with history_store(settings.history, settings) as history, online_store(settings.online, settings) as online:
        await init_stores(history, online)
        plan = make_plan(await history.load_catalog(), [group_from_avsc(definition)])
        return (await history.apply(plan)).groups[GROUP]


def fill(settings: Settings, registered: RegisteredGroup, rows: int) -> None:
    """Write so many rows of history, `ROWS_PER_ENTITY` an entity, and the newest of each entity online.

    Args:
        settings: Where the stores are, both of them files of SQLite; they were made and hold no rows.
        registered: The group.
        rows: How many; a multiple of `ROWS_PER_ENTITY`.
    """
    pasts = asyncio.run(_claim(settings, rows // ROWS_PER_ENTITY))
    _fill_history(Path(StoreUrl.parse(settings.history).path), registered.group, pasts)
    asyncio.run(_fill_online(settings, registered, pasts))


async def _claim(settings: Settings, entities: int) -> list[Past]:
    bounds = [entities * at // _PAST_PARTITIONS for at in range(_PAST_PARTITIONS + 1)]
    pasts = []
    async with history_store(settings.history, settings) as history:
        for at, (start, end) in enumerate(itertools.pairwise(bounds)):
            source = await history.claim(SourceName(SourceKind.TOPIC, GROUP, "past", at))
            pasts.append(Past(source.id, start, end))
    return pasts


def _fill_history(path: Path, group: FeatureGroup, pasts: list[Past]) -> None:
    columns = ["tail", "_event_time", "_source", "_sequence", "_ingest_time", "_deleted"]
    columns += [each.name for each in group.features]
    expressions = ", ".join(_expression(at) for at in range(len(group.features)))
    insert = (
        f"INSERT INTO history_{GROUP} ({', '.join(columns)}) "
        f"SELECT tail, :time, :source, :sequence + e - :start, {_END_US}, 0, {expressions} "
        f"FROM (SELECT e, tail, (e * {ROWS_PER_ENTITY} + :step) % {_VALUES} AS n FROM temp.entity "
        "WHERE e >= :start AND e < :end)"
    )
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        # Nobody else is there yet, and a fill that breaks off is thrown away.
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        connection.execute("CREATE TEMP TABLE entity (e INTEGER PRIMARY KEY, tail TEXT)")
        entities = ((each, tail(each)) for each in range(pasts[-1].end))
        connection.executemany("INSERT INTO temp.entity VALUES (?, ?)", entities)
        connection.execute("BEGIN IMMEDIATE")
        for past in pasts:
            told = {"source": past.source_id, "start": past.start, "end": past.end}
            for step in range(ROWS_PER_ENTITY):
                at = {"time": _T0 + step * _STEP_US, "step": step, "sequence": past.sequence(past.start, step)}
                connection.execute(insert, {**told, **at})
            end = past.sequence(past.start, ROWS_PER_ENTITY)
            connection.execute(
                "UPDATE source SET previous_sequence = ?, next_sequence = ?, online_sequence = ?, last_ingest_time = ? "
                "WHERE id = ?",
                (end, end, end, _END_US, past.source_id),
            )
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


def _expression(at: int) -> str:
    """What `_value` is, in SQL, of a row's number n."""
    number = f"(n * 31 + {at})"
    match feature_type(at):
        case "double":
            number = f"{number} / 8.0"
        case "string":
            number = f"'value ' || {number}"
    return f"CASE WHEN (n + {at}) % 7 THEN {number} END"


def _value(number: int, at: int) -> int | float | str | None:
    if (number + at) % 7 == 0:
        return None
    value = number * 31 + at
    match feature_type(at):
        case "double":
            return value / 8
        case "string":
            return f"value {value}"
    return value


def values(number: int, features: int) -> list[int | float | str | None]:
    """Every feature of a row, by the row's number: its entity's, times `ROWS_PER_ENTITY`, and its place in time."""
    return [_value(number % _VALUES, at) for at in range(features)]


async def _fill_online(settings: Settings, registered: RegisteredGroup, pasts: list[Past]) -> None:
    """In several passes over the keys, which leave pages as full as rows that come in any order do."""
    rows = _online_rows(registered, pasts)
    async with online_store(settings.online, settings) as online:
        while batch := list(itertools.islice(rows, _ONLINE_AT_ONCE)):
            await online.upsert_newer(batch)


def _online_rows(registered: RegisteredGroup, pasts: list[Past]) -> Iterator[OnlineRow]:
    group, codec = registered.group, BodyCodec(registered)
    step = ROWS_PER_ENTITY - 1
    time_us = _T0 + step * _STEP_US
    for first in range(_ONLINE_PASSES):
        for past in pasts:
            for entity in range(past.start + first, past.end, _ONLINE_PASSES):
                key = (tail(entity),)
                body = codec.encode(key, time_us, values(entity * ROWS_PER_ENTITY + step, len(group.features)))
                version = Version(time_us, SourceKind.TOPIC, past.source_id, past.sequence(entity, step)).pack()
                value = encode_value(version, _END_US, group.fingerprint, deleted=False, body=body)
                yield OnlineRow(encode_key(group.id, encode_entity(key)), value)


def new_events(registered: RegisteredGroup, entities: int, events: int, seed: int) -> list[tuple[str, bytes]]:
    """Events later than all history, and later the greater the seed: message key and value of each.

    Args:
        registered: The group.
        entities: Of any of so many.
        events: How many.
        seed: Decides of which.
    """
    group, codec, chance = registered.group, BodyCodec(registered), random.Random(seed)
    made = []
    for at in range(events):
        key, time_us = tail(chance.randrange(entities)), _END_US + (seed * events + at) * 1_000
        body = codec.encode((key,), time_us, values(at, len(group.features)))
        made.append((key, frame(group.fingerprint, body)))
    return made


def produce(broker: Broker, group: FeatureGroup, events: list[tuple[str, bytes]], *, times: int = 1) -> None:
    """Make the topic, and spread events over its partitions evenly.

    Args:
        broker: Where.
        group: The group; its topic has its number of partitions.
        events: What to produce.
        times: How often, each time with the events a partition further on.
    """
    ensure_topics(broker, topics_of([group]), timeout_s=30)
    producer = Producer({**broker.client_config(30.0), "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    for time in range(times):
        for at, (key, value) in enumerate(events):
            producer.produce(group.topic, value, key, partition=(at + time) % group.partitions)
            if at % 10_000 == 0:
                producer.poll(0)
        producer.flush()
