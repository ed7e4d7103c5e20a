"""Why a run of the torture ends early."""

from __future__ import annotations


class TortureFailed(Exception):
    """The run cannot go on: something hangs, or ended by itself; its text says what, and where to look."""
