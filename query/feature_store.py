"""The feature store as users see it, for code that awaits."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from oomstream.query.definitions import Definitions
from oomstream.query.online import EntityRows, OnlineResponse, lasting
from oomstream.query.online_plan import CopyIsGone, OnlinePlan, UnknownDefinition
from oomstream.query.refreshing import Refresher
from oomstream.schemas.errors import (
    Fatal,
    InvalidRequest,
    InvalidSetting,
    OomstreamError,
    StoreUnavailable,
    UnknownFeature,
)
from oomstream.stores.base import HistoryStore, OnlineRead, OnlineStore
from oomstream.stores.catalog_cache import CatalogCache
from oomstream.stores.opening import check_pairing, history_store, online_store
from oomstream.stores.rebuild import finish_pushes
from oomstream.stores.settings import METADATA_MAX_AGE_US, Settings, load_settings

if TYPE_CHECKING:
    import pyarrow as pa

    from oomstream.query.export import ExportRequest
    from oomstream.query.training_set import TrainingSet

_log = logging.getLogger(__name__)

ReadSync = Callable[[Sequence[bytes]], list[bytes | None]]
"""Reads stored values without an event loop, one per key in the order asked."""

Clock = Callable[[], float]
"""Wall clock, seconds since 1970-01-01 UTC."""

_READS = 5
"""How often a request is read before a copy that the metadata names counts as lost: syncs may follow each other."""


class AsyncFeatureStore:
    """Online values and training sets, awaited; for one event loop, any number of tasks.

    Use it as ``async with AsyncFeatureStore.open() as store:``, or ``store = await AsyncFeatureStore.open()`` and
    ``await store.close()``.
    """

    def __init__(
        self,
        online: OnlineStore,
        history: HistoryStore,
        *,
        clock: Clock = time.time,
        max_age_s: float = METADATA_MAX_AGE_US / 1e6,
    ) -> None:
        """Put the feature store together; `open` does it from URLs.

        Args:
            online: Online store, not opened.
            history: History store that belongs to it, not opened.
            clock: Decides which online values are older than their ttl.
            max_age_s: How long after a `sync` a revision of before may still be read (setting `metadata_max_age`).
        """
        self._online = online
        self._history = history
        self._clock = clock
        self._definitions = Definitions(CatalogCache(history))
        self._refresher = Refresher(self._definitions, max_age_s)
        self._is_open = False

    @classmethod
    def open(
        cls,
        online_url: str | None = None,
        history_url: str | None = None,
        *,
        settings: Settings | None = None,
        clock: Clock = time.time,
    ) -> Self:
        """Choose the stores; they are connected on ``async with`` or ``await``.

        Args:
            online_url: URL of the online store; default: OOMSTREAM_ONLINE_URL, else SQLite in the data folder.
            history_url: URL of the history database; default: OOMSTREAM_HISTORY_URL, else SQLite in the data folder.
            settings: Settings to use in place of the environment's.
            clock: Decides which online values are older than their ttl.

        Raises:
            InvalidSetting: A URL or a setting is wrong; names it.
        """
        chosen = settings or load_settings()
        online = online_store(online_url or chosen.online, chosen)
        history = history_store(history_url or chosen.history, chosen)
        return cls(online, history, clock=clock, max_age_s=chosen.metadata_max_age_us / 1e6)

    async def connect(self) -> Self:
        """Open both stores, make sure that they belong together, and finish what a killed writer left undone.

        Raises:
            StoreUnavailable: A store cannot be reached.
            InvalidSetting: A store was never initialised.
            PairingMismatch: The stores belong to different partners.
        """
        try:
            await self._history.open()
            await self._online.open()
            await check_pairing(self._history, self._online)
            await self._definitions.reload()
            await self._finish_pushes()
        except BaseException:
            await self.close()
            raise
        self._is_open = True
        return self

    async def close(self) -> None:
        """Give back every connection; harmless when called twice."""
        self._is_open = False
        await self._refresher.close()
        try:
            await self._online.close()
        finally:
            await self._history.close()

    async def ping(self) -> None:
        """Make sure that the online store answers.

        Raises:
            StoreUnavailable: It does not; names it.
        """
        await self._online.pairing_id()

    async def refresh(self) -> None:
        """Read definitions, and which revisions of batch groups are online, anew at once instead of in their time.

        Raises:
            StoreUnavailable: History cannot be read; what was known stays in use.
        """
        await self._definitions.reload()

    def __await__(self) -> Generator[Any, None, Self]:
        return self.connect().__await__()

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def get_online_features(self, features: Sequence[str], entity_rows: EntityRows) -> OnlineResponse:
        """Newest values of entities; one read of the online store, whatever the number of groups and rows.

        Args:
            features: Full names, ``group.feature``.
            entity_rows: A dict of key columns per row (or a dict of lists, a pandas or polars DataFrame, an Arrow
                table). A key column is named after the key, or ``entity.key`` where two entities call their keys
                alike. A row with a null key is NOT_FOUND.

        Returns:
            One row per entity row, in their order, duplicates kept.

        Raises:
            UnknownFeature: A feature is not registered; names it.
            InvalidKey: A key column is missing or holds a wrong value; names row and column.
            InvalidRequest: The rows are no rows, or this feature store is not open.
            StoreUnavailable: The online store cannot be read; names it.
        """
        self._check_open()
        entity_rows = lasting(entity_rows)
        names = _names(features)
        plan = await self._fresh_plan(names)
        known = True
        for attempt in range(_READS):
            request = plan.request(entity_rows)
            now_us = self._now_us()
            # What is a little older may be of before its copy was whole: the second time the store's answer is of now.
            read = self._online.read_aged if attempt == 0 else self._read_now
            stored, age_us = await read(request.stored_keys) if request.stored_keys else OnlineRead([])
            try:
                answer = plan.answer(request, stored, now_us)
            except CopyIsGone:
                pass
            except UnknownDefinition as exc:
                if not known:
                    raise Fatal(f"online store {self._online.url}: {exc} in {self._history.url}") from exc
                known = False
            else:
                answer.age_us = age_us
                return answer
            plan = (await self._definitions.reload()).plan(names)
        raise StoreUnavailable(
            f"online store {self._online.url} does not hold the revision that history {self._history.url} says is "
            "online: run `oomstream sync` for the batch groups asked for"
        )

    async def _read_now(self, keys: Sequence[bytes]) -> OnlineRead:
        return OnlineRead(await self._online.read(keys))

    async def get_historical_features(
        self,
        entity_df: Any,
        features: Sequence[str],
        *,
        timestamp_column: str | None = None,
        as_of: datetime | str | int | None = None,
        available: bool = False,
    ) -> TrainingSet:
        """Training set: for each label row the values that were the newest at its time.

        For each row and group, the row of greatest version with event time <= label time wins; null if there is none,
        if it is a delete, or if it is older than the group's ttl (exactly the ttl is still valid).

        Args:
            entity_df: Label rows: pandas or polars DataFrame, Arrow table, list of dicts, or the path of a .csv,
                .parquet, .arrow or .feather file. They hold the key columns (by the key's name or ``entity.key``) and
                the label time: ``event_timestamp`` (datetime, date or ISO text; naive = UTC) or ``unix_milli``
                (integer milliseconds).
            features: Full names, ``group.feature``.
            timestamp_column: Name of the label time column, if it is neither of these.
            as_of: Only use rows that had been ingested by then: the set as it was. A datetime (naive = UTC), RFC 3339
                text or integer microseconds.
            available: Only use rows that had been ingested by the label time.

        Returns:
            The label rows, same number, order, columns and types, with one column per feature.

        Raises:
            UnknownFeature: A feature is not registered; names it.
            InvalidLabels: A column is missing or holds a wrong value; names column and row.
            InvalidTime: `as_of` cannot be read or is so recent that rows may still be added.
            InvalidRequest: This feature store is not open.
            StoreUnavailable: History cannot be read; names it.
        """
        self._check_open()
        from oomstream.query.training import TrainingRequest, build_training_set, time_us_of

        # Read anew for each call, which is long against it: so a changed ttl counts at once.
        catalog = await self._history.load_catalog()
        request = TrainingRequest(
            catalog.features(_names(features)),
            timestamp_column,
            as_of_us=time_us_of(as_of, "as_of"),
            available=available,
        )
        return await build_training_set(self._history, entity_df, request)

    async def export(
        self,
        features: Sequence[str],
        *,
        at: datetime | str | int | None = None,
        limit: int | None = None,
    ) -> TrainingSet:
        """The newest valid values of every entity at one moment, in order of the entity key.

        Args:
            features: Full names, ``group.feature``, of groups of one entity.
            at: The moment: a datetime (naive = UTC), RFC 3339 text or integer microseconds; None = now.
            limit: At most so many entities, the first ones in order of their key; None = all.

        Returns:
            The key fields, then one column per feature. An entity is there if one of the groups has a valid row of it
            (no delete, not older than the group's ttl); features of groups that have none are null.

        Raises:
            UnknownFeature: A feature is not registered; names it.
            InvalidRequest: The features are of several entities, `limit` is negative, or this feature store is not
                open.
            InvalidTime: `at` cannot be read.
            StoreUnavailable: History cannot be read; names it.
        """
        from oomstream.query.export import collected

        request = await self._export_request(features, at, limit)
        async with self._history.cut() as cut:
            return await collected(cut, request)

    async def export_tables(
        self,
        features: Sequence[str],
        *,
        at: datetime | str | int | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[pa.Table, None]:
        """`export` in pieces, for results that are better not in memory whole.

        Who stops before the last piece closes it (`contextlib.aclosing`), so that history is let go at once.

        Args:
            features: As in `export`.
            at: As in `export`.
            limit: As in `export`.

        Yields:
            Arrow tables of the same columns, in order of the entity key over all of them; at least one, which is empty
            if there is no entity.

        Raises:
            OomstreamError: As `export` does.
        """
        from oomstream.query.export import export_tables

        request = await self._export_request(features, at, limit)
        async with self._history.cut() as cut, aclosing(export_tables(cut, request)) as tables:
            async for table in tables:
                yield table

    async def _export_request(
        self, features: Sequence[str], at: datetime | str | int | None, limit: int | None
    ) -> ExportRequest:
        self._check_open()
        from oomstream.query.export import ExportRequest
        from oomstream.query.training import time_us_of

        catalog = await self._history.load_catalog()
        return ExportRequest(tuple(catalog.features(_names(features))), time_us_of(at, "at"), limit)

    def read_sync(self) -> ReadSync | None:
        """How the open online store is read without an event loop, from any thread; None if it cannot be."""
        read: ReadSync | None = getattr(self._online, "read_sync", None)
        try:
            if read is not None:
                read([])
        except InvalidSetting:
            return None
        return read

    def answer_at_once(
        self,
        features: Sequence[str],
        entity_rows: EntityRows,
        read: ReadSync,
        in_loop: Callable[[Callable[[], None]], None],
    ) -> OnlineResponse | None:
        """`get_online_features` for a caller in another thread, who need not wait for the event loop's turn.

        Args:
            features: Full names.
            entity_rows: Rows of keys.
            read: What `read_sync` gave.
            in_loop: Has a function called in the store's event loop, without waiting.

        Returns:
            The response; None if the catalog must be read anew first, which takes the event loop.
        """
        try:
            plan = self._definitions.snapshot.plan(_names(features))
        except UnknownFeature:
            return None
        if plan.reads_copies and self._refresher.is_late:
            return None
        if self._refresher.is_due(copies=plan.reads_copies):
            in_loop(self._refresher.begin)
        request = plan.request(entity_rows)
        now_us = self._now_us()
        try:
            return plan.answer(request, read(request.stored_keys) if request.stored_keys else [], now_us)
        except (UnknownDefinition, CopyIsGone):
            return None

    def _check_open(self) -> None:
        if not self._is_open:
            raise InvalidRequest(
                "this AsyncFeatureStore is not open: use it inside `async with`, or `await` it first, and not after "
                "close()"
            )

    async def _fresh_plan(self, names: tuple[str, ...]) -> OnlinePlan:
        plan = await self._plan(names)
        if plan.reads_copies and self._refresher.is_late:
            await self._refresher.wait()
            return await self._plan(names)
        if self._refresher.is_due(copies=plan.reads_copies):
            self._refresher.begin()
        return plan

    async def _plan(self, names: tuple[str, ...]) -> OnlinePlan:
        try:
            return self._definitions.snapshot.plan(names)
        except UnknownFeature:
            return (await self._definitions.reload()).plan(names)

    async def _finish_pushes(self) -> None:
        try:
            await finish_pushes(self._history, self._online)
        except OomstreamError as exc:
            # A reader may lack the right to change rows (SQLite only asks that of its folder's files); the next to open
            # the stores does it.
            _log.info("pushes that a killed writer left were not finished: %s", exc)

    def _now_us(self) -> int:
        return round(self._clock() * 1_000_000)


def _names(features: Sequence[str]) -> tuple[str, ...]:
    if isinstance(features, str):
        raise InvalidRequest(f"features is the text {features[:80]!r}; pass a list of full names")
    return tuple(features)
