"""`oomstream demo`."""

from __future__ import annotations

import typer


def register(parent: typer.Typer) -> None:
    """Add this family of verbs to the command."""
