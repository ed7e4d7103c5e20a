"""One worker of all lets the online store forget, and an outage of it is nobody's trouble."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomstream.agents.worker.tidying import EVERY_S, OLDER_THAN_S, tidy
from oomstream.schemas.errors import StoreUnavailable
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.online import SqlOnlineStore


def test_only_the_elected_worker_tidies(tmp_path: Path) -> None:
    """Whoever is elected at the time tidies; a store that is down is tried again the next time."""
    turns: Iterator[bool] = iter([False, True, True, False, True])
    calls: list[float] = []

    class Store(SqlOnlineStore):
        async def gc(self, older_than_s: float = 600.0) -> bool:
            calls.append(older_than_s)
            if len(calls) == 1:
                raise StoreUnavailable("down")
            return True

    async def sleep(seconds: float) -> None:
        assert seconds == EVERY_S
        await asyncio.sleep(0)

    async def scenario() -> None:
        settings = load_settings(data_dir=tmp_path)
        await tidy(Store(settings.online, settings), lambda: next(turns), sleep=sleep)

    with pytest.raises(RuntimeError, match="StopIteration"):  # the turns have come to their end
        asyncio.run(scenario())
    assert calls == [OLDER_THAN_S] * 3
