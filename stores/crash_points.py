"""Numbered places in the pipeline at which a test can have the process killed; nothing happens unless one is armed."""

from __future__ import annotations

import os
import signal

from oomstream.schemas.errors import InvalidSetting

POINTS = (
    "after_poll",
    "after_dlq",
    "before_history_commit",
    "after_history",
    "in_online_batch",
    "after_online",
    "before_ack",
    "while_claiming",
    "during_drain",
)
"""Every point, in the order in which a batch passes them (the last two belong to no batch)."""

_armed: dict[str, int] = {}


def arm(spec: str | None) -> None:
    """Arm one point, or disarm all.

    Args:
        spec: ``point`` or ``point:n``: die when the point is reached for the n-th time (1 = the first); None = never.

    Raises:
        InvalidSetting: No such point, or n is not a positive number.
    """
    _armed.clear()
    if spec is None:
        return
    point, _, times = spec.partition(":")
    if point not in POINTS or not (times or "1").isdigit() or times == "0":
        raise InvalidSetting(f"no crash point {spec!r}; write one of {', '.join(POINTS)}, or POINT:N for the N-th time")
    _armed[point] = int(times or 1)


def reach(point: str) -> None:
    """Die by SIGKILL if this point is armed and due."""
    if not _armed:
        return
    left = _armed.get(point)
    if left is not None:
        _armed[point] = left - 1
        if left == 1:
            os.kill(os.getpid(), signal.SIGKILL)
