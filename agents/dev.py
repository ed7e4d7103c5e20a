"""`oomstream dev`: the embedded broker and a worker on embedded stores, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from oomstream.agents.broker import EmbeddedBroker
from oomstream.agents.worker import worker_main
from oomstream.schemas.catalog import Catalog
from oomstream.schemas.groups import FeatureGroup
from oomstream.stores.opening import history_store, init_stores, online_store
from oomstream.stores.settings import Settings
from oomstream.stores.urls import mask_url


def run_dev(settings: Settings, say: Callable[[str], None], *, debug: bool = False) -> int:
    """Run until SIGTERM or SIGINT.

    Args:
        settings: Where the stores are; a broker URL in them is not used.
        say: Prints one line for a person.
        debug: Log everything.

    Returns:
        The exit code.

    Raises:
        InvalidRequest: Another embedded broker runs on the data folder.
        StoreUnavailable: A store cannot be opened.
    """
    catalog = asyncio.run(_ready_stores(settings))
    with EmbeddedBroker(settings.data_dir) as broker:
        for line in banner(settings, broker.url, catalog):
            say(line)
        return worker_main(settings, broker=broker.broker, debug=debug)


async def _ready_stores(settings: Settings) -> Catalog:
    async with history_store(settings.history, settings) as history, online_store(settings.online, settings) as online:
        await init_stores(history, online)
        return await history.load_catalog()


def banner(settings: Settings, broker_url: str, catalog: Catalog) -> list[str]:
    """What runs, and what to type next."""
    groups = [each.group for _, each in sorted(catalog.groups.items())]
    return [
        "oomstream dev: broker, worker and stores in this process; Ctrl-C ends it",
        "",
        f"  broker   {broker_url}",
        f"  history  {mask_url(settings.history)}",
        f"  online   {mask_url(settings.online)}",
        f"  groups   {', '.join(group.name for group in groups) or 'none yet'}",
        "",
        "In another terminal, in this folder:",
        "",
        *(f"  {line}" for line in next_commands(groups)),
        "",
        "The broker forgets its events when this ends; what was ingested stays.",
        "",
    ]


def next_commands(groups: Sequence[FeatureGroup]) -> list[str]:
    """Commands that fit what is registered."""
    if not groups:
        return ["oomstream apply my_group.avsc     # see docs/schemas.md", "oomstream push --help", "oomstream status"]
    group = groups[0]
    key = f"{group.keys[0].name}=…" if len(group.keys) == 1 else ",".join(f"{each.name}=…" for each in group.keys)
    features = ",".join(f"{group.name}.{each.name}" for each in group.features[:2])
    values = " ".join(f"--feature {each.name}=…" for each in group.features if not each.has_default)
    return [
        f"oomstream push -g {group.name} -k {key} {values}".rstrip(),
        f"oomstream get online -k {key} --feature {features}",
        "oomstream status",
    ]
