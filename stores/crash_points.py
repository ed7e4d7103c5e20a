"""Numbered places in the pipeline at which a test can have the process killed or frozen; none is armed by itself."""

from __future__ import annotations

import os
import re
import signal
from typing import NamedTuple

from oomstream.schemas.errors import InvalidSetting

PIPELINE_POINTS = (
    "after_poll",
    "after_dlq",
    "before_history_commit",
    "after_history_commit",
    "after_history",
    "in_online_batch",
    "after_online",
    "before_ack",
    "while_claiming",
    "during_drain",
)
"""Those that a worker passes, in the order in which a batch does (the two after `before_ack` belong to none).

`after_history_commit` is in the store, the COMMIT just answered; `after_history` is between history and online, when
the position is known; `in_online_batch` has a part of the rows written where a store commits them in parts (TiKV), and
all of them but the commit elsewhere.
"""

REVISION_POINTS = (
    "before_revision_commit",
    "after_revision_commit",
    "after_publish",
    "in_sync",
    "before_flip",
    "after_flip",
    "in_purge",
)
"""Those of a revision on its way in (import) and online (sync)."""

POINTS = PIPELINE_POINTS + REVISION_POINTS
"""Every point, numbered from 1."""

_SPEC = re.compile(r"(?P<point>\w+?)(?::(?P<times>[1-9][0-9]*))?(?P<freeze>:freeze)?")


class _Armed(NamedTuple):
    point: str
    left: int
    signal: signal.Signals


_armed: _Armed | None = None


def arm(spec: str | None) -> None:
    """Arm one point, or disarm all.

    Args:
        spec: ``POINT`` or ``POINT:N``, by name or number: die when it is reached for the N-th time (1 = the first).
            With ``:freeze`` behind it, stop as by SIGSTOP instead of dying. None = never.

    Raises:
        InvalidSetting: No such point, or N is not a positive number.
    """
    global _armed
    _armed = None
    if spec is None:
        return
    found = _SPEC.fullmatch(spec)
    names = dict(enumerate(POINTS, 1))
    point = found and names.get(int(found["point"]) if found["point"].isdigit() else 0, found["point"])
    if found is None or point not in POINTS:
        raise InvalidSetting(f"no crash point {spec!r}; write one of {', '.join(POINTS)}, or POINT:N for the N-th time")
    _armed = _Armed(point, int(found["times"] or 1), signal.SIGSTOP if found["freeze"] else signal.SIGKILL)


def reach(point: str) -> None:
    """Die by SIGKILL, or freeze by SIGSTOP, if this point is armed and due."""
    global _armed
    if _armed is None or _armed.point != point:
        return
    due, number = _armed.left == 1, _armed.signal
    _armed = None if due else _armed._replace(left=_armed.left - 1)
    if due:
        os.kill(os.getpid(), number)
