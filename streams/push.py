"""Pushes with no broker: one process's events through the same pipeline, under a source of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.errors import Fenced, InvalidEvent, InvalidRequest, Reason
from oomstream.schemas.events import RawRecord
from oomstream.schemas.framing import EVENT_TIME_HEADER, frame, tombstone_key
from oomstream.schemas.groups import Category
from oomstream.schemas.keys import key_from_python
from oomstream.schemas.types import us_from_time
from oomstream.stores.base import HistoryStore, OnlineStore
from oomstream.stores.catalog_cache import CatalogCache
from oomstream.stores.rebuild import finish_pushes
from oomstream.stores.settings import Settings
from oomstream.streams.dead_letters import DeadLetter, DeadLetterSink
from oomstream.streams.ingest import SourceIngest

LEASE_S = 60.0


class _RaiseToCaller(DeadLetterSink):
    """A caller who waits for the answer is told at once instead of by a dead letter."""

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        raise InvalidRequest(letters[0].message)


class LocalWriter:
    """Writes events without a broker; each call returns when the value can be read.

    The writer leases a push source of its own, and takes back one that a killed or closed writer left.
    For one task at a time.

    Args:
        history: Open history store.
        online: Open online store, paired with it.
        settings: Limits and budgets.
        clock: Wall clock, seconds since 1970-01-01 UTC.
    """

    def __init__(
        self,
        history: HistoryStore,
        online: OnlineStore,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._history = history
        self._online = online
        self._settings = settings
        self._clock = clock
        self._catalog = CatalogCache(history)
        self._ingest: SourceIngest | None = None
        self._renew_at = 0.0

    async def __aenter__(self) -> Self:
        await finish_pushes(self._history, self._online)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Store the position of online rows and give the source back."""
        if self._ingest is not None:
            await self._ingest.flush()
            with suppress(Fenced):  # somebody took it over after our lease ran out: nothing to give back
                await self._history.renew_lease(self._ingest.source, 0)
        self._ingest = None

    async def push(self, group: str, values: Mapping[str, Any]) -> tuple[int, int]:
        """Write one event.

        Args:
            group: Name of the feature group.
            values: Every key field, the event-time field (a datetime; missing = now) and features, in python form.

        Returns:
            Its identity: source id and sequence.

        Raises:
            UnknownGroup: No such group.
            InvalidEvent: A value is wrong; names the field.
            InvalidRequest: The event as a whole is not acceptable (for example, its time lies in the future).
        """
        source, first = await self.push_rows(group, [values])
        return source, first

    async def push_rows(self, group: str, rows: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
        """Write several events of a group at once: all of them, or none.

        Args:
            group: Name of the feature group.
            rows: At least one, as in `push`; bounded by the caller.

        Returns:
            Source id, and the sequence of the first; the others follow it.

        Raises:
            OomstreamError: As `push` does. Nothing was written, except where a store stayed down (`Fatal`: anything may
                have been) or the database itself rejected a row (those before it were).
        """
        now_us = self._now_us()
        registered = await self._registered(group)
        try:
            events = self._events(registered, rows, now_us)
        except InvalidEvent as exc:
            if exc.reason is not Reason.UNKNOWN_FIELD:
                raise
            # Perhaps a feature that is newer than what is known of the catalog.
            await self._catalog.reload()
            events = self._events(await self._registered(group), rows, now_us)
        return await self._write(group, events)

    async def delete(self, group: str, key: Sequence[Any], event_time: datetime | None = None) -> tuple[int, int]:
        """Delete an entity from a group as of a time (None = now).

        Raises:
            UnknownGroup: No such group.
            InvalidKey: The key is wrong; names the part.
        """
        fields = (await self._registered(group)).group.keys
        plain = key_from_python(key, fields, where=f"delete of {group}")
        now_us = self._now_us()
        time_us = us_from_time(event_time) if event_time else now_us
        headers = ((EVENT_TIME_HEADER, str(time_us).encode()),)
        return await self._write(group, [RawRecord(0, tombstone_key(plain, fields), None, now_us // 1000, headers)])

    def _now_us(self) -> int:
        return int(self._clock() * 1_000_000)

    async def _registered(self, group: str) -> RegisteredGroup:
        catalog = await self._catalog.get()
        if group not in catalog.groups:
            catalog = await self._catalog.reload()
        if catalog.group(group).category is not Category.STREAM:
            raise InvalidRequest(f"group {group!r} is a batch group: import a file instead of pushing events")
        return catalog.groups[group]

    def _events(self, registered: RegisteredGroup, rows: Sequence[Mapping[str, Any]], now_us: int) -> list[RawRecord]:
        codec = BodyCodec(registered)
        return [self._event(codec, values, now_us) for values in rows]

    @staticmethod
    def _event(codec: BodyCodec, values: Mapping[str, Any], now_us: int) -> RawRecord:
        group = codec.group
        if group.event_time_field.name not in values:
            values = {**values, group.event_time_field.name: now_us // group.event_time_field.unit.microseconds}
        encoded = codec.encode_python(values)
        return RawRecord(0, None, frame(group.fingerprint, encoded.body), now_us // 1000)

    async def _write(self, group: str, records: Sequence[RawRecord]) -> tuple[int, int]:
        while True:
            ingest = await self._leased()
            sequence = ingest.next_offset
            try:
                await ingest.ingest([each._replace(offset=sequence + at) for at, each in enumerate(records)], group)
            except Fenced:
                # Our lease ran out and another writer has the source: nothing was written; take another one.
                self._ingest = None
            except InvalidRequest:
                raise
            except BaseException:
                # How far it came is not known, so neither is the next sequence: go on under another source. Whoever
                # opens the stores when our lease is over finishes this one.
                self._ingest = None
                raise
            else:
                return ingest.source.id, sequence

    async def _leased(self) -> SourceIngest:
        now_s = time.monotonic()
        if self._ingest is not None and now_s >= self._renew_at:
            try:
                await self._history.renew_lease(self._ingest.source, LEASE_S)
            except Fenced:
                self._ingest = None
        if self._ingest is None:
            source = await self._history.lease_push_source(LEASE_S)
            ingest = SourceIngest(
                history=self._history,
                online=self._online,
                catalog=self._catalog,
                dead_letters=_RaiseToCaller(),
                name=source.name,
                settings=self._settings,
            )
            await ingest.adopt(source)
            self._ingest = ingest
        if now_s >= self._renew_at:
            self._renew_at = now_s + LEASE_S / 2
        return self._ingest
