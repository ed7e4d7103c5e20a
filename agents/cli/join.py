"""`oomstream join`: a point-in-time training set from the command line."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oomstream.agents.cli.options import Features, InputFile, Output, parse_time, split_features
from oomstream.agents.cli.output import Listing, OutputFormat, counted, print_csv, print_listing

if TYPE_CHECKING:
    from oomstream.query.training_set import TrainingSet

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
    timestamp_column: Annotated[
        str | None,
        typer.Option("--timestamp-column", metavar="NAME", help="The label time's column.", show_default=False),
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
    if output_file is not None and output_file.suffix.lower() not in SUFFIXES:
        raise typer.BadParameter(f"{output_file}: the name must end with {', '.join(SUFFIXES)}", param_hint="-O")
    if output_file is not None and not output_file.absolute().parent.is_dir():
        raise typer.BadParameter(f"the folder {output_file.absolute().parent} does not exist", param_hint="-O")
    if output_file is not None and output_file.exists() and output_file.samefile(input_file):
        raise typer.BadParameter(f"{output_file} is the label file, which would be overwritten", param_hint="-O")
    names = split_features(features)
    with _labels_in(input_file) as labels:
        training = asyncio.run(_training_set(labels, names, timestamp_column, as_of, available))
    if output_file is not None:
        training.write(output_file)
        typer.echo(f"{counted(len(training), 'row', 'rows')} written to {output_file}")
        return
    table = training.to_arrow()
    if output is OutputFormat.CSV:
        print_csv(table.column_names, table_rows(table), sys.stdout)
    else:
        print_listing(Listing(table.column_names, list(table_rows(table))), output)


@contextmanager
def _labels_in(given: Path) -> Iterator[Path]:
    """The label file under a name that tells its form, and errors of it in terms of the file that was given.

    What has none of our suffixes (``/dev/stdin``, ``labels.txt``) is CSV, as for oomcli.
    """
    from oomstream.schemas.errors import InvalidLabels

    is_csv = given.suffix.lower() not in SUFFIXES[1:]
    with TemporaryDirectory(prefix="oomstream-") as folder:
        path = given
        if given.suffix.lower() not in SUFFIXES:
            path = Path(folder) / "labels.csv"
            with given.open("rb") as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
        try:
            yield path
        except InvalidLabels as exc:
            said = str(exc).removeprefix("labels: ").replace(str(path), str(given))
            if is_csv:
                # People who look into a file count its header.
                said = re.sub(r"row (\d+) \(from 0\)", lambda at: f"row {int(at[1]) + 2} (from 1, the header)", said)
            raise InvalidLabels(said if said.startswith("cannot read ") else f"{given}: {said}") from exc


async def _training_set(
    labels: Path, features: list[str], timestamp_column: str | None, as_of: datetime | None, available: bool
) -> TrainingSet:
    from oomstream.agents.cli.session import settings
    from oomstream.query.feature_store import AsyncFeatureStore

    async with AsyncFeatureStore.open(settings=settings()) as store:
        return await store.get_historical_features(
            labels, features, timestamp_column=timestamp_column, as_of=as_of, available=available
        )


def table_rows(table: Any) -> Iterator[list[Any]]:
    """Rows of an Arrow table in python form, a bounded number of them in memory."""
    for batch in table.to_batches(max_chunksize=10_000):
        yield from map(list, zip(*(column.to_pylist() for column in batch.columns), strict=True))
