"""Durations as people write them: ``7d``, ``90m``, ``500ms``."""

from __future__ import annotations

import re

_UNITS_US = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_PART = re.compile(r"(\d+)(us|ms|s|m|h|d)", re.ASCII)
MAX_DURATION_US = 36_525 * _UNITS_US["d"]
"""The longest duration that is accepted, a century."""


def parse_duration_us(text: str) -> int:
    """Microseconds of a duration such as ``7d``, ``90m``, ``500ms`` or ``1h30m``.

    Raises:
        ValueError: The text is not such a duration, or longer than a century; says what one looks like.
    """
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text[:40]!r} is not a duration such as 7d, 12h, 90m, 30s or 500ms")
    total = sum(int(number) * _UNITS_US[unit] for number, unit in parts if len(number) < 20)
    if total > MAX_DURATION_US or any(len(number) >= 20 for number, _ in parts):
        raise ValueError(f"{text[:40]!r} is longer than a century")
    return total


def format_duration(duration_us: int) -> str:
    """The shortest text for a duration, in the largest unit that divides it."""
    for unit in ("d", "h", "m", "s", "ms"):
        if duration_us and duration_us % _UNITS_US[unit] == 0:
            return f"{duration_us // _UNITS_US[unit]}{unit}"
    return f"{duration_us}us"
