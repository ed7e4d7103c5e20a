"""The server's files that clients may name: those of one folder, and nothing else of the machine."""

from __future__ import annotations

from pathlib import Path

from oomstream.schemas.errors import InvalidRequest, InvalidSetting

OUTPUT_SUFFIXES = (".csv", ".parquet", ".arrow", ".feather")
"""What results are written as; a file of any other name is never overwritten, nor made."""


class SharedFiles:
    """Turns the paths that clients send into files below one folder.

    Links are followed first, so one that leads out of the folder leads nowhere. Names that begin with a dot, and the
    stores' own folder, are out of bounds. Whoever may write to the folder on the server itself is trusted.

    Args:
        folder: The folder; None = no files are shared.
        private: A folder within it that is not shared.
    """

    def __init__(self, folder: Path | None, private: Path) -> None:
        self._folder = None if folder is None else folder.resolve()
        self._private = private.resolve()

    def input(self, name: str) -> Path:
        """A file to read.

        Raises:
            InvalidRequest: It is not in the folder, or no file.
            InvalidSetting: No files are shared.
        """
        path = self._resolved(name)
        if not path.is_file():  # nor a pipe, which would be waited for
            raise InvalidRequest(f"there is no file {_shown(name)} on the server")
        return path

    def output(self, name: str) -> Path:
        """A file to write; its name says its format.

        Raises:
            InvalidRequest: It is not in the folder, its name does not end as that of data, or it is no file.
            InvalidSetting: No files are shared.
        """
        path = self._resolved(name)
        if path.suffix.lower() not in OUTPUT_SUFFIXES:
            raise InvalidRequest(f"cannot write {_shown(name)}: its name must end with {', '.join(OUTPUT_SUFFIXES)}")
        if not path.parent.is_dir() or (path.exists() and not path.is_file()):
            raise InvalidRequest(f"cannot write {_shown(name)}: its folder is not on the server, or it is no file")
        return path

    def _resolved(self, name: str) -> Path:
        if self._folder is None:
            raise InvalidSetting("this server shares no files: set OOMSTREAM_SERVE_FILES to the folder that it may use")
        try:
            path = (self._folder / name).resolve()
            path.exists()
        except (OSError, RuntimeError, ValueError) as exc:  # a loop of links, a zero byte, a name too long, no right
            raise InvalidRequest(f"{_shown(name)} is no path") from exc
        if not name or not path.is_relative_to(self._folder):
            raise InvalidRequest(f"{_shown(name)} is not in the folder that the server shares (OOMSTREAM_SERVE_FILES)")
        hidden = any(part.startswith(".") for part in path.relative_to(self._folder).parts)
        if hidden or path.is_relative_to(self._private):
            raise InvalidRequest(f"{_shown(name)} is not shared: hidden files and the stores' own folder never are")
        return path


def _shown(name: str) -> str:
    return repr(name if len(name) <= 200 else f"{name[:200]}…")
