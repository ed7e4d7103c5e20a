"""A batch group whose rows all say of which revision they are, on any pair of stores."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from typing import Any

from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.online_value import OnlineRow, group_prefix, seal_key
from oomstream.stores.base import HistoryStore, OnlineStore
from oomstream.stores.opening import open_stores
from oomstream.stores.revisions import Revision, RevisionRow
from oomstream.stores.settings import Settings
from oomstream.stores.testing.samples import group
from oomstream.stores.urls import StoreUrl
from oomstream.streams.sync import SyncReport, sync_group
from tests.conformance.mysql_raw import rows_of_sql
from tests.integration.backends import Backends, prepare_async

T0 = 1_700_000_000_000_000
NAMES = ["state.said", "state.note"]


def accounts() -> FeatureGroup:
    """The batch group `state` of accounts."""
    features = {"said": "long", "note": ["null", "string"]}
    return group("state", features, {"account": "string"}, entity="account", category="batch")


def key(number: int) -> str:
    """The key of an account."""
    return f"account {number:05}"


class Accounts:
    """The group, its stores, and what can be done with it."""

    def __init__(self, settings: Settings, history: HistoryStore, online: OnlineStore) -> None:
        self.settings = settings
        self.history = history
        self.online = online

    async def registered(self) -> RegisteredGroup:
        """As the catalog has it now."""
        return (await self.history.load_catalog()).groups["state"]

    async def publish(self, of: int, numbers: Iterable[int], *, time: int | None = None) -> Revision:
        """Import a revision of some accounts, whose `said` is `of`; `time` is in microseconds after T0."""
        mine = (await self.registered()).group
        draft = await self.history.begin_revision(mine)
        rows = [RevisionRow((key(number),), (of, f"note {of}" if number % 2 else None)) for number in numbers]
        for at in range(0, len(rows), 5_000):
            await self.history.load_revision(mine, draft, rows[at : at + 5_000])
        return await self.history.publish_revision(mine, draft, time_us=None if time is None else T0 + time)

    async def sync(self, **how: Any) -> SyncReport:
        """Sync the group."""
        max_age_s = self.settings.metadata_max_age_us / 1e6
        return await sync_group(self.history, self.online, await self.registered(), max_age_s=max_age_s, **how)

    async def rows_online(self) -> list[OnlineRow]:
        """Everything of the group that is online, seals too."""
        found: list[OnlineRow] = []
        prefix = group_prefix((await self.registered()).group.id)
        while page := await self.online.scan(prefix, after=found[-1].key if found else None, limit=1_000):
            found += page
        return found

    async def copies_online(self) -> dict[int, int]:
        """Rows of each sealed copy by its sync id; 0 as the number of rows of one without a seal."""
        group_id = (await self.registered()).group.id
        rows = await self.rows_online()
        ids = sorted({int.from_bytes(row.key[5:13], "big") for row in rows})
        keys = {row.key for row in rows}
        return {
            sync_id: sum(each.key.startswith(seal_key(group_id, sync_id)) for each in rows) - 1
            if seal_key(group_id, sync_id) in keys
            else 0
            for sync_id in ids
        }


def raw_sql(settings: Settings, *statements: str) -> None:
    """Run SQL in the history database, without the store."""
    if StoreUrl.parse(settings.history).is_file:
        with closing(sqlite3.connect(StoreUrl.parse(settings.history).path)) as connection, connection:
            for each in statements:
                connection.execute(each)
    else:
        rows_of_sql(settings.history, *statements)


@asynccontextmanager
async def stage(backends: Backends, *more: FeatureGroup, **settings: Any) -> AsyncIterator[Accounts]:
    """Fresh stores with the group, and others."""
    chosen = backends.fresh(**settings)
    await prepare_async(chosen, [accounts(), *more])
    async with open_stores(chosen) as stores:
        yield Accounts(chosen, *stores)


async def read(store: AsyncFeatureStore, numbers: Iterable[int], names: list[str] | None = None) -> dict[str, Any]:
    """Values and statuses of some accounts."""
    found = await store.get_online_features(names or NAMES, [{"account": key(number)} for number in numbers])
    return {**found.to_dict(), "statuses": found.statuses, "times": found.event_times}
