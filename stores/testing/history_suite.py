"""The base of the history suite: places, stores, and the way around the store."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from oomstream.schemas.events import Event
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.plan import make_plan
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import HistoryBatch, HistoryStore, Source, SourceName
from oomstream.stores.testing.suite import Run, Suite


class HistorySuite(Suite):
    """What a subclass says about its store."""

    @abstractmethod
    def store(self, place: str) -> HistoryStore:
        """A store on a place, not opened; two of one place are two clients of the same data."""

    @abstractmethod
    async def raw_rows(self, place: str, group: str) -> list[dict[str, Any]]:
        """All rows of a group's history, read without the store.

        Each by name: key fields, `_event_time`, `_source`, `_sequence`, `_ingest_time`, `_deleted`, features; in plain
        form (booleans may be 0 and 1).
        """

    @abstractmethod
    async def raw_insert(self, place: str, group: str, row: Mapping[str, Any]) -> None:
        """Insert one such row without the store."""

    @pytest.fixture
    def opened(self, place: str, run: Run) -> Iterator[HistoryStore]:
        """An opened store that is ready for use."""
        store = self.store(place)
        run(store.open())
        run(store.init())
        yield store
        run(store.close())


async def register(store: HistoryStore, *groups: FeatureGroup) -> list[FeatureGroup]:
    """Apply definitions; returns them as registered."""
    catalog = await store.apply(make_plan(await store.load_catalog(), groups))
    return [catalog.group(group.name) for group in groups]


def topic(name: str = "plane", partition: int = 0, incarnation: str = "first") -> SourceName:
    """A topic's partition as a source."""
    return SourceName(SourceKind.TOPIC, name, incarnation, partition)


async def append(store: HistoryStore, source: Source, group: FeatureGroup, *events: Event, upto: int = 0) -> int:
    """Append events; the position moves behind the last one, or to `upto`. Returns the ingest time."""
    end = upto or events[-1].sequence + 1
    return await store.append(source, HistoryBatch(group, events, end, 0))
