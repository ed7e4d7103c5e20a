"""`oomstream init` and `oomstream apply`: making stores, registering definitions."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from oomstream.schemas.plan import Plan

PANEL = "Set up"


def register(parent: typer.Typer) -> None:
    """Add this family of verbs to the command."""
    parent.command("init", rich_help_panel=PANEL, epilog="Example: oomstream init")(init)
    parent.command("apply", rich_help_panel=PANEL, epilog="Example: oomstream apply groups/ --dry-run")(apply)


def init() -> None:
    """Make the stores' tables; again does no harm.

    It also joins the two stores to each other. Only it and apply need the right to make tables.
    """
    asyncio.run(_init())


async def _init() -> None:
    from oomstream.agents.cli.session import settings
    from oomstream.stores.opening import history_store, init_stores, online_store, online_was_lost

    chosen = settings()
    async with history_store(chosen.history, chosen) as history, online_store(chosen.online, chosen) as online:
        lost = await online_was_lost(history, online)
        await init_stores(history, online)
        typer.echo(f"history  {history.url}")
        typer.echo(f"online   {online.url}")
    typer.echo("initialised")
    if lost:
        typer.echo("history holds data, but the online store is new and empty: run `oomstream repair`")


def apply(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH…", help="Definitions: .avsc or .yaml files, or folders of .avsc files.", show_default=False
        ),
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="The same as PATH, or YAML under any name, such as /dev/stdin; repeatable.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would change.")] = False,
) -> None:
    """Register entities, groups and features, or change them.

    Prints what it changes; again changes nothing. An incompatible change is refused with the field and the rule. With a
    broker set, missing topics are made too.
    """
    from oomstream.agents.cli.definitions import carry_out, change_of, definition_files, read_definitions
    from oomstream.agents.cli.session import registered_catalog, settings

    given = read_definitions(definition_files(paths or [], file or []))
    if dry_run:
        catalog = asyncio.run(registered_catalog(settings()))
        print_plan(change_of(given, catalog).plan)
        typer.echo("nothing was changed (--dry-run)")
        return
    for topic in asyncio.run(carry_out(lambda catalog: change_of(given, catalog), print_plan)):
        typer.echo(f"new topic {topic}")
    typer.echo("applied")


def print_plan(plan: Plan) -> None:
    """Print what a plan changes, a line each."""
    if not plan:
        typer.echo("no changes: everything is registered like this already")
    for entity in plan.entities:
        if entity.id:
            typer.echo(f"doc of entity {entity.name} changed")
        else:
            keys = ", ".join(f"{key.name} {key.type}" for key in entity.keys)
            typer.echo(f"new entity {entity.name}, keys ({keys})")
    for each in plan.groups:
        if each.old is not None:
            typer.echo(f"group {each.new.name}")
        for at, change in enumerate(each.changes):
            typer.echo(change if each.old is None and at == 0 else f"  {change}")
