"""`oomstream worker`, `oomstream broker` and `oomstream dev`: what runs until it is stopped."""

from __future__ import annotations

import typer

PANEL = "Run"


def register(parent: typer.Typer) -> None:
    """Add this family of verbs to the command."""
