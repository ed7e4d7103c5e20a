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
        typer.Argument(metavar="PATH…", help="Definitions: .avsc files, or folders of them.", show_default=False),
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option("--file", "-f", metavar="FILE", help="The same as PATH; repeatable.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would change.")] = False,
) -> None:
    """Register feature groups, or change them.

    Prints what it changes; again changes nothing. An incompatible change is refused with the field and the rule. With a
    broker set, missing topics are made too.
    """
    files = avsc_files([*(paths or []), *(file or [])])
    asyncio.run(_apply(files, dry_run))


def avsc_files(paths: list[Path]) -> list[Path]:
    """The .avsc files that the given paths mean, each once, folders in order of file name.

    Raises:
        typer.BadParameter: Nothing was given, a path does not exist, or is no .avsc file; names it.
    """
    if not paths:
        raise typer.BadParameter("no definitions given: name .avsc files or folders of them", param_hint="PATH")
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.glob("*.avsc"))
            if not inside:
                raise typer.BadParameter(f"the folder {path} holds no .avsc file", param_hint="PATH")
            found += inside
        elif path.suffix in {".yaml", ".yml"}:
            raise typer.BadParameter(
                f"{path}: YAML definitions are not supported yet: write an Avro schema, NAME.avsc (docs/schemas.md)",
                param_hint="PATH",
            )
        elif not path.exists():
            raise typer.BadParameter(f"{path} does not exist", param_hint="PATH")
        elif path.suffix != ".avsc":
            raise typer.BadParameter(f"{path} is not an .avsc file (docs/schemas.md)", param_hint="PATH")
        else:
            found.append(path)
    return list(dict.fromkeys(found))


async def _apply(files: list[Path], dry_run: bool) -> None:
    from oomstream.agents.cli.session import registered_catalog, settings
    from oomstream.schemas.avsc import load_avsc
    from oomstream.schemas.plan import make_plan
    from oomstream.stores.opening import open_stores
    from oomstream.streams.broker import find_broker
    from oomstream.streams.topics import ensure_topics, topics_of

    groups = [load_avsc(file.read_bytes(), str(file)) for file in files]
    refuse_same_groups(files, [group.name for group in groups])
    chosen = settings()
    broker = find_broker(chosen)
    if dry_run:
        print_plan(make_plan(await registered_catalog(chosen), groups))
        typer.echo("nothing was changed (--dry-run)")
        return
    async with open_stores(chosen) as (history, _):
        plan = make_plan(await history.load_catalog(), groups)
        print_plan(plan)
        if plan:
            await history.apply(plan)
    if broker is not None:
        for topic in ensure_topics(broker, topics_of(groups), timeout_s=chosen.call_timeout_us / 1e6):
            typer.echo(f"new topic {topic}")
    typer.echo("applied")


def refuse_same_groups(files: list[Path], names: list[str]) -> None:
    """Refuse two files that define one group.

    Raises:
        InvalidDefinition: Two files do; names the group and both files.
    """
    from oomstream.schemas.errors import InvalidDefinition

    first: dict[str, Path] = {}
    for file, name in zip(files, names, strict=True):
        other = first.setdefault(name, file)
        if other is not file:
            raise InvalidDefinition(f"group {name}: defined twice, in {other} and in {file}")


def print_plan(plan: Plan) -> None:
    """Print what a plan changes, a line each."""
    if not plan:
        typer.echo("no changes: everything is registered like this already")
    for entity in plan.entities:
        typer.echo(f"new entity {entity.name}, keys ({', '.join(f'{key.name} {key.type}' for key in entity.keys)})")
    for each in plan.groups:
        if each.old is not None:
            typer.echo(f"group {each.new.name}")
        for at, change in enumerate(each.changes):
            typer.echo(change if each.old is None and at == 0 else f"  {change}")
