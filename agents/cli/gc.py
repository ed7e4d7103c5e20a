"""`oomstream gc`: what nobody needs any more goes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from oomstream.agents.cli.output import counted, spinner

if TYPE_CHECKING:
    from oomstream.stores.opening import Stores


def register(parent: typer.Typer) -> None:
    """Add this verb to the command."""
    epilog = "Example: oomstream gc --revisions-older-than 90d --history-older-than 365d"
    parent.command("gc", rich_help_panel="Check and mend", epilog=epilog)(gc)


def gc(
    older_than: Annotated[
        str,
        typer.Option(metavar="AGE", help="Keep replaced online values that are younger; at least 10m."),
    ] = "30m",
    revisions_older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE",
            help="Also drop revisions of batch groups that others took the place of longer ago.",
            show_default=False,
        ),
    ] = None,
    keep_revisions: Annotated[
        int, typer.Option(metavar="N", help="So many of each group's newest revisions stay in any case.", min=1)
    ] = 1,
    history_older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE",
            help="Also remove rows of history that are older, except each entity's newest.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Remove what nobody needs any more, beside workers, syncs and readers.

    Always: online copies of revisions that others took the place of, what broken imports and syncs left, the places of
    forgotten entities, and, where TiKV has no TiDB that looks after it, replaced values. What is online, and a group's
    newest revision, always stay.
    """
    from oomstream.agents.cli.session import settings
    from oomstream.stores.crash_points import arm
    from oomstream.stores.opening import open_stores

    chosen = settings()
    arm(chosen.crash_at)
    replaced_us = _age_us(older_than, "--older-than")
    revisions_us = None if revisions_older_than is None else _age_us(revisions_older_than, "--revisions-older-than")
    history_us = None if history_older_than is None else _age_us(history_older_than, "--history-older-than")

    async def run() -> list[str]:
        async with open_stores(chosen) as stores:
            said = await _collect(stores, revisions_us, keep_revisions)
            if history_us is not None:
                said += await _retire(stores, history_us, history_older_than or "")
            if await stores.online.gc(replaced_us / 1e6):
                said.append(f"online: values replaced more than {older_than} ago may be removed now")
            return said

    for line in asyncio.run(run()) or ["nothing to remove"]:
        typer.echo(line)


def _age_us(text: str, option: str) -> int:
    from oomstream.schemas.durations import parse_duration_us

    try:
        return parse_duration_us(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint=option) from exc


async def _collect(stores: Stores, revisions_us: int | None, keep: int) -> list[str]:
    from oomstream.streams.collect import collect
    from oomstream.streams.forget import free_places

    older_than_s = None if revisions_us is None else revisions_us / 1e6
    done = await collect(*stores, revisions_older_than_s=older_than_s, keep=keep)
    freed = await free_places(*stores)
    said = []
    if done.copies:
        said.append(f"online: {counted(done.copies, 'copy', 'copies')} of revisions removed")
    if done.drafts:
        said.append(f"revisions: {counted(done.drafts, 'draft', 'drafts')} of imports that broke off removed")
    for group, ids in done.revisions.items():
        said.append(f"group {group}: {counted(len(ids), 'revision', 'revisions')} removed ({', '.join(map(str, ids))})")
    if freed:
        said.append(f"online: places of {counted(freed, 'forgotten entity', 'forgotten entities')} freed")
    return said


async def _retire(stores: Stores, age_us: int, age: str) -> list[str]:
    from oomstream.schemas.groups import Category
    from oomstream.streams.retention import retire

    said = []
    groups = (await stores.history.load_catalog()).groups.values()
    with spinner("removing old history") as show:
        for registered in sorted(groups, key=lambda each: each.group.name):
            name = registered.group.name
            if registered.group.category is Category.STREAM:
                done = await retire(
                    *stores,
                    registered,
                    age_us,
                    progress=lambda entities, name=name: show(  # type: ignore[misc]
                        f"removing old history of {name} ({counted(entities, 'entity', 'entities')} so far)"
                    ),
                )
                rows = counted(done.rows, "row", "rows")
                said.append(f"group {name}: {rows} older than {age} removed, and {done.online:,} online")
    return said
