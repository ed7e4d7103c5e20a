"""Planes, their history in any number of rows, and labels for it: what the benchmarks of training sets join."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pymysql
from pyarrow import parquet

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.plan import make_plan
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import SourceName
from oomstream.stores.opening import history_store, init_stores, online_store
from oomstream.stores.settings import Settings
from oomstream.stores.urls import StoreUrl

ROWS_PER_ENTITY = 100

GROUP = group_from_avsc(
    {
        "type": "record",
        "name": "plane",
        "entity": "plane",
        "keys": ["tail"],
        "event_time": "at",
        "ttl": "30d",
        "fields": [
            {"name": "tail", "type": "string"},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            {"name": "delay", "type": ["null", "long"]},
            {"name": "speed", "type": "double"},
            {"name": "carrier", "type": ["null", "string"]},
        ],
    }
)
FEATURES = ["plane.delay", "plane.speed", "plane.carrier"]

_T0 = 1_700_000_000_000_000
_STEP_US = 60_000_000
_ROWS_PER_INSERT = 5_000
_INSERTS_AT_ONCE = 2
_ROWS_PER_FILE_PART = 1_000_000
_NAMES = "tail, _event_time, _source, _sequence, _ingest_time, _deleted, delay, speed, carrier"


def fill(settings: Settings, rows: int, *, width: int = 0) -> None:
    """Make the stores and write so many rows of history, `ROWS_PER_ENTITY` for each entity, a minute apart.

    Args:
        settings: Where the stores are: history in SQLite, or in a database of its own on a server of MySQL's family,
            from which earlier rows are removed.
        rows: How many.
        width: Characters of the text feature, at least.
    """
    source_id = asyncio.run(_prepare(settings))
    address = StoreUrl.parse(settings.history)
    if address.scheme == "sqlite":
        _fill_file(Path(address.path), source_id, rows, width)
    else:
        _fill_server(address, source_id, rows, width)


async def _prepare(settings: Settings) -> int:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    async with history_store(settings.history, settings) as history, online_store(settings.online, settings) as online:
        await init_stores(history, online)
        await history.apply(make_plan(await history.load_catalog(), [GROUP]))
        return (await history.claim(SourceName(SourceKind.TOPIC, "plane", "first"))).id


def _row(source_id: int, at: int, width: int) -> tuple[str, int, int, int, int, int, int | None, float, str]:
    time_us = _T0 + at % ROWS_PER_ENTITY * _STEP_US
    delay = None if at % 7 == 0 else at
    carrier = f"carrier {at % 20}".ljust(width, ".")
    return _tail(at // ROWS_PER_ENTITY), time_us, source_id, at, _T0, 0, delay, at / 8, carrier


def _fill_file(path: Path, source_id: int, rows: int, width: int) -> None:
    """In order of time, as events arrive: the file's pages are then as full as ingest leaves them."""
    numbers = (at for step in range(ROWS_PER_ENTITY) for at in range(step, rows, ROWS_PER_ENTITY))
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute(f"PRAGMA cache_size=-{4 << 20}")
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            f"INSERT INTO history_plane ({_NAMES}) VALUES ({', '.join('?' * 9)})",
            (_row(source_id, at, width) for at in numbers),
        )
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def _fill_server(address: StoreUrl, source_id: int, rows: int, width: int) -> None:
    _execute(address, "TRUNCATE TABLE history_plane")
    starts = range(0, rows, _ROWS_PER_INSERT)
    statements = ((source_id, start, min(start + _ROWS_PER_INSERT, rows), width) for start in starts)
    with ThreadPoolExecutor(_INSERTS_AT_ONCE) as pool:
        waiting = []
        for each in statements:
            waiting.append(pool.submit(_insert, address, *each))
            if len(waiting) > 2 * _INSERTS_AT_ONCE:
                waiting.pop(0).result()
        for one in waiting:
            one.result()


def _insert(address: StoreUrl, source_id: int, start: int, end: int, width: int) -> None:
    values = ", ".join(map(_literals, (_row(source_id, at, width) for at in range(start, end))))
    _execute(address, f"INSERT INTO history_plane ({_NAMES}) VALUES {values}")


def _execute(address: StoreUrl, sql: str) -> None:
    [(host, port)] = address.hosts
    connection = pymysql.connect(
        host=host,
        port=port or 4000,
        user=address.user or "root",
        password=address.password or "",
        database=address.path,
        autocommit=True,
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
    finally:
        connection.close()


def _literals(row: tuple[object, ...]) -> str:
    return f"({', '.join('NULL' if value is None else repr(value) for value in row)})"


def _tail(number: int) -> str:
    return f"N{number:08d}"


def rows_of(start: int, end: int) -> pa.Table:
    """Some of the rows that `fill` writes, by number, as an Arrow table."""
    values = list(zip(*(_row(1, at, 0) for at in range(start, end)), strict=True))
    table = pa.Table.from_arrays([pa.array(column) for column in values], names=_NAMES.split(", "))
    deleted = table.column("_deleted").cast(pa.bool_())
    return table.set_column(table.schema.get_field_index("_deleted"), "_deleted", deleted)


def write_rows(path: Path, rows: int) -> None:
    """Write the rows that `fill` writes as a parquet file: keys, features, and the event time as `at`."""
    names = ["tail", "delay", "speed", "carrier"]
    writer: parquet.ParquetWriter | None = None
    for start in range(0, rows, _ROWS_PER_FILE_PART):
        part = rows_of(start, min(start + _ROWS_PER_FILE_PART, rows))
        times = part.column("_event_time").cast(pa.timestamp("us", "UTC"))
        table = part.select(names).append_column("at", times)
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def write_labels(path: Path, rows: int, labels: int) -> None:
    """Write labels of any entities, at any time of their history and a little before and after it."""
    chance = random.Random(rows)
    entities = max(1, rows // ROWS_PER_ENTITY)
    span_us = ROWS_PER_ENTITY * _STEP_US
    times = [_T0 + chance.randrange(-span_us // 20, span_us * 21 // 20) for _ in range(labels)]
    table = pa.table(
        {
            "tail": [_tail(chance.randrange(entities)) for _ in range(labels)],
            "event_timestamp": pa.array(times, pa.timestamp("us", "UTC")),
            "label": pa.array([at % 2 for at in range(labels)], pa.int8()),
        }
    )
    parquet.write_table(table, path)
