"""The feature store as users see it, for code that does not await: scripts, notebooks, threads."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from oomstream.query.feature_store import AsyncFeatureStore, Clock
from oomstream.query.online import EntityRows, OnlineResponse, lasting
from oomstream.schemas.errors import InvalidRequest, OomstreamError
from oomstream.stores.settings import Settings

if TYPE_CHECKING:
    from oomstream.query.training_set import TrainingSet

Result = TypeVar("Result")

_CLOSED = "this FeatureStore is closed"


class _LoopThread:
    """An event loop in a thread of its own, so that it makes no difference whether the caller has one running."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="oomstream-query", daemon=True)
        self._ending = False
        # Whatever is handed to the loop is handed over under it, so that nothing comes after the end.
        self._handing = threading.RLock()
        self._thread.start()

    def _run_loop(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine there and wait for it; Ctrl-C in the waiting thread cancels it.

        Raises:
            InvalidRequest: The thread ended before the coroutine did.
        """
        with self._handing:
            if self._ending:
                work.close()
                raise InvalidRequest(_CLOSED)
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise
        except CancelledError as exc:
            raise InvalidRequest(_CLOSED) from exc

    def call_soon(self, call: Callable[[], None]) -> None:
        """Have a function called there, without waiting; not at all once the thread ends."""
        with self._handing:
            if not self._ending:
                self._loop.call_soon_threadsafe(call)

    def end(self, last: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Cancel what still runs there, run one last coroutine, and end loop and thread; once.

        Calls that wait for what was cancelled raise InvalidRequest.
        """
        with self._handing:
            self._ending = True
            future = asyncio.run_coroutine_threadsafe(self._finish(last), self._loop)
        if threading.current_thread() is self._thread:
            return  # the garbage collector came upon the store in the loop's own thread, which cannot wait for itself
        self._thread.join()
        future.result()

    async def _finish(self, last: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
        try:
            running = asyncio.all_tasks() - {task for task in (asyncio.current_task(),) if task is not None}
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            if last is not None:
                await last()
        finally:
            # Two turns later: this task's own end, and what it hands to the waiting thread, come first.
            self._loop.call_soon(self._loop.call_soon, self._loop.stop)


class FeatureStore:
    """Online values and training sets; from any number of threads, with or without a running event loop.

    A process that forks (gunicorn's preload, a data loader's workers) opens one in each child: connections do not
    survive a fork, and a store that was opened before it says so instead of answering.
    """

    def __init__(self, inner: AsyncFeatureStore) -> None:
        """Open the stores; `open` does it from URLs.

        Args:
            inner: An `AsyncFeatureStore` that is not open.
        """
        self._inner = inner
        self._process = os.getpid()
        self._thread = _LoopThread()
        try:
            self._thread.run(inner.connect())
        except BaseException:
            self._thread.end()
            raise
        self._close = weakref.finalize(self, _shut_down, inner, self._thread, self._process)
        self._read_sync = inner.read_sync()

    @classmethod
    def open(
        cls,
        online_url: str | None = None,
        history_url: str | None = None,
        *,
        settings: Settings | None = None,
        clock: Clock = time.time,
    ) -> Self:
        """Open both stores, make sure that they belong together, and finish what a killed writer left undone.

        Args:
            online_url: URL of the online store; default: OOMSTREAM_ONLINE_URL, else SQLite in the data folder.
            history_url: URL of the history database; default: OOMSTREAM_HISTORY_URL, else SQLite in the data folder.
            settings: Settings to use in place of the environment's.
            clock: Decides which online values are older than their ttl.

        Raises:
            InvalidSetting: A URL or a setting is wrong, or a store was never initialised; names it.
            StoreUnavailable: A store cannot be reached.
            PairingMismatch: The stores belong to different partners.
        """
        return cls(AsyncFeatureStore.open(online_url, history_url, settings=settings, clock=clock))

    def close(self) -> None:
        """Give back every connection; harmless when called twice."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get_online_features(self, features: Sequence[str], entity_rows: EntityRows) -> OnlineResponse:
        """See `AsyncFeatureStore.get_online_features`."""
        self._check_usable()
        entity_rows = lasting(entity_rows)
        if self._read_sync is None:
            return self._thread.run(self._inner.get_online_features(features, entity_rows))
        try:
            answer = self._inner.answer_at_once(features, entity_rows, self._read_sync, self._thread.call_soon)
        except OomstreamError:
            self._check_usable()  # of a store that was closed meanwhile no other error is told
            raise
        if answer is None:
            return self._thread.run(self._inner.get_online_features(features, entity_rows))
        return answer

    def refresh(self) -> None:
        """See `AsyncFeatureStore.refresh`."""
        self._check_usable()
        self._thread.run(self._inner.refresh())

    def get_historical_features(
        self,
        entity_df: Any,
        features: Sequence[str],
        *,
        timestamp_column: str | None = None,
        as_of: datetime | str | int | None = None,
        available: bool = False,
    ) -> TrainingSet:
        """See `AsyncFeatureStore.get_historical_features`."""
        self._check_usable()
        return self._thread.run(
            self._inner.get_historical_features(
                entity_df, features, timestamp_column=timestamp_column, as_of=as_of, available=available
            )
        )

    def export(
        self,
        features: Sequence[str],
        *,
        at: datetime | str | int | None = None,
        limit: int | None = None,
    ) -> TrainingSet:
        """See `AsyncFeatureStore.export`."""
        self._check_usable()
        return self._thread.run(self._inner.export(features, at=at, limit=limit))

    def _check_usable(self) -> None:
        if os.getpid() != self._process:
            raise InvalidRequest("this FeatureStore was opened before the process forked: open one in the child")
        if not self._close.alive:
            raise InvalidRequest(_CLOSED)


def _shut_down(inner: AsyncFeatureStore, thread: _LoopThread, process: int) -> None:
    if os.getpid() != process:
        return  # the thread and the connections are the parent's
    thread.end(inner.close)
