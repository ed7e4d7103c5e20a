"""Real stores that fail when told, with one registered group, and records for its pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.errors import StoreUnavailable
from oomstream.schemas.events import RawRecord
from oomstream.schemas.framing import EVENT_TIME_HEADER
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import OnlineRow, decode_value, encode_key
from oomstream.schemas.plan import make_plan
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import HistoryBatch, HistoryRow, OnlineChange, OnlineStore, Source, SourceName
from oomstream.stores.catalog_cache import CatalogCache
from oomstream.stores.opening import init_stores, online_store
from oomstream.stores.settings import Settings, load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.streams.dead_letters import DeadLetter, DeadLetterSink
from oomstream.streams.ingest import SourceIngest

T0 = 1_700_000_000_000_000
GROUP = group_from_avsc(
    {
        "type": "record",
        "name": "reading",
        "entity": "sensor",
        "keys": ["sensor_id"],
        "event_time": "at",
        "fields": [
            {"name": "sensor_id", "type": "string"},
            {"name": "at", "type": "long", "unit": "us"},
            {"name": "value", "type": ["null", "double"]},
        ],
    }
)
NAME = SourceName(SourceKind.TOPIC, "reading", "incarnation-1", 0)


@dataclass
class KeptLetters(DeadLetterSink):
    """Dead letters in a list; fails the given number of times first."""

    letters: list[DeadLetter] = field(default_factory=list)
    failures: int = 0

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("dead-letter topic is down")
        self.letters.extend(letters)


class UnreliableHistory(SqlHistoryStore):
    """The real store, whose append fails when told, before or after the commit."""

    faults: list[str]

    async def append(self, source: Source, batch: HistoryBatch) -> int:
        fault = self.faults.pop() if self.faults else "none"
        if fault == "before":
            raise StoreUnavailable("connection lost before COMMIT")
        ingest_time_us = await super().append(source, batch)
        if fault == "after":
            raise StoreUnavailable("connection lost during COMMIT")
        return ingest_time_us


class UnreliableOnline(OnlineStore):
    """A real store behind a wall, which fails when told, having written a part."""

    def __init__(self, store: OnlineStore) -> None:
        self.url = store.url
        self.faults: list[int] = []
        self._store = store

    async def upsert_newer(self, rows: Sequence[OnlineRow], *, or_equal: bool = False) -> int:
        if self.faults:
            await self._store.upsert_newer(rows[: self.faults.pop()])
            raise StoreUnavailable("connection lost in the middle of an online batch")
        return await self._store.upsert_newer(rows, or_equal=or_equal)

    async def open(self) -> None:
        await self._store.open()

    async def close(self) -> None:
        await self._store.close()

    async def init(self) -> None:
        await self._store.init()

    async def pairing_id(self) -> str | None:
        return await self._store.pairing_id()

    async def pair(self, pairing_id: str) -> None:
        await self._store.pair(pairing_id)

    async def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return await self._store.read(keys)

    async def scan(self, prefix: bytes, *, after: bytes | None = None, limit: int = 1000) -> list[OnlineRow]:
        return await self._store.scan(prefix, after=after, limit=limit)

    async def replace(self, changes: Sequence[OnlineChange]) -> int:
        return await self._store.replace(changes)

    async def delete(self, keys: Sequence[bytes]) -> None:
        await self._store.delete(keys)


async def no_wait(seconds: float) -> None:
    """A sleep that lets others run, and no more."""
    await asyncio.sleep(0)


class House:
    """Real stores, in a folder unless settings say where, with one registered group."""

    def __init__(self, folder: Path, **overrides: Any) -> None:
        self.settings: Settings = load_settings(data_dir=folder, **overrides)
        self.history = UnreliableHistory(self.settings.history, self.settings)
        self.history.faults = []
        self.history.one_writer = False  # pipelines go ahead as they do on servers
        self.online = UnreliableOnline(online_store(self.settings.online, self.settings))
        self.sink = KeptLetters()

    async def __aenter__(self) -> House:
        await self.history.open()
        await self.online.open()
        await init_stores(self.history, self.online)
        await self.history.apply(make_plan(await self.history.load_catalog(), [GROUP]))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.online.close()
        await self.history.close()

    def pipeline(self, name: SourceName = NAME) -> SourceIngest:
        return SourceIngest(
            history=self.history,
            online=self.online,
            catalog=CatalogCache(self.history, sleep=no_wait),
            dead_letters=self.sink,
            name=name,
            settings=self.settings,
        )

    async def rows(self) -> list[HistoryRow]:
        group = (await self.history.load_catalog()).group("reading")
        rows: list[HistoryRow] = []
        for source in await self.history.sources():
            rows += await self.history.rows_of_source(group, source.id, 0, 1 << 40)
        return rows

    async def online_versions(self) -> dict[str, tuple[int, int, bool]]:
        group = (await self.history.load_catalog()).group("reading")
        found = {}
        for key in "abc":
            (value,) = await self.online.read([encode_key(group.id, encode_entity((key,)))])
            if value is not None:
                decoded = decode_value(value)
                found[key] = (decoded.version.event_time_us, decoded.version.sequence, decoded.deleted)
        return found


def valid(offset: int, key: str, at: int, value: float | None = 1.0) -> RawRecord:
    """A valid JSON event."""
    body = orjson.dumps({"sensor_id": key, "at": T0 + at, "value": value})
    return RawRecord(offset, key.encode(), body, T0 // 1000 + 10)


def tombstone(offset: int, key: str, at: int) -> RawRecord:
    """A delete."""
    return RawRecord(offset, key.encode(), None, T0 // 1000 + 10, ((EVENT_TIME_HEADER, str(T0 + at).encode()),))


def garbage(offset: int) -> RawRecord:
    """Something that is no event."""
    return RawRecord(offset, b"k", b"\x07garbage", T0 // 1000, (("h", b"1"),))
