"""`oomstream dev`: the embedded broker and a worker on embedded stores, in one process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from oomstream.agents.broker import EmbeddedBroker
from oomstream.agents.worker import worker_main
from oomstream.schemas.catalog import Catalog
from oomstream.schemas.groups import FeatureGroup
from oomstream.stores.opening import open_stores
from oomstream.stores.settings import Settings
from oomstream.stores.urls import mask_url

WIDTH = 76


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
        InvalidSetting: The online store was lost; names the verbs that fill it again.
        StoreUnavailable: A store cannot be opened.
    """
    catalog = asyncio.run(_ready_stores(settings))
    if not debug:
        _log_for_people()
    with EmbeddedBroker(settings.data_dir) as broker:
        for line in banner(settings, broker.url, catalog):
            say(line)
        return worker_main(settings, broker=broker.broker, debug=debug)


def _log_for_people() -> None:
    """Short lines, and nothing of Faust's services starting and stopping."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    # Faust's service library writes these through the logger of the class's own module.
    handler.addFilter(lambda record: not record.getMessage().startswith("[^"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


async def _ready_stores(settings: Settings) -> Catalog:
    async with open_stores(settings) as (history, _):
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
    group = min(groups, key=lambda each: (len(_required(each)), each.id))
    key = ",".join(f"{each.name}=…" for each in group.keys)
    values = _required(group) or [each.name for each in group.features[:1]]
    # A definition that an older version took may have no feature: then there is nothing to read.
    features = ",".join(f"{group.name}.{each.name}" for each in group.features[:2])
    push = [f"oomstream push -g {group.name} -k {key}", *(f"--feature {name}=…" for name in values)]
    return [
        *_wrapped(push),
        *([f"oomstream get online -k {key} --feature {features}"] if features else []),
        "oomstream status",
    ]


def _required(group: FeatureGroup) -> list[str]:
    return [each.name for each in group.features if not each.has_default]


def _wrapped(parts: Sequence[str]) -> list[str]:
    """One command over as many lines as it needs to fit a narrow terminal."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) + 3 > WIDTH:
            lines[-1] += " \\"
            lines.append(f"    {part}")
        else:
            lines[-1] += f" {part}"
    return lines
