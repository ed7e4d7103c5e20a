"""Two kinds of entities, one with a key of two fields, each with a stream group and a batch group, on real stores."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from oomstream.agents.serve import oomagent_pb2 as pb
from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.groups import Category, FeatureGroup
from oomstream.stores.base import HistoryStore, OnlineStore
from oomstream.stores.opening import open_stores
from oomstream.stores.settings import Settings
from oomstream.streams.import_report import ImportReport
from oomstream.streams.importing import import_file
from oomstream.streams.push import LocalWriter
from oomstream.streams.sync import SyncReport, sync_group
from oomstream.streams.verify import Verifier
from oomstream.streams.verify_copy import CopyVerifier
from tests.integration.backends import Backends, prepare_async
from tests.integration.served import AgentClient, plain

T0_MS = 1_700_000_000_000
FLOATS = {"type": "array", "items": "float"}
FLIGHT = {"origin": "string", "number": "int"}
PLANE = {"tail": "string"}


def definition(
    name: str, entity: str, keys: dict[str, Any], features: Sequence[dict[str, Any]], *, batch: bool = False
) -> FeatureGroup:
    """A group; its features are fields as Avro has them."""
    time_field = {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}
    kind = {"category": "batch"} if batch else {"event_time": "at"}
    fields = [*({"name": key, "type": each} for key, each in keys.items()), *([] if batch else [time_field]), *features]
    return group_from_avsc(
        {"type": "record", "name": name, "entity": entity, "keys": list(keys), "fields": fields, **kind}
    )


def nullable(name: str, kind: Any) -> dict[str, Any]:
    """A feature that may be null."""
    return {"name": name, "type": ["null", kind]}


DELAYS = definition("delays", "flight", FLIGHT, [nullable("minutes", "long"), nullable("shape", FLOATS)])
ROUTES = definition(
    "routes", "flight", FLIGHT, [nullable("miles", "long"), {"name": "profile", "type": FLOATS}], batch=True
)
SPEEDS = definition("speeds", "plane", PLANE, [nullable("knots", "long")])
MODELS = definition("models", "plane", PLANE, [nullable("seats", "long")], batch=True)
GROUPS = (DELAYS, ROUTES, SPEEDS, MODELS)


def at(ms: int) -> datetime:
    """So many milliseconds after T0."""
    return datetime.fromtimestamp((T0_MS + ms) / 1000, UTC)


class Flights:
    """The stores, and what can be done with them.

    Attributes:
        settings: Where the stores are.
        history: The history store.
        online: The online store.
        folder: For files.
        store: An open feature store.
    """

    def __init__(
        self, settings: Settings, history: HistoryStore, online: OnlineStore, folder: Path, store: AsyncFeatureStore
    ) -> None:
        self.settings = settings
        self.history = history
        self.online = online
        self.folder = folder
        self.store = store

    async def registered(self, name: str) -> RegisteredGroup:
        """A group as the catalog has it now."""
        return (await self.history.load_catalog()).groups[name]

    async def push(self, group: str, *rows: dict[str, Any]) -> None:
        """Write events without a broker."""
        async with LocalWriter(self.history, self.online, self.settings) as writer:
            for row in rows:
                await writer.push(group, row)

    async def load(self, group: str, text: str, *, ms: int | None = None) -> ImportReport:
        """Import CSV; into a batch group as the state from a time on, in milliseconds after T0."""
        path = self.folder / f"{group}.csv"
        path.write_text(text, encoding="utf-8")
        revision_us = None if ms is None else (T0_MS + ms) * 1000
        return await import_file(
            self.history, self.online, group, path, revision_us=revision_us, settings=self.settings
        )

    async def sync(self, group: str, revision_id: int | None = None) -> SyncReport:
        """Bring a revision online, for the feature store too."""
        done = await sync_group(
            self.history, self.online, await self.registered(group), revision_id=revision_id, purge_delay_s=0
        )
        await self.store.refresh()
        return done

    async def read(self, features: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[list[Any]]:
        """Online values, a list for each row."""
        found = (await self.store.get_online_features(features, rows)).to_dict()
        return [list(each) for each in zip(*(found[name] for name in features), strict=True)]

    async def join(self, features: Sequence[str], rows: Sequence[dict[str, Any]], ms: Sequence[int]) -> list[list[Any]]:
        """What labels saw, a list for each row; their times in milliseconds after T0."""
        labels = [{**row, "unix_milli": T0_MS + each} for row, each in zip(rows, ms, strict=True)]
        found = (await self.store.get_historical_features(labels, features)).to_arrow()
        return [list(each) for each in zip(*(found.column(name).to_pylist() for name in features), strict=True)]

    async def export(self, features: Sequence[str], ms: int | None = None) -> list[list[Any]]:
        """An export, now or at a time in milliseconds after T0, a list for each entity, key first."""
        when = int(time.time() * 1e6) if ms is None else (T0_MS + ms) * 1000
        table = (await self.store.export(features, at=when)).to_arrow()
        return [list(row.values()) for row in table.to_pylist()]

    async def check_verified(self) -> None:
        """Online equals history and the revisions, as the product's own check sees it."""
        for each in (await self.history.load_catalog()).groups.values():
            batch = each.group.category is Category.BATCH
            kind: type[CopyVerifier | Verifier] = CopyVerifier if batch else Verifier
            result = await kind(self.history, self.online).verify(each)
            assert (result.differing, result.first) == (0, [])


@asynccontextmanager
async def flights(backends: Backends, folder: Path, *groups: FeatureGroup) -> AsyncIterator[Flights]:
    """Empty stores with the groups."""
    settings = backends.fresh()
    await prepare_async(settings, groups or GROUPS)
    async with (
        open_stores(settings) as (history, online),
        AsyncFeatureStore.open(settings=settings) as store,
    ):
        yield Flights(settings, history, online, folder, store)


def filled(
    backends: Backends, folder: Path, fill: Callable[[Flights], Awaitable[object]], *groups: FeatureGroup
) -> Settings:
    """Settings of stores with the groups, which were filled and closed again."""

    async def begin() -> Settings:
        async with flights(backends, folder, *groups) as the:
            await fill(the)
            return the.settings

    return asyncio.run(begin())


def joined(client: AgentClient, features: Sequence[str], rows: Sequence[tuple[str, int]]) -> list[list[Any]]:
    """What labels, entity texts and milliseconds after T0, saw over gRPC."""
    requests = [
        pb.ChannelJoinRequest(
            join_features=features if at == 0 else (), entity_row=pb.EntityRow(entity_key=key, unix_milli=T0_MS + ms)
        )
        for at, (key, ms) in enumerate(rows)
    ]
    return [[plain(value) for value in each.joined_row][2:] for each in client.call("ChannelJoin", requests)]


def exported(client: AgentClient, features: Sequence[str]) -> list[list[Any]]:
    """Rows of an export over gRPC, of now."""
    request = pb.ChannelExportRequest(features=features, unix_milli=time.time_ns() // 1_000_000 + 1)
    answers = list(client.call("ChannelExport", request))
    return [list(answers[0].header), *([plain(value) for value in each.row] for each in answers if each.row)]
