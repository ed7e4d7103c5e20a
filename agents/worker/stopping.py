"""Waits that end when the worker is asked to stop."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from oomstream.stores.settings import Settings
from oomstream.streams.backoff import Backoff


class Stopped(Exception):
    """The worker was asked to stop while it waited for what it needs to start; there is nothing to drain."""


async def sleep_until(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but not longer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def starting_backoff(settings: Settings, stop: asyncio.Event) -> Backoff:
    """The backoff of a worker that starts; its waits raise `Stopped` when `stop` is set."""

    async def sleep(seconds: float) -> None:
        await sleep_until(stop, seconds)
        if stop.is_set():
            raise Stopped

    return Backoff(settings.outage_budget_us / 1e6, where="worker", sleep=sleep)
