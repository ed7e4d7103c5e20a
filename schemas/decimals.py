"""Exact decimals: their text, and their unscaled integers. Never through a context, which would round to 28 digits."""

from __future__ import annotations

import re
from decimal import Decimal

from oomstream.schemas.errors import InvalidEvent, Reason

MAX_DECIMAL_PRECISION = 38
"""Most digits of a decimal: what Arrow and the databases hold."""

MAX_DECIMAL_TEXT = 128
"""Most characters of a decimal in a JSON event."""

_TEXT = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?", re.ASCII)


def decimal_text(unscaled: int, scale: int) -> str:
    """Exact text of a decimal, with all digits of its scale."""
    digits = str(abs(unscaled)).rjust(scale + 1, "0")
    sign = "-" if unscaled < 0 else ""
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}" if scale else f"{sign}{digits}"


def unscaled_from_text(text: str, scale: int) -> int:
    """Unscaled integer of text that `decimal_text` wrote."""
    whole, _, fraction = text.partition(".")
    return int(whole + fraction.ljust(scale, "0"))


def unscaled_from_decimal(value: Decimal, precision: int, scale: int) -> int:
    """Unscaled integer of a decimal that must fit exactly.

    Raises:
        InvalidEvent: It is not finite, or has more digits than the type, before or after the point.
    """
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise InvalidEvent(Reason.NOT_FINITE, "is not a finite number")
    if not value:
        return 0
    # These two bounds also keep the powers of ten below small, whatever the exponent is.
    if value.adjusted() >= precision - scale:
        raise InvalidEvent(Reason.OUT_OF_RANGE, f"has more than {precision - scale} digits before the point")
    if value.adjusted() < -scale:
        raise InvalidEvent(Reason.OUT_OF_RANGE, f"has more than {scale} digits after the point")
    dropped = -(exponent + scale)
    if dropped > 0 and any(digits[-dropped:]):
        raise InvalidEvent(Reason.OUT_OF_RANGE, f"has more than {scale} digits after the point")
    kept = "".join(map(str, digits[:-dropped] if dropped > 0 else digits))
    unscaled = int(kept + "0" * -dropped)
    return -unscaled if sign else unscaled


def decimal_from_text(text: str) -> Decimal:
    """The decimal in a JSON event's text: digits with an optional sign and point, no exponent.

    Raises:
        ValueError: Not such text.
    """
    if len(text) > MAX_DECIMAL_TEXT or not _TEXT.fullmatch(text):
        raise ValueError("is not a decimal number as text")
    return Decimal(text)
