"""Feast in a virtual environment of its own, since what it needs is not what we need; kept beside the test servers."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.services import build

REQUIREMENTS = Path(__file__).with_name("feast-requirements.txt")
_TIMEOUT_S = 900.0


def python() -> str:
    """The interpreter of the environment, which is made the first time (half a minute).

    Raises:
        BuildFailed: It cannot be made; the text ends with what pip printed.
    """

    def make(folder: Path) -> None:
        build.run([sys.executable, "-m", "venv", str(folder)], folder, _TIMEOUT_S)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        build.run([*pip, "--requirement", str(REQUIREMENTS)], folder, _TIMEOUT_S)

    tag = f"{sys.implementation.cache_tag}-{sys.platform}"
    return str(build.built(f"feast-{tag}", [REQUIREMENTS], make) / "bin" / "python")
