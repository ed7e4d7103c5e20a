"""What ingesting a batch costs, in statements, visits to SQLite's threads and calls instead of seconds.

The events are those of `benchmarks.ingest`. A bound is about a fifth above what was counted when it was written; who
passes one has made ingest slower, or has a reason to write here.
"""

from __future__ import annotations

import asyncio
import io
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from fastavro import parse_schema, schemaless_writer

from benchmarks.flight_events import GROUP, ready_stores
from oomstream.agents.demo import flights
from oomstream.schemas.catalog import Catalog
from oomstream.schemas.decode import Decoder, EventLimits
from oomstream.schemas.events import RawRecord
from oomstream.schemas.framing import frame
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import SourceName
from oomstream.stores.catalog_cache import CatalogCache
from oomstream.stores.opening import history_store, online_store
from oomstream.stores.settings import Settings, load_settings
from oomstream.streams.ingest import SourceIngest
from tests.calls import calls_of, counting
from tests.unit.streams.house import KeptLetters

BATCH = 2_000
NOW_MS = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)

DECODE_CALLS = 450
"""Calls of Python and C functions to decode a batch: one for every five events (before whole columns: 14,000)."""

INGEST_CALLS = 6_000
"""Calls in the event loop's thread for a batch from its records to its acknowledgement, asyncio included."""

INSERTS = 150
"""Statements that write a batch's rows of history and of the online store."""

VISITS = 9
"""How often a batch goes to a thread of SQLite's and back: begin, fence, rows, commit, and the connection's return."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Embedded stores in a folder of the test's."""
    return load_settings(data_dir=tmp_path)


def landings(group: FeatureGroup, count: int) -> list[RawRecord]:
    """Records of the demo's landings."""
    schema = parse_schema({"type": "record", "name": GROUP, "fields": group.schema["fields"]})
    rows = flights.in_arrival_order(flights.plane_events(flights.read_flights()), flights.NO_WEATHER)
    records = []
    for at, (_, values) in enumerate(islice(rows, count)):
        body = io.BytesIO()
        schemaless_writer(body, schema, values)
        records.append(RawRecord(at, b"key", frame(group.fingerprint, body.getvalue()), NOW_MS))
    return records


@asynccontextmanager
async def pipeline_of(settings: Settings) -> AsyncIterator[SourceIngest]:
    """A pipeline that has claimed a partition of the group's topic."""
    async with history_store(settings.history, settings) as history, online_store(settings.online, settings) as online:
        pipeline = SourceIngest(
            history=history,
            online=online,
            catalog=CatalogCache(history),
            dead_letters=KeptLetters(),
            name=SourceName(SourceKind.TOPIC, GROUP, "incarnation"),
            settings=settings,
        )
        await pipeline.start(0, 3 * BATCH, begin=0)
        yield pipeline


def test_calls_of_decoding(settings: Settings) -> None:
    """A batch of valid bodies is decoded in whole columns: fewer calls than there are events."""
    group = ready_stores(settings)

    async def catalog() -> Catalog:
        async with history_store(settings.history, settings) as history:
            return await history.load_catalog()

    decoder = Decoder(asyncio.run(catalog()).groups[GROUP], EventLimits())
    records = landings(group, BATCH)
    assert len(decoder.decode(records).events) == BATCH
    counts = [calls_of(lambda: decoder.decode(records)) for _ in range(2)]
    assert counts[0] == counts[1]
    assert counts[0] <= DECODE_CALLS, counts


def test_calls_and_statements_of_a_batch(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch takes few calls an event in the event loop's thread, few statements, and few visits to other threads."""
    statements: Counter[str] = Counter()
    visits: list[None] = []
    connect, execute = sqlite3.connect, aiosqlite.Connection._execute

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(lambda statement: statements.update([statement.split()[0]]))
        return connection

    async def visiting(self: aiosqlite.Connection, *arguments: Any, **options: Any) -> Any:
        visits.append(None)
        return await execute(self, *arguments, **options)  # type: ignore[no-untyped-call]

    async def check() -> tuple[int, int]:
        async with pipeline_of(settings) as pipeline:
            for start in (0, BATCH):
                await pipeline.ingest(records[start : start + BATCH])
            statements.clear()
            visits.clear()
            with counting() as calls:
                await pipeline.ingest(records[2 * BATCH :])
            return calls.made, len(visits)

    records = landings(ready_stores(settings), 3 * BATCH)
    monkeypatch.setattr(sqlite3, "connect", traced)
    monkeypatch.setattr(aiosqlite.Connection, "_execute", visiting)
    calls, visited = asyncio.run(check())
    inserts = statements.pop("INSERT")
    assert statements == {"BEGIN": 2, "UPDATE": 1, "SELECT": 1, "COMMIT": 2}
    assert inserts <= INSERTS
    assert visited <= VISITS
    assert calls <= INGEST_CALLS, calls
