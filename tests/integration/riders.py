"""Two stream groups of one entity, each fed by a pipeline of its own, on any pair of stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson

from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.schemas.events import RawRecord
from oomstream.schemas.framing import EVENT_TIME_HEADER
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import encode_key
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import HistoryStore, OnlineStore, SourceName
from oomstream.stores.catalog_cache import CatalogCache
from oomstream.stores.opening import open_stores
from oomstream.stores.settings import Settings
from oomstream.stores.testing.samples import group
from oomstream.streams.dead_letters import DeadLetterSink
from oomstream.streams.ingest import SourceIngest
from oomstream.streams.verify import Verifier
from tests.integration.backends import Backends, prepare_async

T0 = 1_700_000_000_000_000
GONE, STAYS = "ann", "bob"
GROUPS = ("rides", "taps")


class NoLetters(DeadLetterSink):
    """No record of these tests is refused."""

    async def send(self, letters: Any) -> None:
        """Fail."""
        raise AssertionError(letters)


def event(offset: int, rider: str, time: int, number: int) -> RawRecord:
    """One event as JSON."""
    value = orjson.dumps({"k": rider, "at": T0 + time, "n": number})
    return RawRecord(offset, rider.encode(), value, (T0 + time) // 1000 + 1, ())


def tombstone(offset: int, rider: str, time: int) -> RawRecord:
    """A delete."""
    headers = ((EVENT_TIME_HEADER, str(T0 + time).encode()),)
    return RawRecord(offset, rider.encode(), None, (T0 + time) // 1000 + 1, headers)


class Stage:
    """Both groups, and pipelines that share what they know of the catalog, as those of a worker do."""

    def __init__(self, settings: Settings, history: HistoryStore, online: OnlineStore) -> None:
        self.settings = settings
        self.history = history
        self.online = online
        self._catalog = CatalogCache(history)

    async def pipeline(self, name: str, incarnation: str = "first") -> SourceIngest:
        """The pipeline of a topic's partition."""
        found = SourceIngest(
            history=self.history,
            online=self.online,
            catalog=self._catalog,
            dead_letters=NoLetters(),
            name=SourceName(SourceKind.TOPIC, name, incarnation, 0),
            settings=self.settings,
        )
        await found.start(0, 1 << 40, begin=0)
        return found

    async def rows(self, name: str) -> list[tuple[str, int]]:
        """Key and number of every row of history."""
        mine = (await self.history.load_catalog()).group(name)
        async with self.history.cut() as cut:
            tables = [each async for each in cut.scan(mine, ["n"])]
        return [(row["k"], row["n"]) for table in tables for row in table.to_pylist()]

    async def online_numbers(self, *names: str) -> dict[str, list[Any]]:
        """Number of both entities as a reader sees them."""
        async with AsyncFeatureStore.open(settings=self.settings) as store:
            rows = [{"k": GONE}, {"k": STAYS}]
            answer = (await store.get_online_features([f"{name}.n" for name in names], rows)).to_dict()
        return {name: answer[f"{name}.n"] for name in names}

    async def place(self, name: str, rider: str = GONE) -> bytes:
        """Stored key of an entity in a group."""
        return encode_key((await self.history.load_catalog()).group(name).id, encode_entity((rider,)))

    async def check_verified(self) -> None:
        """Online equals history, as the product's own check sees it."""
        catalog = await self.history.load_catalog()
        for name in GROUPS:
            result = await Verifier(self.history, self.online).verify(catalog.groups[name])
            assert result.differing == 0


@asynccontextmanager
async def staged(backends: Backends, **attributes: Any) -> AsyncIterator[Stage]:
    """A stage with two events of each entity in each group, whose records have such attributes."""
    settings = backends.fresh()
    await prepare_async(settings, [group(name, entity="rider", **attributes) for name in GROUPS])
    async with open_stores(settings) as (history, online):
        stage = Stage(settings, history, online)
        for name in GROUPS:
            events = [event(0, GONE, 1, 1), event(1, STAYS, 2, 2), event(2, GONE, 3, 3), event(3, STAYS, 4, 4)]
            await (await stage.pipeline(name)).ingest(events)
        yield stage
