"""Online rows, read around every store: SQLite's file, or TiKV's keys as they are.

Source:
    design.md, section 6 (layout of keys and values).
"""

from __future__ import annotations

import asyncio
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from oomstream.stores.urls import StoreUrl
from tests.torture.decode import Garbage, event_of, read_body
from tests.torture.groups import TortureGroup, avro_kind

_VALUE = struct.Struct(">BQBIQq8sB")
"""Format, event time, kind, source, sequence, ingest time, fingerprint, flags; the Avro body follows."""

_KEY = struct.Struct(">cIQ")
"""``o``, group id, sync id (0 for stream groups); the entity key follows."""

_SIGN = 1 << 63
_PAGE = 1_000
_DEADLINE_S = 30.0
_CLIENT_THREADS_S = 0.3
"""A process that ends sooner after the client's last call is sometimes crashed by its threads (tikv-client 0.0.4)."""


class OnlineRow(NamedTuple):
    """One online row.

    Attributes:
        version: Event time, rank of the source's kind, source, sequence.
        ingest_time_us: When its history row was written.
        deleted: Whether it is a delete.
        values: Features in order, as history stores them; empty for a delete.
    """

    version: tuple[int, int, int, int]
    ingest_time_us: int
    deleted: bool
    values: tuple[Any, ...]


def online_pairs(url: str) -> list[tuple[bytes, bytes]]:
    """Every key, without the namespace, and its value."""
    if StoreUrl.parse(url).is_file:
        path = Path(StoreUrl.parse(url).path)
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as file:
            # The version is also in a column of its own, which decides what may overwrite a row.
            rows = file.execute("SELECT key, version, value FROM online")
            return [(key, value if version == value[1:22] else b"") for key, version, value in rows]
    return asyncio.run(_tikv_pairs(url))


async def _tikv_pairs(url: str) -> list[tuple[bytes, bytes]]:
    from tikv_client.asynchronous import TransactionClient  # only where its wheel exists

    pd, _, namespace = url.removeprefix("tikv://").partition("/")
    prefix, found = f"{namespace}/".encode(), []
    async with asyncio.timeout(_DEADLINE_S):
        client = await TransactionClient.connect(pd.split(","))
        snapshot = client.snapshot(await client.current_timestamp(), pessimistic=False)
    start, end = prefix, f"{namespace}0".encode()  # "0" comes after "/"
    while True:
        async with asyncio.timeout(_DEADLINE_S):
            page = await snapshot.scan(start, end=end, limit=_PAGE, include_start=True, include_end=False)
        found += [(bytes(key).removeprefix(prefix), bytes(value)) for key, value in page]
        if len(page) < _PAGE:
            break
        start = bytes(page[-1][0]) + b"\0"
    del snapshot
    await asyncio.sleep(_CLIENT_THREADS_S)
    return found


def group_of_key(key: bytes) -> int:
    """Id of the group that a key is of; 0 if it is of no stream group."""
    head = _KEY.unpack_from(key) if len(key) >= _KEY.size else (b"", 0, 0)
    return int(head[1]) if head[0] == b"o" and head[2] == 0 else 0


def rows_by_key(pairs: list[tuple[bytes, bytes]], group_id: int, group: TortureGroup) -> dict[Any, OnlineRow | str]:
    """Online rows of a group by entity key; where a value cannot be read, the reason."""
    rows: dict[Any, OnlineRow | str] = {}
    for key, value in pairs:
        if group_of_key(key) == group_id:
            entity = _entity(key[_KEY.size :], group)
            try:
                rows[entity] = _row(value, entity, group)
            except (Garbage, struct.error, ValueError) as exc:
                rows[entity] = f"cannot be read: {exc}"
    return rows


def _row(raw: bytes, key: tuple[Any, ...], group: TortureGroup) -> OnlineRow:
    layout, time, kind, source, sequence, ingest_us, fingerprint, flags = _VALUE.unpack_from(raw)
    version = (time - _SIGN, kind, source, sequence)
    body = raw[_VALUE.size :]
    if layout != 1 or flags not in (0, 1):
        raise ValueError(f"format {layout}, flags {flags}")
    if flags:
        return OnlineRow(version, ingest_us, True, ())
    if fingerprint != group.header[2:]:
        raise ValueError("another schema")
    event = event_of(group, read_body(group, body))
    if (event.key, event.time_us) != (key, version[0]):
        raise ValueError("key or event time of the body are not those of the row")
    return OnlineRow(version, ingest_us, False, event.values)


def _entity(raw: bytes, group: TortureGroup) -> tuple[Any, ...]:
    """Parts of an entity key: 1 and text with doubled zero bytes up to two of them, or 2 and eight bytes."""
    parts: list[Any] = []
    for part in _parts(raw):
        kind, _ = avro_kind(group.fields[group.keys[len(parts)]])
        parts.append(part.decode() if isinstance(part, bytes) and kind == "string" else part)
    return tuple(parts)


def _parts(raw: bytes) -> Iterator[bytes | int]:
    at = 0
    while at < len(raw):
        if raw[at] == 2:
            yield int.from_bytes(raw[at + 1 : at + 9], "big") - _SIGN
            at += 9
            continue
        text = bytearray()
        at += 1
        while raw[at : at + 2] != b"\0\0":
            text.append(raw[at])
            at += 2 if raw[at] == 0 else 1
        yield bytes(text)
        at += 2
