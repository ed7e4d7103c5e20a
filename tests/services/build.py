"""Things built once for all checkouts, kept in a cache: ``${XDG_CACHE_HOME:-~/.cache}/oomstream/services/``."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

_LOCK_TIMEOUT_S = 3_600.0
_LOCK_POLL_S = 0.2
_TAIL_LINES = 30


class BuildFailed(Exception):
    """Raised when a build command fails; its text ends with the tail of what the command printed."""


def cache_folder() -> Path:
    """The folder that holds what was built."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "oomstream" / "services"


def built(name: str, inputs: Iterable[Path], build: Callable[[Path], None]) -> Path:
    """Return the folder that `build` filled, building it if no one has yet.

    Two processes that want the same wait for each other; a build that is killed leaves nothing that is taken for one.

    Args:
        name: Name and version.
        inputs: The files that decide what is built; another content is another build.
        build: Fills an empty folder, whose path does not stay.

    Raises:
        BuildFailed: A command of the build failed.
    """
    digest = hashlib.sha256()
    for path in sorted(inputs):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    cache = cache_folder()
    done = cache / f"{name}-{digest.hexdigest()[:12]}"
    if done.is_dir():
        return done
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{done.name}.lock"):
        if done.is_dir():
            return done
        for left_over in cache.glob(f"{done.name}.part-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        part = Path(tempfile.mkdtemp(prefix=f"{done.name}.part-", dir=cache))
        try:
            began = time.monotonic()
            print(f"building {name} …", file=sys.stderr, flush=True)
            build(part)
            part.rename(done)
            print(f"built {name} in {time.monotonic() - began:.0f} s: {done}", file=sys.stderr, flush=True)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return done


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BuildFailed(f"another process has held {path} for {_LOCK_TIMEOUT_S:.0f} s") from None
                time.sleep(_LOCK_POLL_S)
        yield


def run(argv: Sequence[str], folder: Path, timeout_s: float) -> None:
    """Run a command in a folder to its end.

    Raises:
        BuildFailed: It failed, or took longer than `timeout_s`.
    """
    command = " ".join(argv)
    try:
        ended = subprocess.run(
            argv,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise BuildFailed(f"{command} took more than {timeout_s:.0f} s") from exc
    if ended.returncode != 0:
        tail = "\n".join(ended.stdout.decode(errors="replace").splitlines()[-_TAIL_LINES:])
        raise BuildFailed(f"{command} ended with code {ended.returncode}:\n{tail}")


def lacking(*programs: str) -> str:
    """Which of the programs this machine lacks, as a clause; empty if none."""
    absent = [program for program in programs if shutil.which(program) is None]
    return f"{' and '.join(absent)} not found" if absent else ""
