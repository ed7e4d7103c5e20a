"""Durations as people write them: ``7d``, ``90m``, ``500ms``; and as Go does: ``24h0m0s``, ``1.5s``."""

from __future__ import annotations

import re
from fractions import Fraction

_UNITS_US = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_PART = re.compile(r"(\d+)(us|ms|s|m|h|d)", re.ASCII)
_GO_PART = re.compile(r"(\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_GO_UNITS_US = {**{unit: Fraction(us) for unit, us in _UNITS_US.items()}, "ns": Fraction(1, 1000)}
_GO_UNITS_US |= dict.fromkeys(("µs", "μs"), Fraction(1))
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


def parse_go_duration_us(text: str) -> int:
    """Microseconds of a duration as Go writes it, such as ``24h``, ``1h30m`` or ``1.5s``; less than one is cut off.

    Raises:
        ValueError: The text is not such a duration, or longer than a century.
    """
    if text in {"", "0"}:
        return 0
    parts = _GO_PART.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text[:40]!r} is not a duration such as 24h, 1h30m or 10s")
    total = sum((Fraction(number) * _GO_UNITS_US[unit] for number, unit in parts), Fraction(0))
    if total > MAX_DURATION_US:
        raise ValueError(f"{text[:40]!r} is longer than a century")
    return int(total)


def format_go_duration(duration_us: int) -> str:
    """A duration as Go prints it: ``0s``, ``500ms``, ``1.5s``, ``24h0m0s``."""
    if 0 < duration_us < 1_000_000:
        return f"{_decimal(duration_us, 1_000)}ms" if duration_us >= 1_000 else f"{duration_us}µs"
    minutes, rest_us = divmod(duration_us, 60_000_000)
    seconds = f"{_decimal(rest_us, 1_000_000)}s"
    if not minutes:
        return seconds
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}"


def _decimal(number: int, unit: int) -> str:
    whole, part = divmod(number, unit)
    digits = len(str(unit)) - 1
    return f"{whole}.{part:0{digits}}".rstrip("0").rstrip(".")
