"""oomstore's published Python client, as PyPI has it: built from its source, which is Rust, and kept in the cache."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.services import build

VERSION = "0.1.0"
_BUILD_TIMEOUT_S = 1_800.0


def missing() -> str:
    """The sentence that says what this machine lacks to build it; empty if nothing."""
    lacking = build.lacking("cargo")
    return f"oomclient {VERSION} cannot be built: {lacking}. Try: install Rust (rustup)" if lacking else ""


def folder() -> Path:
    """Return the folder to have on the path of Python, built the first time (about 4 minutes on 2 cores).

    Raises:
        BuildFailed: pip or cargo failed.
    """
    wanted = f"oomclient=={VERSION}"

    def make(target: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        build.run([*pip, "--no-deps", "--target", str(target), wanted], target, _BUILD_TIMEOUT_S)

    python = f"{sys.implementation.cache_tag}-{sys.platform}"
    return build.built(f"oomclient-{VERSION}-{python}", [], make)
