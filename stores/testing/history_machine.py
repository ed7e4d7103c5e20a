"""A state machine that does anything to a history store and compares it with lists."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from oomstream.schemas.errors import Fenced
from oomstream.schemas.events import Event, Plain
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.base import DlqCounts, HistoryBatch, HistoryStore, Source, SourceName
from oomstream.stores.testing.history_suite import register
from oomstream.stores.testing.samples import TIME_US, event, group

_T = TypeVar("_T")

_NAMES = [
    SourceName(SourceKind.FILE, "f", "sha"),
    SourceName(SourceKind.TOPIC, "t", "id", 0),
    SourceName(SourceKind.TOPIC, "t", "id", 1),
]
_KEYS: list[tuple[Plain, ...]] = [("1", "11"), ("11", "1"), ("a", " "), ("a", "\0")]
_CLIENTS = st.integers(0, 1)
_WHICH = st.integers(0, len(_NAMES) - 1)
# Sequences relative to the position that the writer holds: repeats, gaps, and what comes next.
_EVENTS = st.lists(
    st.tuples(st.integers(-3, 4), st.sampled_from(_KEYS), st.integers(-1, 1), st.booleans()),
    max_size=5,
    unique_by=lambda each: each[0],
).map(sorted)


class _Model:
    """What a history store holds, as lists and dicts."""

    def __init__(self) -> None:
        self.owners: dict[SourceName, int] = {}
        self.ids: dict[SourceName, int] = {}
        self.positions: dict[SourceName, tuple[int, int]] = {}
        self.rows: dict[tuple[int, int], tuple[tuple[Plain, ...], int, bool, tuple[Plain, ...]]] = {}

    def version(self, source_id: int, sequence: int) -> Version:
        """Version of a row."""
        name = next(name for name, each in self.ids.items() if each == source_id)
        return Version(self.rows[source_id, sequence][1], name.kind, source_id, sequence)

    def newest(self) -> dict[tuple[Plain, ...], tuple[int, int]]:
        """Identity of the newest row of each entity."""
        found: dict[tuple[Plain, ...], tuple[int, int]] = {}
        for identity, row in self.rows.items():
            if row[0] not in found or self.version(*identity) > self.version(*found[row[0]]):
                found[row[0]] = identity
        return found


class HistoryMachine(RuleBasedStateMachine):
    """Two clients, some of whose claims are out of date, against lists."""

    def __init__(self, place: str, store: Callable[[str], HistoryStore]) -> None:
        super().__init__()
        self._place = place
        self._make = store
        self._runner = asyncio.Runner()
        self._model = _Model()
        self._clients = [store(place), store(place)]
        self._held: dict[tuple[int, int], Source] = {}
        for client in self._clients:
            self._run(client.open())
            self._run(client.init())
        definition = group(keys={"a": "string", "b": "string"}, features={"n": ["null", "long"]})
        [self._group] = self._run(register(self._clients[0], definition))

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self._runner.run(work)

    @rule(client=_CLIENTS, which=_WHICH, start=st.integers(0, 3))
    def claim(self, client: int, which: int, start: int) -> None:
        """Become a source's owner; the other client's claim of it is then out of date."""
        model, name = self._model, _NAMES[which]
        held = self._run(self._clients[client].claim(name, start=start))
        model.ids.setdefault(name, len(model.ids) + 1)
        model.owners[name] = model.owners.get(name, 0) + 1
        position = model.positions.setdefault(name, (start, start))
        assert (held.id, held.name, held.owner) == (model.ids[name], name, model.owners[name])
        assert (held.next_sequence, held.online_sequence) == position
        self._held[client, which] = held

    @precondition(lambda self: self._held)
    @rule(data=st.data(), events=_EVENTS, gap=st.integers(0, 2))
    def append(self, data: st.DataObject, events: list[tuple[Any, ...]], gap: int) -> None:
        """Append what a claim, which may be out of date, allows."""
        client, which = data.draw(st.sampled_from(sorted(self._held)))
        source, name = self._held[client, which], _NAMES[which]
        now, online = self._model.positions[name]
        batch = [
            event(max(now + at, 0), key, time, at, deleted=deleted)
            for at, key, time, deleted in events
            if now + at >= 0
        ]
        end = batch[-1].sequence + 1 + gap if batch else now + gap
        write = self._clients[client].append(source, HistoryBatch(self._group, batch, end, online, DlqCounts(1, 2, 3)))
        if source.owner != self._model.owners[name]:
            with pytest.raises(Fenced):
                self._run(write)
            return
        self._run(write)
        for each in batch:
            if each.sequence >= now:
                self._remember(source.id, each)
        self._model.positions[name] = (max(now, end), online)

    @precondition(lambda self: self._model.positions)
    @rule(client=_CLIENTS, data=st.data(), events=_EVENTS)
    def replay(self, client: int, data: st.DataObject, events: list[tuple[Any, ...]]) -> None:
        """Take in letters around the position, whoever owns the source."""
        name = data.draw(st.sampled_from(list(self._model.positions)))
        (now, _), source_id = self._model.positions[name], self._model.ids[name]
        letters = [
            event(now + at, key, time, at, deleted=deleted) for at, key, time, deleted in events if now + at >= 0
        ]
        done = self._run(self._clients[client].append_replayed(source_id, self._group, letters))
        new = [each for each in letters if each.sequence < now and (source_id, each.sequence) not in self._model.rows]
        for each in new:
            self._remember(source_id, each)
        assert done.written == {each.sequence for each in new}
        assert [row.sequence for row in done.rows] == [
            each.sequence for each in letters if (source_id, each.sequence) in self._model.rows
        ]

    def _remember(self, source_id: int, each: Event) -> None:
        values = (None,) if each.deleted else each.values
        self._model.rows[source_id, each.sequence] = (each.key, each.event_time_us, each.deleted, values)

    @precondition(lambda self: self._held)
    @rule(data=st.data(), share=st.integers(0, 2))
    def mark_online(self, data: st.DataObject, share: int) -> None:
        """Store the online position."""
        client, which = data.draw(st.sampled_from(sorted(self._held)))
        source, name = self._held[client, which], _NAMES[which]
        now, online = self._model.positions[name]
        marked = now * share // 2
        write = self._clients[client].mark_online(source, marked)
        if source.owner != self._model.owners[name]:
            with pytest.raises(Fenced):
                self._run(write)
        else:
            self._run(write)
            self._model.positions[name] = (now, max(online, marked))

    @rule(client=_CLIENTS)
    def reopen(self, client: int) -> None:
        """Close one client and take a new one; its claims live on."""
        self._run(self._clients[client].close())
        self._clients[client] = self._make(self._place)
        self._run(self._clients[client].open())

    @rule(client=_CLIENTS, keys=st.lists(st.sampled_from(_KEYS), max_size=5))
    def newest(self, client: int, keys: list[tuple[Plain, ...]]) -> None:
        """Ask for newest rows."""
        expected = self._model.newest()
        found = self._run(self._clients[client].newest(self._group, keys))
        assert [row and (row.source_id, row.sequence) for row in found] == [expected.get(key) for key in keys]

    @rule(client=_CLIENTS, after=st.none() | st.sampled_from(_KEYS), limit=st.integers(1, 3))
    def scan_newest(self, client: int, after: tuple[Plain, ...] | None, limit: int) -> None:
        """Read a page of newest rows."""
        expected = sorted(item for item in self._model.newest().items() if after is None or item[0] > after)[:limit]
        found = self._run(self._clients[client].scan_newest(self._group, after=after, limit=limit))
        assert [(row.key, (row.source_id, row.sequence)) for row in found] == expected

    @rule(client=_CLIENTS, keys=st.none() | st.lists(st.sampled_from(_KEYS), max_size=3), time=st.integers(-1, 1))
    def scan(self, client: int, keys: list[tuple[Plain, ...]] | None, time: int) -> None:
        """Scan up to an event time."""
        rows = self._model.rows.items()
        expected = sorted(
            (*key, time_us, *identity, deleted, *values)
            for identity, (key, time_us, deleted, values) in rows
            if (keys is None or key in keys) and time_us <= TIME_US + time
        )
        assert self._run(self._scanned(self._clients[client], keys, TIME_US + time)) == expected

    async def _scanned(
        self, store: HistoryStore, keys: list[tuple[Plain, ...]] | None, until_us: int
    ) -> list[tuple[Any, ...]]:
        columns = ("a", "b", "_event_time", "_source", "_sequence", "_deleted", "n")
        async with store.cut() as cut:
            scan = cut.scan(self._group, ["n"], keys=keys, max_event_time_us=until_us, batch_rows=2)
            return [tuple(row[name] for name in columns) async for table in scan for row in table.to_pylist()]

    @invariant()
    def equal(self) -> None:
        """Sources, positions and rows are the model's."""
        store, model = self._clients[0], self._model
        for source in self._run(store.sources()):
            assert source.owner == model.owners[source.name]
            assert (source.next_sequence, source.online_sequence) == model.positions[source.name]
            rows = self._run(store.rows_of_source(self._group, source.id, 0, 1 << 40))
            found = {
                (row.source_id, row.sequence): (row.key, row.event_time_us, row.deleted, row.values) for row in rows
            }
            assert found == {identity: row for identity, row in model.rows.items() if identity[0] == source.id}

    def teardown(self) -> None:
        """Close everything."""
        for client in self._clients:
            self._run(client.close())
        self._runner.close()
