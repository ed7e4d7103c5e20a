"""A pair of stores that a test fills event by event, with ingest times of its own choosing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.events import Event, Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import OnlineRow
from oomstream.schemas.plan import make_plan
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import HistoryBatch, HistoryRow, SourceName
from oomstream.stores.opening import init_stores, online_store
from oomstream.stores.rebuild import online_row
from oomstream.stores.settings import Settings, load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from tests.oracle import OracleEvent

DAY_US = 86_400_000_000
T0 = 1_700_000_000_000_000
"""An event time to count from (2023-11-14 22:13:20 UTC)."""


@dataclass
class Filled:
    """Two stores, and every event that went into them.

    Attributes:
        folder: Where the files of embedded stores are.
        groups: Definitions to register.
        settings: Where the stores are, if not in the folder.
        now_us: What the history database's clock shows; tests set it.
        events: What was written, for the oracle.
    """

    folder: Path
    groups: Sequence[FeatureGroup]
    settings: Settings | None = None
    now_us: int = T0
    events: list[OracleEvent] = field(default_factory=list)
    _rows: list[OnlineRow] = field(default_factory=list)

    @property
    def online_url(self) -> str:
        """URL of the online store."""
        return self.settings.online if self.settings is not None else f"sqlite:///{self.folder / 'online.db'}"

    @property
    def history_url(self) -> str:
        """URL of the history database."""
        return self.settings.history if self.settings is not None else f"sqlite:///{self.folder / 'history.db'}"

    async def open(self) -> Filled:
        """Make the stores and register the groups."""
        settings = load_settings()
        self.history = SqlHistoryStore(self.history_url, settings, clock=lambda: self.now_us)
        self.online = online_store(self.online_url, settings)
        await self.history.open()
        await self.online.open()
        await init_stores(self.history, self.online)
        await self.register(*self.groups)
        return self

    async def register(self, *groups: FeatureGroup) -> None:
        """Apply definitions."""
        self.catalog = await self.history.apply(make_plan(await self.history.load_catalog(), groups))

    async def close(self) -> None:
        """Give back the stores."""
        await self.online.close()
        await self.history.close()

    async def write(
        self,
        group: str,
        key: tuple[Plain, ...],
        event_time_us: int,
        *values: Plain,
        deleted: bool = False,
        source: SourceName | None = None,
        online: bool = True,
    ) -> OracleEvent:
        """Write one event: into history now, and into the online store at once or when `flush` is called."""
        registered = self.catalog.groups[group]
        name = source or SourceName(SourceKind.TOPIC, group, "first")
        claimed = await self.history.claim(name)
        at = claimed.next_sequence
        event = Event(at, key, encode_entity(key), event_time_us, deleted, () if deleted else values, b"")
        ingest_us = await self.history.append(claimed, HistoryBatch(registered.group, [event], at + 1, at + 1))
        ingest_us = await self.set_ingest_time(group, claimed.id, at, ingest_us)
        stored = () if deleted else values
        features = [feature.name for feature in registered.group.features]
        self.events.append(
            OracleEvent(
                group,
                key,
                event_time_us,
                int(name.kind),
                claimed.id,
                at,
                ingest_us,
                deleted,
                dict(zip(features, stored, strict=True)) if not deleted else {},
            )
        )
        padded = stored if not deleted else (None,) * len(features)
        row = HistoryRow(key, event_time_us, claimed.id, at, ingest_us, deleted, padded)
        self._rows.append(online_row(BodyCodec(registered), row, name.kind))
        if online:
            await self.flush()
        return self.events[-1]

    async def set_ingest_time(self, group: str, source_id: int, sequence: int, ingest_us: int) -> int:
        """Give a row that was just written the ingest time of this clock, where the database has one of its own."""
        return ingest_us

    async def flush(self, order: Sequence[int] | None = None) -> None:
        """Write the online rows that wait, one at a time, in their order or in another."""
        rows, self._rows = self._rows, []
        for at in order if order is not None else range(len(rows)):
            await self.online.upsert_newer([rows[at % len(rows)]])
        if order is not None:
            for row in rows:
                await self.online.upsert_newer([row])

    def store(self) -> AsyncFeatureStore:
        """A feature store over the two, whose clock is the history database's; not connected."""
        settings = load_settings()
        return AsyncFeatureStore(
            online_store(self.online_url, settings),
            SqlHistoryStore(self.history_url, settings, clock=lambda: self.now_us),
            clock=lambda: self.now_us / 1_000_000,
        )
