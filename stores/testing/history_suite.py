"""The base of the history suite: places, stores, and the way around the store."""

from __future__ import annotations

import re
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

    @abstractmethod
    async def raw_sql(self, place: str, *statements: str) -> list[dict[str, Any]]:
        """Run SQL without the store, all of it or nothing; gives the last statement's rows, by column.

        Statements use words that all engines know and name tables without quotation marks; text of key fields may come
        as bytes, booleans as 0 and 1.
        """

    async def raw_table(self, place: str, table: str) -> list[dict[str, Any]]:
        """All rows of a table, read without the store, in order of their first column."""
        return await self.raw_sql(place, f"SELECT * FROM {table} ORDER BY 1")  # noqa: S608 - names of the tests' own

    async def has_table(self, place: str, table: str) -> bool:
        """Whether there is such a table."""
        try:
            await self.raw_table(place, table)
        except Exception as exc:
            if not re.search("no such table|doesn't exist", str(exc)):
                raise
            return False
        return True

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
