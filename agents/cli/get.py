"""`oomstream get`: definitions, revisions, sources, online values."""

from __future__ import annotations

import asyncio
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oomstream.agents.cli.options import (
    Features,
    Keys,
    Output,
    complete_entity,
    complete_group,
    complete_of_kind,
    parse_keys,
    split_features,
)
from oomstream.agents.cli.output import Listing, OutputFormat, print_listing

if TYPE_CHECKING:
    from oomstream.query.online import OnlineResponse
    from oomstream.schemas.groups import FeatureGroup, KeyField
    from oomstream.stores.base import Source

app = typer.Typer(help="Show definitions, revisions, sources and online values.", no_args_is_help=True)


class MetaKind(StrEnum):
    """What `get meta` can list."""

    ENTITY = "entity"
    GROUP = "group"
    FEATURE = "feature"
    REVISION = "revision"


Wide = Annotated[bool, typer.Option("--wide", "-w", help="More columns.")]


def register(parent: typer.Typer) -> None:
    """Add this family of verbs to the command."""
    parent.add_typer(app, name="get", rich_help_panel="Read")


@app.command("meta", epilog="Example: oomstream get meta feature -g plane -o csv")
def meta(
    kind: Annotated[MetaKind, typer.Argument(help="What to list.", show_default=False)],
    name: Annotated[
        str | None,
        typer.Argument(
            help="Only the one of this name (a feature: group.feature; a revision: its id).",
            show_default=False,
            autocompletion=complete_of_kind,
        ),
    ] = None,
    entity: Annotated[
        str | None,
        typer.Option("--entity", "-e", metavar="E", help="Only of this entity.", autocompletion=complete_entity),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option("--group", "-g", metavar="G", help="Only of this group.", autocompletion=complete_group),
    ] = None,
    wide: Wide = False,
    output: Output = OutputFormat.ASCII_TABLE,
) -> None:
    """List the registered entities, groups or features, or the revisions of batch groups."""
    print_listing(asyncio.run(_meta(kind, name, entity, group, wide)), output)


async def _meta(kind: MetaKind, name: str | None, entity: str | None, group: str | None, wide: bool) -> Listing:
    from oomstream.agents.cli.meta import entities, features, groups, revisions
    from oomstream.agents.cli.session import open_history, settings

    async with open_history(settings()) as history:
        # Before the catalog, so that it has the group of each of them.
        published = await history.revisions() if kind is MetaKind.REVISION else []
        catalog = await history.load_catalog()
    match kind:
        case MetaKind.ENTITY:
            return entities(catalog, name, entity, group, wide)
        case MetaKind.GROUP:
            return groups(catalog, name, entity, group, wide)
        case MetaKind.FEATURE:
            return features(catalog, name, entity, group, wide)
        case MetaKind.REVISION:
            return revisions(catalog, published, name, entity, group, wide)


@app.command("source", epilog="Example: oomstream get source -o json")
def source(wide: Wide = False, output: Output = OutputFormat.ASCII_TABLE) -> None:
    """List the sources of events and how far each is ingested.

    NEXT is the first sequence (for a topic: the offset) that is not in history yet, ONLINE the first whose online row
    may not be written yet.
    """
    from oomstream.agents.cli.session import load_sources

    print_listing(sources_listing(asyncio.run(load_sources()), wide), output)


@app.command("online", epilog="Example: oomstream get online -k N14228,N24211 --feature plane.arr_delay,plane.dest")
def online(
    keys: Keys,
    features: Features,
    statuses: Annotated[
        bool, typer.Option("--statuses", help="Also say of each value whether it is present, null, missing or expired.")
    ] = False,
    output: Output = OutputFormat.ASCII_TABLE,
) -> None:
    """Read the newest values of entities: a row per key, in the order asked."""
    print_listing(asyncio.run(_online(keys, split_features(features), statuses)), output)


async def _online(keys: list[str], names: list[str], statuses: bool) -> Listing:
    from oomstream.agents.cli.session import open_history, settings
    from oomstream.query.feature_store import AsyncFeatureStore

    chosen = settings()
    async with open_history(chosen) as history:
        groups = [group for group, _ in (await history.load_catalog()).features(names)]
    rows = parse_keys(keys, key_columns(groups), [group.entity for group in groups])
    async with AsyncFeatureStore.open(settings=chosen) as store:
        result = await store.get_online_features(features=names, entity_rows=rows)
    return _online_listing(groups, names, rows, result, statuses)


def key_columns(groups: list[FeatureGroup]) -> dict[str, KeyField]:
    """The key fields that requests for these groups need, by the name of the column that holds them.

    Two entities that call different keys alike are told apart as ``entity.key``.
    """
    by_entity = {group.entity: group.keys for group in groups}
    owners: dict[str, set[str]] = {}
    for entity, fields in by_entity.items():
        for field in fields:
            owners.setdefault(field.name, set()).add(entity)
    return {
        (field.name if len(owners[field.name]) == 1 else f"{entity}.{field.name}"): field
        for entity, fields in by_entity.items()
        for field in fields
    }


def _online_listing(
    groups: list[FeatureGroup], names: list[str], rows: list[dict[str, Any]], result: OnlineResponse, statuses: bool
) -> Listing:
    # oomcli heads the key by its entity's name; with several key fields their own names must tell them apart.
    key_names = list(rows[0]) if rows else list(key_columns(groups))
    heads = [groups[0].entity] if len(key_names) == 1 else key_names
    full = [name.replace(":", ".", 1) if "." not in name else name for name in names]
    values, states = result.to_dict(), result.statuses
    columns = [*heads]
    for name in full:
        columns += [name, f"{name} status"] if statuses else [name]
    printed = []
    for at, row in enumerate(rows):
        cells: list[Any] = list(row.values())
        for name in full:
            cells += [values[name][at], str(states[name][at])] if statuses else [values[name][at]]
        printed.append(cells)
    return Listing(columns, printed)


def _ingest_time(source: Source, *, exact: bool) -> datetime | None:
    from oomstream.schemas.types import time_from_us

    time = time_from_us(source.last_ingest_time_us) if source.last_ingest_time_us else None
    return time if time is None or exact else time.replace(microsecond=0)


def sources_listing(sources: list[Source], wide: bool) -> Listing:
    """Sources by id with their positions."""
    columns = ["ID", "KIND", "NAME", "PARTITION", "NEXT", "ONLINE", "LAST-INGEST"]
    rows: list[list[Any]] = [
        [
            each.id,
            each.name.kind.name.lower(),
            each.name.name,
            each.name.partition,
            each.next_sequence,
            each.online_sequence,
            _ingest_time(each, exact=wide),
        ]
        for each in sources
    ]
    if wide:
        columns += ["INCARNATION", "OWNER"]
        for row, each in zip(rows, sources, strict=True):
            row += [each.name.incarnation, each.owner]
    return Listing(columns, rows)
