"""`oomstream status`: where everything stands."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from oomstream.agents.cli.options import Output
from oomstream.agents.cli.output import Listing, OutputFormat, print_listing

if TYPE_CHECKING:
    from oomstream.schemas.catalog import Catalog
    from oomstream.stores.base import Source
    from oomstream.stores.settings import Settings
    from oomstream.streams.broker import Broker


def register(parent: typer.Typer) -> None:
    """Add this family of verbs to the command."""
    parent.command("status", rich_help_panel="Run", epilog="Example: oomstream status -o json")(status)


def status(output: Output = OutputFormat.COLUMN) -> None:
    """Say how far each source is ingested.

    NEXT and ONLINE are positions in history and online. With a broker, END is the end of the log and LAG how many
    records are not in history yet; a partition without an ID was never ingested.
    """
    from oomstream.agents.cli.session import settings
    from oomstream.streams.broker import find_broker

    chosen = settings()
    broker = find_broker(chosen)
    catalog, sources, urls = asyncio.run(_from_history(chosen))
    if output in {OutputFormat.ASCII_TABLE, OutputFormat.COLUMN}:
        typer.echo(f"history  {urls[0]}\nonline   {urls[1]}\nbroker   {broker.url if broker else 'none'}")
        typer.echo(f"groups   {', '.join(sorted(catalog.groups)) or 'none'}")
    logs = _logs(broker, catalog, chosen.call_timeout_us / 1e6) if broker is not None else {}
    print_listing(_listing(sources, logs, with_log=broker is not None), output)


class _Log(NamedTuple):
    topic: str
    incarnation: str
    partition: int


async def _from_history(chosen: Settings) -> tuple[Catalog, list[Source], tuple[str, str]]:
    from oomstream.agents.cli.session import open_history
    from oomstream.stores.urls import mask_url

    async with open_history(chosen) as history:
        return await history.load_catalog(), await history.sources(), (history.url, mask_url(chosen.online))


def _logs(broker: Broker, catalog: Catalog, timeout_s: float) -> dict[_Log, int]:
    """The end of every partition of the groups' topics."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    from oomstream.streams.topics import Incarnations, log_ends, partition_counts, topics_of

    wanted = {topic.name for topic in topics_of(each.group for each in catalog.groups.values()) if not topic.letters_of}
    counts = partition_counts(broker, timeout_s=timeout_s)
    names = sorted(wanted & counts.keys())
    incarnations = Incarnations(broker, timeout_s=timeout_s).of(names)
    partitions = [TopicPartition(name, each) for name in names for each in range(counts[name])]
    admin = AdminClient(broker.client_config(timeout_s))
    ends = log_ends(admin, broker, partitions, timeout_s=timeout_s) if partitions else {}
    return {
        _Log(topic, incarnations[topic], partition): end
        for (topic, partition), end in ends.items()
        if topic in incarnations
    }


def _listing(sources: list[Source], logs: dict[_Log, int], *, with_log: bool) -> Listing:
    from oomstream.agents.cli.get import sources_listing

    listing = sources_listing(sources, wide=False)
    if not with_log:
        return listing
    rows: list[list[Any]] = []
    for source, row in zip(sources, listing.rows, strict=True):
        end = logs.pop(_Log(source.name.name, source.name.incarnation, source.name.partition), None)
        lag = None if end is None else max(end - source.next_sequence, 0)
        rows.append([*row[:-1], end, lag, row[-1]])
    for log, end in sorted(logs.items()):
        rows.append([None, "topic", log.topic, log.partition, None, None, end, end, None])
    return Listing([*listing.columns[:-1], "END", "LAG", listing.columns[-1]], rows)
