"""Pushes that come at the same time go in together, and each is answered for itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from oomstream.agents.serve import local_pushes
from oomstream.agents.serve.local_pushes import LocalPushes
from oomstream.agents.serve.write_stores import WriteStores
from oomstream.schemas.errors import InvalidEvent, StoreUnavailable, UnknownGroup
from oomstream.stores.base import Source
from oomstream.stores.opening import open_stores
from oomstream.stores.settings import load_settings
from tests.integration.agent_groups import CLICKS, DEVICES
from tests.integration.backends import prepare_async


@asynccontextmanager
async def pushing(folder: Path, **more: Any) -> AsyncIterator[LocalPushes]:
    """Pushes into embedded stores that hold two groups."""
    stores = WriteStores(load_settings(data_dir=folder, **more))
    await prepare_async(stores.settings, [CLICKS, DEVICES])
    pushes = LocalPushes(stores)
    try:
        yield pushes
    finally:
        await pushes.close()
        await stores.close()


async def left_behind(folder: Path) -> tuple[list[Source], dict[str, list[Any]]]:
    """Sources, and numbers of each user in the order of their sequence."""
    async with open_stores(load_settings(data_dir=folder)) as (history, _):
        sources = await history.sources()
        group = (await history.load_catalog()).group("clicks")
        place = [each.name for each in group.features].index("number")
        found: dict[str, list[Any]] = {}
        for source in sources:
            for row in await history.rows_of_source(group, source.id, 0, 1 << 40):
                found.setdefault(str(row.key[0]), []).append(row.values[place])
        return sources, found


def click(user: str, number: Any) -> dict[str, Any]:
    """An event of `clicks`."""
    return {"user": user, "number": number}


def test_many_at_once_keep_their_order(tmp_path: Path) -> None:
    """300 pushes of two groups through one writer: all there, each entity's in the order in which they came."""

    async def scenario() -> None:
        async with pushing(tmp_path, batch_rows=20) as pushes:
            await asyncio.gather(
                *(
                    pushes.push("devices", [{"device": at}], 10)
                    if at % 3 == 0
                    else pushes.push("clicks", [click(f"u{at % 2}", at)], 10)
                    for at in range(300)
                )
            )
        sources, found = await left_behind(tmp_path)
        assert [source.next_sequence for source in sources] == [300]
        expected = [at for at in range(300) if at % 3]
        assert found == {f"u{odd}": [at for at in expected if at % 2 == odd] for odd in (0, 1)}

    asyncio.run(scenario())


def test_only_the_wrong_one_hears_of_it(tmp_path: Path) -> None:
    """Of pushes that go in together, a wrong one is told so, and all others are written."""

    async def scenario() -> None:
        async with pushing(tmp_path) as pushes:
            results = await asyncio.gather(
                *(pushes.push("clicks", [click("a", "x" if at == 3 else at)], 10) for at in range(7)),
                pushes.push("nothing", [{}], 10),
                return_exceptions=True,
            )
            assert [type(each) for each in results] == [
                *[type(None)] * 3,
                InvalidEvent,
                *[type(None)] * 3,
                UnknownGroup,
            ]
        _, found = await left_behind(tmp_path)
        assert found == {"a": [0, 1, 2, 4, 5, 6]}

    asyncio.run(scenario())


def test_a_caller_that_leaves_takes_nobody_along(tmp_path: Path) -> None:
    """A push whose caller went away may be written or not; the others are."""

    async def scenario() -> None:
        async with pushing(tmp_path) as pushes:
            tasks = [asyncio.create_task(pushes.push("clicks", [click("a", at)], 10)) for at in range(5)]
            await asyncio.sleep(0)
            tasks[2].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(results[2], asyncio.CancelledError)
            await pushes.push("clicks", [click("a", 9)], 10)
        _, found = await left_behind(tmp_path)
        assert [at for at in found["a"] if at != 2] == [0, 1, 3, 4, 9]

    asyncio.run(scenario())


def test_more_than_the_stores_take_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is bounded; the refusal says to push again later, and room comes back."""
    monkeypatch.setattr(local_pushes, "MAX_WAITING_ROWS", 3)

    async def scenario() -> None:
        async with pushing(tmp_path) as pushes:
            results = await asyncio.gather(
                *(pushes.push("clicks", [click("a", at)], 10) for at in range(6)), return_exceptions=True
            )
            assert [isinstance(each, StoreUnavailable) for each in results] == [False] * 3 + [True] * 3
            await pushes.push("clicks", [click("a", at) for at in range(3)], 10)

    asyncio.run(scenario())
