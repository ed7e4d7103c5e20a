"""`oomstream export` and `snapshot`: every entity's values at one moment."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oomstream.agents.cli.join import SUFFIXES, table_rows
from oomstream.agents.cli.options import Features, Output, complete_group, split_features
from oomstream.agents.cli.output import Listing, OutputFormat, counted, csv_writer, print_listing
from oomstream.schemas.errors import InvalidRequest, UnknownFeature, UnknownGroup

if TYPE_CHECKING:
    import pyarrow as pa


def register(parent: typer.Typer) -> None:
    """Add this family of verbs to the command."""
    parent.command(
        "export",
        rich_help_panel="Read",
        epilog="Example: oomstream export --feature plane.dest,plane.arr_delay -u 1372680000000 -O planes.parquet",
    )(export)
    parent.command("snapshot", rich_help_panel="Write", epilog="Example: oomstream snapshot plane")(snapshot)


def export(
    features: Features,
    unix_milli: Annotated[
        int | None,
        typer.Option(
            "--unix-milli", "-u", metavar="MS", help="The moment, Unix milliseconds. Default: now.", show_default=False
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-l", metavar="N", help="At most so many entities. Default: all.", min=0, show_default=False
        ),
    ] = None,
    output: Output = OutputFormat.CSV,
    output_file: Annotated[
        Path | None,
        typer.Option(
            "--output-file", "-O", metavar="FILE", help="Write it here: .csv, .parquet or .arrow.", show_default=False
        ),
    ] = None,
) -> None:
    """Give the newest values that every entity had at one moment, in order of the entity key.

    An entity is there if one of the groups has values of it. Features of several groups are of one entity.
    """
    if output_file is not None and output_file.suffix.lower() not in SUFFIXES:
        raise typer.BadParameter(f"{output_file}: the name must end with {', '.join(SUFFIXES)}", param_hint="-O")
    if output_file is not None and not output_file.absolute().parent.is_dir():
        raise typer.BadParameter(f"the folder {output_file.absolute().parent} does not exist", param_hint="-O")
    from oomstream.schemas.types import MAX_TIME_US, MIN_TIME_US

    at_us = None if unix_milli is None else unix_milli * 1000
    if at_us is not None and not MIN_TIME_US <= at_us <= MAX_TIME_US:
        raise typer.BadParameter("it is a time in Unix milliseconds of the years 1 to 9999", param_hint="-u")
    try:
        asyncio.run(_export(split_features(features), at_us, limit, output, output_file))
    except UnknownFeature as exc:
        # oomcli's words, and no more: scripts compare the whole line.
        raise UnknownFeature(f"failed exporting features: invalid feature names [{' '.join(exc.names)}]") from exc
    except InvalidRequest as exc:
        raise type(exc)(f"failed exporting features: {exc}") from exc


async def _export(
    features: list[str], at_us: int | None, limit: int | None, output: OutputFormat, file: Path | None
) -> None:
    from oomstream.agents.cli.session import settings
    from oomstream.query.feature_store import AsyncFeatureStore

    async with (
        AsyncFeatureStore.open(settings=settings()) as store,
        aclosing(store.export_tables(features, at=at_us, limit=limit)) as tables,
    ):
        if file is not None:
            from oomstream.query.export_file import write_tables

            typer.echo(f"{counted(await write_tables(tables, file), 'row', 'rows')} written to {file}")
        elif output is OutputFormat.CSV:
            await _print_csv(tables)
        else:
            columns: list[str] = []
            rows: list[list[Any]] = []
            async for table in tables:
                columns = table.column_names
                rows += table_rows(table)
            print_listing(Listing(columns, rows), output)


async def _print_csv(tables: AsyncIterator[pa.Table]) -> None:
    """Print pieces as they come, so that memory holds one of them."""
    write = None
    async for table in tables:
        write = write or csv_writer(table.column_names, sys.stdout)
        write(table_rows(table))


def snapshot(
    group: Annotated[
        str | None,
        typer.Argument(metavar="GROUP", help="A group.", show_default=False, autocompletion=complete_group),
    ] = None,
) -> None:
    """Do nothing: it is there for oomcli's scripts. A group that is named must exist."""
    if group is not None:
        from oomstream.agents.cli.push import find_group
        from oomstream.agents.cli.session import load_catalog

        try:
            find_group(asyncio.run(load_catalog()), group)
        except UnknownGroup as exc:
            raise UnknownGroup(f"failed to take snapshot for the group {group}: {exc}") from exc
    typer.echo("nothing to do: training sets and exports read history directly")
