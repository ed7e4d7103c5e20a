"""`oomstream import`: a file, or a table of the database, into a group."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oomstream.agents.cli.options import complete_group
from oomstream.agents.cli.output import counted
from oomstream.agents.cli.push import find_group

if TYPE_CHECKING:
    from oomstream.streams.import_report import ImportProgress, ImportReport, Show

_TAB = ("\\t", "tab")


def register(parent: typer.Typer) -> None:
    """Add this family of verbs to the command."""
    parent.command(
        "import",
        rich_help_panel="Write",
        epilog="Example: oomstream import -g account --input-file account.csv --description 'from the CRM'",
    )(import_)


def import_(
    group: Annotated[
        str,
        typer.Option(
            "--group",
            "-g",
            metavar="GROUP",
            help="Feature group.",
            show_default=False,
            autocompletion=complete_group,
        ),
    ],
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input-file",
            metavar="FILE",
            help="Rows: .csv, .parquet, .arrow or .feather; anything else is read as CSV.",
            exists=True,
            dir_okay=False,
            readable=True,
            show_default=False,
        ),
    ] = None,
    table_link: Annotated[
        str | None,
        typer.Option(
            "--table-link",
            metavar="TABLE",
            help="A table of the history database that becomes a revision as it is.",
            show_default=False,
        ),
    ] = None,
    revision: Annotated[
        int | None,
        typer.Option(
            "--revision",
            "-r",
            metavar="MS",
            help="For a batch group: from when on it holds, Unix milliseconds. Default: now, until its first sync.",
            min=1,
            show_default=False,
        ),
    ] = None,
    delimiter: Annotated[
        str,
        typer.Option("--delimiter", metavar="D", help="What separates the cells of a CSV file; tab is a tabulator."),
    ] = ",",
    description: Annotated[
        str, typer.Option("--description", metavar="TEXT", help="Description of the revision.", show_default=False)
    ] = "",
) -> None:
    """Import rows into a group.

    The columns are the entity's name (or its key fields) and the group's features, in any order. A batch group gets a
    revision, all of it or nothing. In a stream group every row is an event, with its time in the column unix_milli: it
    takes its place beside those of the stream, and rows that were imported before are left as they are.
    """
    if (input_file is None) == (table_link is None):
        raise typer.BadParameter("give one of --input-file and --table-link", param_hint="--input-file")
    from oomstream.schemas.types import MAX_TIME_US

    if revision is not None and revision * 1000 > MAX_TIME_US:
        raise typer.BadParameter(
            "it is a time in Unix milliseconds, and this one is after the year 9999", param_hint="-r"
        )
    revision_us = None if revision is None else revision * 1000
    if table_link is not None:
        typer.echo(f"RevisionID: {asyncio.run(_link(group, table_link, revision_us, description))}")
        return
    assert input_file is not None
    separator = "\t" if delimiter in _TAB else delimiter
    if len(separator) != 1 or not separator.isascii() or separator in '"\r\n':
        raise typer.BadParameter("it is one ASCII character, or tab", param_hint="--delimiter")
    report = asyncio.run(_import(group, input_file, revision_us, separator, description))
    if report.revision is not None:
        typer.echo(f"RevisionID: {report.revision.id}")
    else:
        known = f"; {report.known_rows:,} of them had been imported before" if report.known_rows else ""
        typer.echo(f"imported {counted(report.rows, 'row', 'rows')}{known}")


async def _import(group: str, path: Path, revision_us: int | None, delimiter: str, doc: str) -> ImportReport:
    from oomstream.agents.cli.session import settings
    from oomstream.schemas.groups import Category
    from oomstream.stores.crash_points import arm
    from oomstream.stores.opening import open_stores
    from oomstream.streams.importing import import_file

    chosen = settings()
    arm(chosen.crash_at)
    async with open_stores(chosen) as (history, online):
        definition = find_group(await history.load_catalog(), group)
        if definition.category is Category.STREAM and (revision_us is not None or doc):
            # oomcli takes them for every group, and its scripts give them.
            typer.echo(f"(group {group} is a stream group: --revision and --description have no effect)", err=True)
            revision_us, doc = None, ""
        with _shown(path) as show:
            return await import_file(
                history,
                online,
                group,
                path,
                revision_us=revision_us,
                delimiter=delimiter,
                doc=doc,
                progress=show,
                settings=chosen,
            )


async def _link(group: str, table: str, revision_us: int | None, doc: str) -> int:
    from oomstream.agents.cli.session import open_history, settings
    from oomstream.streams.importing import link_table

    async with open_history(settings()) as history:
        find_group(await history.load_catalog(), group)
        return (await link_table(history, group, table, revision_us=revision_us, doc=doc)).id


@contextmanager
def _shown(path: Path) -> Iterator[Show | None]:
    """A bar of the file's bytes, with the rows so far, on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeRemainingColumn(),
    )
    total = path.stat().st_size if path.is_file() else None
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=total, rows=0)

        def show(progress: ImportProgress) -> None:
            bar.update(task, description=progress.stage.value, completed=progress.done_bytes, rows=progress.rows)

        yield show
