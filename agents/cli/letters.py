"""Which dead letters a verb is about: the options that say so, and where the letters are read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from oomstream.agents.cli.options import parse_time

if TYPE_CHECKING:
    from oomstream.schemas.catalog import Catalog
    from oomstream.schemas.groups import FeatureGroup
    from oomstream.streams.dead_letters import DeadLetter
    from oomstream.streams.letters import Selection

Group = Annotated[str | None, typer.Option("--group", "-g", metavar="G", help="Only of this group.")]
Reason = Annotated[str | None, typer.Option("--reason", metavar="CODE", help="Only those refused for this reason.")]
Since = Annotated[
    datetime | None,
    typer.Option(parser=parse_time, metavar="TIME", help="Only events sent at this time or later.", show_default=False),
]
Until = Annotated[
    datetime | None,
    typer.Option(parser=parse_time, metavar="TIME", help="Only events sent before this time.", show_default=False),
]


def selection(
    *,
    partition: int | None = None,
    offset: int | None = None,
    reason: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Selection:
    """What the options say."""
    from oomstream.schemas.types import us_from_time
    from oomstream.streams.letters import Selection

    times = [None if time is None else us_from_time(time) for time in (since, until)]
    return Selection(partition, offset, reason, *times)


def stream_groups(catalog: Catalog, group: str | None) -> list[FeatureGroup]:
    """The group of that name, or all groups, as far as they have a topic, in order of topic.

    Raises:
        UnknownGroup: There is none of that name.
    """
    from oomstream.schemas.groups import Category

    groups = [catalog.group(group)] if group is not None else [each.group for each in catalog.groups.values()]
    return sorted((each for each in groups if each.category is Category.STREAM), key=lambda each: each.topic)


def letters_of(topic: str) -> Iterator[DeadLetter]:
    """Dead letters of a topic, each once.

    Raises:
        InvalidSetting: There is no broker.
        StoreUnavailable: The broker does not answer.
    """
    from oomstream.agents.cli.session import settings
    from oomstream.streams.broker import need_broker
    from oomstream.streams.dlq_topic import read_dead_letters

    chosen = settings()
    return read_dead_letters(need_broker(chosen), topic, timeout_s=chosen.call_timeout_us / 1e6)


def refuse_unknown_topic(name: str) -> None:
    """Say what topics there are, if a topic is of no group.

    Raises:
        InvalidRequest: No group has a topic of that name.
    """
    from oomstream.agents.cli.session import load_catalog
    from oomstream.schemas.errors import InvalidRequest

    topics = [each.topic for each in stream_groups(asyncio.run(load_catalog()), None)]
    if name not in topics:
        raise InvalidRequest(f"no registered group has a topic named {name!r} (topics: {', '.join(topics) or 'none'})")


async def visible_letters(topic: str) -> Iterable[DeadLetter]:
    """Dead letters of a topic, each once, without those of entities that were forgotten.

    Raises:
        InvalidSetting: There is no broker, or the history store was never initialised.
        StoreUnavailable: The broker or history does not answer.
    """
    from oomstream.agents.cli.session import open_history, settings
    from oomstream.stores.catalog_cache import CatalogCache
    from oomstream.streams.letters import not_forgotten

    async with open_history(settings()) as history:
        catalog = CatalogCache(history)
        group = (await catalog.get()).by_topic(topic)
    return letters_of(topic) if group is None else not_forgotten(catalog.marks, group, letters_of(topic))
