"""Stores with a batch group and a stream group, and files for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import decode_value, encode_key
from oomstream.schemas.plan import make_plan
from oomstream.stores.base import HistoryRow
from oomstream.stores.opening import Stores, open_stores
from oomstream.stores.settings import Settings
from oomstream.streams.verify import Verifier

T0_MS = 1_700_000_000_000
NULLABLE_LONG = ["null", "long"]
FEATURES: list[dict[str, Any]] = [
    {"name": "state", "type": ["null", "string"]},
    {"name": "score", "type": "long"},
]


def group(name: str, category: str, *more: dict[str, Any]) -> Any:
    """A group of users, with the features `state` and `score` and more."""
    is_batch = category == "batch"
    times = [] if is_batch else [{"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}]
    return group_from_avsc(
        {
            "type": "record",
            "name": name,
            "entity": "user",
            "keys": ["user_id"],
            "category": category,
            **({} if is_batch else {"event_time": "at"}),
            "fields": [{"name": "user_id", "type": "string"}, *times, *FEATURES, *more],
        }
    )


BATCH = group("account", "batch")
STREAM = group("clicks", "stream")


@asynccontextmanager
async def stores(settings: Settings, *groups: Any) -> AsyncIterator[Stores]:
    """Open stores with the groups registered; BATCH and STREAM unless others are given."""
    async with open_stores(settings) as opened:
        await opened.history.apply(make_plan(await opened.history.load_catalog(), list(groups or (BATCH, STREAM))))
        yield opened


def csv_file(path: Path, header: str, rows: Iterable[Sequence[Any]]) -> Path:
    """Write a simple CSV file."""
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return path


def clicks(count: int, users: int = 7, start_ms: int = T0_MS) -> list[tuple[Any, ...]]:
    """Rows of STREAM (`user,unix_milli,state,score`), each user's with rising times."""
    return [(f"u{at % users}", start_ms + at, f"s{at}", at) for at in range(count)]


async def history_of(opened: Stores, name: str = "clicks") -> list[HistoryRow]:
    """Every row of a stream group's history, by source and sequence."""
    found = (await opened.history.load_catalog()).group(name)
    rows: list[HistoryRow] = []
    for source in await opened.history.sources():
        rows += await opened.history.rows_of_source(found, source.id, 0, 1 << 40, limit=1_000_000)
    return rows


async def online_of(opened: Stores, users: Iterable[str], name: str = "clicks") -> dict[str, tuple[Any, ...]]:
    """Values and version of each user's online row."""
    registered = (await opened.history.load_catalog()).groups[name]
    codec = BodyCodec(registered)
    names = list(users)
    keys = [encode_key(registered.group.id, encode_entity((user,))) for user in names]
    found = {}
    for user, raw in zip(names, await opened.online.read(keys), strict=True):
        if raw is not None:
            value = decode_value(raw)
            found[user] = (codec.read(value.fingerprint, value.body), value.version)
    return found


async def differing(opened: Stores, name: str = "clicks") -> int:
    """Entities whose online row is not the newest of history."""
    registered = (await opened.history.load_catalog()).groups[name]
    return (await Verifier(opened.history, opened.online).verify(registered)).differing
