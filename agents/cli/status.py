"""`oomstream status`: where everything stands."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from oomstream.agents.cli.options import Output
from oomstream.agents.cli.output import Listing, OutputFormat, print_listing, time_text

if TYPE_CHECKING:
    from oomstream.schemas.catalog import Catalog
    from oomstream.stores.base import Source
    from oomstream.stores.lost_records import LostRecords
    from oomstream.stores.settings import Settings
    from oomstream.streams.broker import Broker


def register(parent: typer.Typer) -> None:
    """Add this family of verbs to the command."""
    parent.command("status", rich_help_panel="Run", epilog="Example: oomstream status -o json")(status)


SHORT = 8
"""How many characters of an incarnation tables show."""

WHOLE = 255
"""More characters than an incarnation has."""

TABLES = frozenset({OutputFormat.ASCII_TABLE, OutputFormat.COLUMN})


def status(
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Also sources of topics that were made anew since, with INCARNATION.")
    ] = False,
    output: Output = OutputFormat.COLUMN,
) -> None:
    """Say how far each source is ingested.

    NEXT and ONLINE are positions in history and online. With a broker, END is the end of the log and LAG how many
    records are not in history yet; a partition without an ID was never ingested. Logs that are no more (of an embedded
    broker that ended, of a topic made anew) are left out. Records that were skipped unread
    (OOMSTREAM_ON_LOST_RANGE=skip) are told on standard error.
    """
    from oomstream.agents.cli.session import settings
    from oomstream.schemas.times import time_from_us
    from oomstream.streams.broker import find_broker

    chosen = settings()
    broker = find_broker(chosen)
    catalog, sources, lost, urls = asyncio.run(_from_history(chosen))
    if output in TABLES:
        typer.echo(f"history  {urls[0]}\nonline   {urls[1]}\nbroker   {broker.url if broker else 'none'}")
        typer.echo(f"groups   {', '.join(sorted(catalog.groups)) or 'none'}")
    logs, incarnations = _logs(broker, catalog, chosen.call_timeout_us / 1e6) if broker is not None else ({}, {})
    shown = sources if everything else live_sources(sources, incarnations)
    characters = (SHORT if output in TABLES else WHOLE) if everything else None
    print_listing(_listing(shown, logs, with_log=broker is not None, incarnation=characters), output)
    if len(shown) < len(sources) and output in TABLES:
        typer.echo(f"(sources of logs that are no more: {len(sources) - len(shown)}, see --all)", err=True)
    names = {source.id: f"{source.name.name}[{source.name.partition}]" for source in shown}
    for source_id, start, end, time_us in lost:
        if source_id in names and output in TABLES:
            when = time_text(time_from_us(time_us))
            typer.echo(f"{names[source_id]}: offsets {start} to {end - 1} were skipped unread at {when}", err=True)


def live_sources(sources: list[Source], incarnations: Mapping[str, str]) -> list[Source]:
    """Sources that can still go on.

    Args:
        sources: All sources by id.
        incarnations: The incarnation that the broker has, by topic; of other topics the one seen last is live.
    """
    from oomstream.schemas.versions import SourceKind

    topics = [each for each in sources if each.name.kind is SourceKind.TOPIC]
    current = {each.name.name: each.name.incarnation for each in topics} | dict(incarnations)
    dead = {each.id for each in topics if each.name.incarnation != current[each.name.name]}
    return [each for each in sources if each.id not in dead]


class _Log(NamedTuple):
    topic: str
    incarnation: str
    partition: int


async def _from_history(chosen: Settings) -> tuple[Catalog, list[Source], list[LostRecords], tuple[str, str]]:
    from oomstream.agents.cli.session import open_history
    from oomstream.stores.urls import mask_url

    async with open_history(chosen) as history:
        urls = history.url, mask_url(chosen.online)
        return await history.load_catalog(), await history.sources(), await history.lost_records(), urls


def _logs(broker: Broker, catalog: Catalog, timeout_s: float) -> tuple[dict[_Log, int], dict[str, str]]:
    """The end of every partition of the groups' topics, and the topics' incarnations."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    from oomstream.streams.topics import Incarnations, log_ends, partition_counts, topics_of

    wanted = {topic.name for topic in topics_of(each.group for each in catalog.groups.values()) if not topic.letters_of}
    counts = partition_counts(broker, timeout_s=timeout_s)
    names = sorted(wanted & counts.keys())
    # An embedded broker answers for topics too that are not made yet: their earlier logs ended with an earlier one.
    incarnations = Incarnations(broker, timeout_s=timeout_s).of(sorted(wanted) if broker.embedded else names)
    partitions = [TopicPartition(name, each) for name in names for each in range(counts[name])]
    admin = AdminClient(broker.client_config(timeout_s))
    ends = log_ends(admin, broker, partitions, timeout_s=timeout_s) if partitions else {}
    logs = {
        _Log(topic, incarnations[topic], partition): end
        for (topic, partition), end in ends.items()
        if topic in incarnations
    }
    return logs, incarnations


def _listing(sources: list[Source], logs: dict[_Log, int], *, with_log: bool, incarnation: int | None) -> Listing:
    """Sources, then logs that none of them reads.

    Args:
        sources: Which to list.
        logs: Ends of the logs that the broker has.
        with_log: Whether there is a broker.
        incarnation: How many characters of the incarnation to show; None = no such column.
    """
    from oomstream.agents.cli.get import sources_listing

    listing = sources_listing(sources, wide=False)
    columns, rows = list(listing.columns), [list(row) for row in listing.rows]
    incarnations = [each.name.incarnation for each in sources]
    if with_log:
        columns[-1:] = ["END", "LAG", columns[-1]]
        for source, row in zip(sources, rows, strict=True):
            end = logs.pop(_Log(source.name.name, source.name.incarnation, source.name.partition), None)
            lag = None if end is None else max(end - source.next_sequence, 0)
            row[-1:] = [end, lag, row[-1]]
        for log, end in sorted(logs.items()):
            rows.append([None, "topic", log.topic, log.partition, None, None, end, end, None])
            incarnations.append(log.incarnation)
    if incarnation is not None:
        columns.append("INCARNATION")
        rows = [[*row, name[:incarnation]] for row, name in zip(rows, incarnations, strict=True)]
    return Listing(columns, rows)
