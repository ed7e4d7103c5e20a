"""Events that clients push: to the broker where there is one, else into the stores."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from oomstream.agents.serve.local_pushes import LocalPushes, Row
from oomstream.agents.serve.produced_pushes import ProducedPushes
from oomstream.agents.serve.write_stores import WriteStores
from oomstream.schemas.errors import InvalidRequest
from oomstream.schemas.groups import Category, FeatureGroup
from oomstream.streams.broker import find_broker


class Pushes:
    """Writes events and returns when they can be read; for any number of tasks at once.

    Args:
        stores: Where to write.
    """

    def __init__(self, stores: WriteStores) -> None:
        self._stores = stores
        self._local = LocalPushes(stores)
        self._produced: ProducedPushes | None = None
        self._lock = asyncio.Lock()

    async def push(self, group: FeatureGroup, rows: Sequence[Row], num_bytes: int) -> None:
        """Write events of one group, in their order, up to `Settings.batch_rows` at a time.

        Args:
            group: Their group.
            rows: One mapping of python values per event; one without an event time is of now.
            num_bytes: How large they are, about.

        Raises:
            InvalidEvent: A value is wrong; names the field.
            InvalidRequest: It is a batch group, or an event as a whole is not acceptable.
            StoreUnavailable: The broker or a store is down; the events may be there all the same.
            TimeoutError: They are in their topic, but no worker has ingested them in time.
        """
        if group.category is not Category.STREAM:
            raise InvalidRequest(f"group {group.name!r} is a batch group: import a file instead of pushing events")
        if not rows:
            return
        produced = await self._way()
        size = self._stores.settings.batch_rows
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            if produced is not None:
                await produced.push(group.name, part)
            else:
                await self._local.push(group.name, part, num_bytes * len(part) // len(rows))

    async def _way(self) -> ProducedPushes | None:
        """How events are produced; None without a broker. An embedded one comes and goes, and has another port then."""
        async with self._lock:
            broker = await asyncio.to_thread(find_broker, self._stores.settings)
            if self._produced is not None and self._produced.broker != broker:
                await self._produced.close()
                self._produced = None
            if broker is not None and self._produced is None:
                self._produced = await asyncio.to_thread(ProducedPushes, self._stores, broker)
            return self._produced

    async def close(self) -> None:
        """Write what waits, and give everything back."""
        if self._produced is not None:
            await self._produced.close()
        await self._local.close()
