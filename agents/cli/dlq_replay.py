"""`oomstream dlq replay`: dead letters taken in again after a fix."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from oomstream.agents.cli.letters import Group, Reason, Since, Until, letters_of, selection, stream_groups
from oomstream.agents.cli.options import Output
from oomstream.agents.cli.output import Listing, OutputFormat, counted, print_listing, spinner
from oomstream.schemas.errors import InvalidRequest

if TYPE_CHECKING:
    from oomstream.schemas.catalog import Catalog
    from oomstream.schemas.groups import FeatureGroup
    from oomstream.stores.catalog_cache import CatalogCache
    from oomstream.stores.settings import Settings
    from oomstream.streams.decoding import Decoding
    from oomstream.streams.letters import Selection
    from oomstream.streams.replay import ReplayCounts

COLUMNS = ["TOPIC", "LETTERS", "REPLAYED", "PRESENT", "REFUSED", "WAITING", "REASONS"]
_NAMED = 5


def replay(
    topic: Annotated[
        str | None, typer.Argument(help="Only of this topic, then partition and offset as `dlq show` takes them.")
    ] = None,
    partition: Annotated[int | None, typer.Argument(help="Only of this partition.", min=0)] = None,
    offset: Annotated[int | None, typer.Argument(help="Only this event.", min=0)] = None,
    group: Group = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    output: Output = OutputFormat.ASCII_TABLE,
) -> None:
    """Take dead letters in again that are valid by now, each as the event that it was.

    For after a fix: a definition was applied, the Schema Registry has the schema, or OOMSTREAM_MIN_EVENT_TIME or
    OOMSTREAM_MAX_FUTURE was set, here and for the workers. Safe beside workers, and again: newer values stay, and what
    is in history already (PRESENT) is left as it is. REFUSED are still invalid, for these REASONS (or stay out, as
    forgotten or before_horizon); WAITING lie ahead of their worker, which decides them.
    """
    if topic is not None and group is not None:
        raise typer.BadParameter("name a topic or a group, not both", param_hint="--group")
    meant = selection(partition=partition, offset=offset, reason=reason, since=since, until=until)
    counts = asyncio.run(_replay(topic, group, meant, dry_run))
    if offset is not None and not any(each.letters for each in counts):
        raise InvalidRequest(f"topic {topic} has no such dead letter of partition {partition}, offset {offset}")
    rows = [
        [each.topic, each.letters, each.replayed, each.present, each.refused.total(), each.waiting, _reasons(each)]
        for each in counts
    ]
    detail = [{"reasons": dict(each.refused), "unknown": each.unknown.total()} for each in counts]
    print_listing(Listing(COLUMNS, rows, detail=detail), output)
    if dry_run:
        typer.echo("(a dry run: nothing was written)", err=True)
    _refuse_unknown_sources(counts)


def _reasons(counts: ReplayCounts) -> str:
    return ", ".join(f"{number} {reason}" for reason, number in counts.refused.most_common())


def _refuse_unknown_sources(counts: Sequence[ReplayCounts]) -> None:
    unknown = [(name, number) for each in counts for name, number in sorted(each.unknown.items())]
    if unknown:
        total = counted(sum(number for _, number in unknown), "letter", "letters")
        named = "; ".join(
            f"topic {at.name} (id {at.incarnation}) partition {at.partition}" for at, _ in unknown[:_NAMED]
        )
        dots = "; …" if len(unknown) > _NAMED else ""
        raise InvalidRequest(
            f"{total} not replayed, because history has never ingested what they are from: {named}{dots}; "
            "is OOMSTREAM_HISTORY_URL the database of the workers that refused them?"
        )


async def _replay(topic: str | None, group: str | None, meant: Selection, dry_run: bool) -> list[ReplayCounts]:
    from oomstream.agents.cli.session import settings
    from oomstream.stores.catalog_cache import CatalogCache
    from oomstream.stores.crash_points import arm
    from oomstream.stores.opening import open_stores
    from oomstream.streams.replay import Replay

    chosen = settings()
    arm(chosen.crash_at)
    done: list[ReplayCounts] = []
    async with open_stores(chosen) as (history, online):
        catalog = CatalogCache(history)
        decoding = _decoding(catalog, chosen)
        with spinner("replaying") as show:
            for each in _groups(await catalog.get(), topic, group):
                letters = (letter for letter in letters_of(each.topic) if meant.holds(letter))
                replaying = Replay(history, online, decoding, each, dry_run=dry_run)
                done.append(await replaying.take(letters, lambda counts: show(_so_far(counts))))
    return done


def _so_far(counts: ReplayCounts) -> str:
    return f"replaying {counts.topic}: {counted(counts.letters, 'letter', 'letters')} so far"


def _groups(catalog: Catalog, topic: str | None, group: str | None) -> list[FeatureGroup]:
    groups = stream_groups(catalog, group)
    if topic is None:
        return groups
    of_topic = [each for each in groups if each.topic == topic]
    if not of_topic:
        topics = ", ".join(each.topic for each in groups) or "none"
        raise InvalidRequest(f"no registered group has a topic named {topic!r} (topics: {topics})")
    return of_topic


def _decoding(catalog: CatalogCache, chosen: Settings) -> Decoding:
    from oomstream.streams.decoding import Decoding
    from oomstream.streams.registry import RegistrySchemas

    url = chosen.schema_registry_url
    registry = RegistrySchemas(url, timeout_s=chosen.call_timeout_us / 1e6) if url else None
    return Decoding(catalog, chosen, registry)
