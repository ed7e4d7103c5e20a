"""`oomstream forget`: entities erased everywhere, and kept out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from oomstream.agents.cli.options import Output, parse_keys
from oomstream.agents.cli.output import Listing, OutputFormat, counted, print_listing

if TYPE_CHECKING:
    from oomstream.schemas.catalog import Catalog
    from oomstream.schemas.events import Plain
    from oomstream.streams.forget import Forgotten

COLUMNS = ["GROUP", "ERASED", "IN"]


def register(parent: typer.Typer) -> None:
    """Add this verb to the command."""
    epilog = "Example: oomstream forget -e plane -k N14228"
    parent.command("forget", rich_help_panel="Check and mend", epilog=epilog)(forget)


def forget(
    entity: Annotated[str, typer.Option("--entity", "-e", metavar="E", help="Kind of entity.", show_default=False)],
    keys: Annotated[
        list[str],
        typer.Option(
            "--entity-key",
            "-k",
            metavar="KEY",
            help="Which ones: K1,K2 or, where a key has several fields, f1=v1,f2=v2; repeatable.",
            show_default=False,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    output: Output = OutputFormat.ASCII_TABLE,
) -> None:
    """Erase entities from every group, online and in history, and keep out their events up to now.

    A late event, an import, a replay or a topic read again does not bring them back; an event of a later time does.
    Their keys leave the online store some minutes later, with a worker's tidying or `oomstream gc`. Topics keep events
    until their retention ends; dead letters are hidden. Linked tables are yours to change: they are named.
    """
    if not yes:
        typer.confirm(f"Erase {entity} {', '.join(keys)} from every group, for ever?", abort=True)
    done = asyncio.run(_forget(entity, keys))
    rows = [[name, count, "history"] for name, count in done.rows.items()]
    rows += [[name, count, "revisions"] for name, count in done.revision_rows.items()]
    print_listing(Listing(COLUMNS, rows), output)
    entities = counted(done.keys, "entity is", "entities are")
    typer.echo(f"({entities} forgotten; the online store frees the keys in some minutes)", err=True)
    for name, tables in done.linked.items():
        typer.echo(f"(group {name}: {', '.join(tables)}: linked, so look into it yourself)", err=True)


async def _forget(entity: str, keys: Sequence[str]) -> Forgotten:
    from oomstream.agents.cli.session import settings
    from oomstream.stores.opening import open_stores
    from oomstream.streams.forget import forget as forget_entities

    async with open_stores(settings()) as (history, online):
        catalog = await history.load_catalog()
        return await forget_entities(history, online, catalog, entity, _keys(catalog, entity, keys))


def _keys(catalog: Catalog, entity: str, keys: Sequence[str]) -> list[tuple[Plain, ...]]:
    from oomstream.schemas.errors import InvalidRequest
    from oomstream.schemas.keys import key_from_python

    found = catalog.entities.get(entity)
    if found is None or not found.keys:
        known = ", ".join(sorted(name for name, each in catalog.entities.items() if each.keys)) or "none"
        raise InvalidRequest(f"no entity named {entity!r} that has a group (registered: {known})")
    rows = parse_keys(keys, {field.name: field for field in found.keys}, [entity])
    return [key_from_python(list(row.values()), found.keys, where="-k") for row in rows]
