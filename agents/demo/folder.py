"""The demo's own folder: made, and emptied before each run, but only if it is the demo's."""

from __future__ import annotations

import shutil
from pathlib import Path

from oomstream.schemas.errors import InvalidRequest

MARKER = ".made-by-oomstream-demo"
_NOTE = "oomstream demo made this folder and empties it before each run.\n"


def fresh_folder(folder: Path) -> None:
    """Make the folder, or empty it if an earlier demo made it.

    Raises:
        InvalidRequest: The folder holds something and no demo made it, or it is no folder; nothing was touched.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InvalidRequest(f"{folder} is not a folder: name another one with --folder")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).is_file():
            raise InvalidRequest(
                f"the folder {folder} holds files that no demo made: empty it, or name another one with --folder"
            )
        for inside in folder.iterdir():
            if inside.is_dir() and not inside.is_symlink():
                shutil.rmtree(inside)
            elif inside.name != MARKER:  # it goes on marking the folder, should this be broken off
                inside.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text(_NOTE, encoding="utf-8")
