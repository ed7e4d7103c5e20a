"""Registered names for the shell's completion."""

from __future__ import annotations

import asyncio
import io
import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oomstream.schemas.catalog import Catalog

_PATIENCE_S = 2.0
"""How long a person waits after the tab key; after it there are no names."""

_VARIABLES = {"data_dir": "OOMSTREAM_DATA_DIR", "config": "OOMCLI_CONFIG"}
"""What the global options set."""


def names_of(kind: str, options: Mapping[str, Any]) -> list[str]:
    """Registered names; none if they cannot be had quickly, whatever the reason, and never a word on the terminal.

    Args:
        kind: entity, group or feature.
        options: Global options of the line that is completed, which has not run them.
    """
    quiet = io.StringIO()
    level = logging.root.manager.disable
    try:
        logging.disable()
        with redirect_stdout(quiet), redirect_stderr(quiet):
            catalog = _catalog(options)
        return sorted(_names(kind, catalog))
    except Exception:
        # A traceback in the middle of a line that is being typed helps nobody.
        return []
    finally:
        logging.disable(level)


def _names(kind: str, catalog: Catalog) -> Iterable[str]:
    match kind:
        case "entity":
            return catalog.entities
        case "group":
            return catalog.groups
        case "feature":
            groups = [each.group for each in catalog.groups.values()]
            return [f"{group.name}.{feature.name}" for group in groups for feature in group.features]
        case _:
            return []


def _catalog(options: Mapping[str, Any]) -> Catalog:
    from oomstream.agents.cli.session import load_catalog

    for option, variable in _VARIABLES.items():
        if options.get(option) is not None:
            os.environ[variable] = str(options[option])
    return asyncio.run(asyncio.wait_for(load_catalog(), _PATIENCE_S))
