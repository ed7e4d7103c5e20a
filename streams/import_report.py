"""What an import says while it runs, and when it is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from oomstream.stores.revisions import Revision


class Stage(StrEnum):
    """What an import is doing."""

    CHECKING = "checking"
    WRITING = "writing"


class ImportProgress(NamedTuple):
    """How far an import has come.

    Attributes:
        stage: What it is doing; a stream group's file is checked whole before any of it is written.
        rows: Rows of the file that are done, in this stage.
        done_bytes: Bytes of the file that are done, in this stage; about, in parquet and Arrow files.
    """

    stage: Stage
    rows: int
    done_bytes: int


Show = Callable[[ImportProgress], None]


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did.

    Attributes:
        group: The group.
        rows: Rows of the file.
        known_rows: How many of them an earlier import of the same file had written, in a stream group.
        revision: The new revision of a batch group.
    """

    group: str
    rows: int
    known_rows: int = 0
    revision: Revision | None = None
