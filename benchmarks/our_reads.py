"""The query module on the stores that the settings name: fills them, or reads as it is told.

Usage: python -m benchmarks.our_reads fill ENTITIES, or … threads, … tasks, … clear
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.read_rounds import (
    AsyncRead,
    Columns,
    Latencies,
    Order,
    Read,
    serve_rounds,
    tasks_round,
    threads_round,
)
from benchmarks.read_rows import GROUPS, KEY, TTL_S, Shape, event_time_s, feature_name, feature_type, tail, values_of
from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.query.sync import FeatureStore
from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import OnlineRow, encode_key, encode_value
from oomstream.schemas.plan import make_plan
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.opening import history_store, init_stores, online_store
from oomstream.stores.settings import Settings, load_settings

_ROWS_AT_ONCE = 1_000


def schema_of(group: str) -> dict[str, Any]:
    """A group's Avro schema."""
    fields = [
        {"name": feature_name(at), "type": ["null", feature_type(at)], "default": None} for at in range(GROUPS[group])
    ]
    time = {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}
    return {
        "type": "record",
        "name": group,
        "entity": "plane",
        "keys": [KEY],
        "event_time": "at",
        "ttl": f"{TTL_S}s",
        "fields": [{"name": KEY, "type": "string"}, time, *fields],
    }


async def fill(settings: Settings, entities: int) -> dict[str, int]:
    """Make both stores, register the groups, and write one online row of each for every entity; gives groups' ids."""
    time_us = event_time_s() * 1_000_000
    async with history_store(settings.history, settings) as history, online_store(settings.online, settings) as online:
        await init_stores(history, online)
        groups = [group_from_avsc(schema_of(name)) for name in GROUPS]
        catalog = await history.apply(make_plan(await history.load_catalog(), groups))
        for name in GROUPS:
            registered = catalog.groups[name]
            group, codec = registered.group, BodyCodec(registered)

            def row(entity: int, group: Any = group, codec: BodyCodec = codec) -> OnlineRow:
                key = (tail(entity),)
                values = values_of(group.name, entity)
                body = codec.encode(key, time_us, [values[each.name] for each in group.features])
                version = Version(time_us, SourceKind.PUSH, 1, entity).pack()
                stored = encode_value(version, time_us, group.fingerprint, False, body)
                return OnlineRow(encode_key(group.id, encode_entity(key)), stored)

            for start in range(0, entities, _ROWS_AT_ONCE):
                await online.upsert_newer([row(at) for at in range(start, min(start + _ROWS_AT_ONCE, entities))])
        return {name: catalog.groups[name].group.id for name in GROUPS}


async def clear(settings: Settings) -> None:
    """Remove all online rows."""
    async with online_store(settings.online, settings) as online:
        while rows := await online.scan(b"", limit=_ROWS_AT_ONCE):
            await online.delete([row.key for row in rows])


def _features(shape: Shape) -> list[str]:
    return [f"{group}.{name}" for group, name in shape.names]


def serve_threads(settings: Settings) -> None:
    """Serve rounds with the synchronous feature store."""
    with FeatureStore.open(settings=settings) as store:

        def read_of(shape: Shape) -> Read:
            features = _features(shape)

            def read(rows: Sequence[Mapping[str, str]]) -> Columns:
                return store.get_online_features(features, rows).to_dict()

            return read

        serve_rounds(lambda order: threads_round(order, read_of))


def serve_tasks(settings: Settings) -> None:
    """Serve rounds with the asynchronous feature store."""
    with asyncio.Runner() as runner:
        store = runner.run(_opened(settings))

        def read_of(shape: Shape) -> AsyncRead:
            features = _features(shape)

            async def read(rows: Sequence[Mapping[str, str]]) -> Columns:
                return (await store.get_online_features(features, rows)).to_dict()

            return read

        def work(order: Order) -> Latencies:
            return runner.run(tasks_round(order, read_of))

        serve_rounds(work)
        runner.run(store.close())


async def _opened(settings: Settings) -> AsyncFeatureStore:
    return await AsyncFeatureStore.open(settings=settings)


if __name__ == "__main__":
    match sys.argv[1]:
        case "fill":
            print(json.dumps(asyncio.run(fill(load_settings(), int(sys.argv[2])))))
        case "clear":
            asyncio.run(clear(load_settings()))
        case "threads":
            serve_threads(load_settings())
        case "tasks":
            serve_tasks(load_settings())
