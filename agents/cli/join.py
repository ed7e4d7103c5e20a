"""`oomstream join`: a point-in-time training set from the command line."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oomstream.agents.cli.options import Features, InputFile, Output, parse_time, split_features
from oomstream.agents.cli.output import Listing, OutputFormat, print_csv, print_listing

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIXES = (".csv", ".parquet", ".arrow", ".feather")


def register(parent: typer.Typer) -> None:
    """Add this family of verbs to the command."""
    parent.command(
        "join",
        rich_help_panel="Read",
        epilog="Example: oomstream join --feature plane.arr_delay --input-file labels.csv -O train.parquet",
    )(join)


def join(
    features: Features,
    input_file: InputFile,
    output_file: Annotated[
        Path | None,
        typer.Option(
            "--output-file", "-O", metavar="FILE", help="Write it here: .csv, .parquet or .arrow.", show_default=False
        ),
    ] = None,
    as_of: Annotated[
        datetime | None,
        typer.Option(
            "--as-of",
            parser=parse_time,
            metavar="TIME",
            help="Only what was ingested by then: the set as it was.",
            show_default=False,
        ),
    ] = None,
    available: Annotated[
        bool, typer.Option("--available", help="Only what was ingested by each label's time.")
    ] = False,
    output: Output = OutputFormat.CSV,
) -> None:
    """Give each label row the feature values that were true at its time.

    The label file needs the entities' key fields and a time, event_timestamp (RFC 3339) or unix_milli; all other
    columns pass through. Rows keep their number and order.
    """
    if output_file is not None and output_file.suffix not in SUFFIXES:
        raise typer.BadParameter(f"{output_file}: the name must end with {', '.join(SUFFIXES)}", param_hint="-O")
    if output_file is not None and not output_file.absolute().parent.is_dir():
        raise typer.BadParameter(f"the folder {output_file.absolute().parent} does not exist", param_hint="-O")
    from oomstream.agents.cli.session import settings
    from oomstream.query import FeatureStore

    with FeatureStore.open(settings()) as store:
        result = store.get_historical_features(
            entity_df=input_file, features=split_features(features), as_of=as_of, available=available
        )
        table = result.to_arrow()
    if output_file is not None:
        write_table(table, output_file)
        typer.echo(f"{table.num_rows:,} rows written to {output_file}")
    elif output is OutputFormat.CSV:
        print_csv(table.column_names, table_rows(table), sys.stdout)
    else:
        print_listing(Listing(table.column_names, list(table_rows(table))), output)


def write_table(table: Any, file: Path) -> None:
    """Write an Arrow table as its suffix says, so that a broken-off write leaves no half file under the name."""
    import pyarrow.feather
    import pyarrow.parquet

    part = file.with_name(f".{file.name}.part")
    try:
        if file.suffix == ".csv":
            with part.open("w", encoding="utf-8", newline="") as out:
                print_csv(table.column_names, table_rows(table), out)
        elif file.suffix == ".parquet":
            pyarrow.parquet.write_table(table, part)
        else:
            pyarrow.feather.write_feather(table, part)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def table_rows(table: Any) -> Iterator[list[Any]]:
    """Rows of an Arrow table in python form, a bounded number of them in memory."""
    for batch in table.to_batches(max_chunksize=10_000):
        yield from map(list, zip(*(column.to_pylist() for column in batch.columns), strict=True))
