"""`oomstream sync`: a revision of a batch group online, or a stream group's online rows from history again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from oomstream.agents.cli.options import complete_group
from oomstream.agents.cli.output import counted, spinner
from oomstream.agents.cli.push import find_group

if TYPE_CHECKING:
    from oomstream.streams.sync import SyncReport


def register(parent: typer.Typer) -> None:
    """Add this family of verbs to the command."""
    parent.command("sync", rich_help_panel="Write", epilog="Example: oomstream sync -g account -r 2")(sync)


def sync(
    group: Annotated[
        str,
        typer.Option(
            "--group-name",
            "--group",
            "-g",
            metavar="GROUP",
            help="Feature group.",
            show_default=False,
            autocompletion=complete_group,
        ),
    ],
    revision_id: Annotated[
        int | None,
        typer.Option(
            "--revision-id",
            "-r",
            metavar="ID",
            help="Which revision; an older one to go back. Default: the newest.",
            min=1,
            show_default=False,
        ),
    ] = None,
    purge_delay: Annotated[
        float | None,
        typer.Option(
            "--purge-delay",
            metavar="SEC",
            help="How long the revision of before stays for readers. Default, and at least: as long as they need it.",
            min=0,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Bring a batch group's revision online; derive a stream group's online rows from history again.

    Readers see all of the old revision or all of the new one. `oomstream get meta revision` lists revisions. What is
    online is kept where the sync is broken off.
    """
    typer.echo("syncing features ...")
    report = asyncio.run(_sync(group, revision_id, purge_delay))
    typer.echo(f"({_said(report)})", err=True)


def _said(report: SyncReport) -> str:
    entities = counted(report.entities, "entity", "entities")
    if report.revision is None:
        return f"{entities}, {counted(report.written, 'row', 'rows')} written"
    said = f"revision {report.revision.id} is online, {entities}; what was online before goes after "
    said += f"{report.purge_delay_s:g} s, with the next sync or gc"
    return said + ", as readers need it for so long" if report.delay_raised else said


async def _sync(name: str, revision_id: int | None, purge_delay: float | None) -> SyncReport:
    from oomstream.agents.cli.session import settings
    from oomstream.schemas.errors import InvalidRequest
    from oomstream.stores.crash_points import arm
    from oomstream.stores.opening import open_stores
    from oomstream.streams.sync import sync_group

    chosen = settings()
    arm(chosen.crash_at)
    async with open_stores(chosen) as (history, online):
        catalog = await history.load_catalog()
        find_group(catalog, name)
        with spinner(f"syncing {name}") as show:
            try:
                return await sync_group(
                    history,
                    online,
                    catalog.groups[name],
                    revision_id=revision_id,
                    purge_delay_s=purge_delay,
                    max_age_s=chosen.metadata_max_age_us / 1e6,
                    progress=lambda done: show(f"syncing {name} ({counted(done, 'entity', 'entities')} so far)"),
                )
            except InvalidRequest as exc:
                raise type(exc)(f"failed sync features: {exc}") from exc  # oomcli's words
