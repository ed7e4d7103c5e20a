"""Times and dates as integers since 1970-01-01 UTC, and the texts people write for them.

Source:
    RFC 3339, section 5.6; design.md, section 3 (JSON forms).
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

from oomstream.schemas.errors import InvalidEvent, Reason

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Where times count from."""

EPOCH_DATE = date(1970, 1, 1)
"""Where days count from."""

MICROSECOND = timedelta(microseconds=1)
"""The smallest difference between two times."""

MIN_TIME_US = (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
"""The earliest time that Python can represent."""

MAX_TIME_US = (datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC) - EPOCH) // MICROSECOND
"""The latest time that Python can represent."""

MIN_DAY = (date(1, 1, 1) - EPOCH_DATE).days
"""The earliest date that Python can represent."""

MAX_DAY = (date(9999, 12, 31) - EPOCH_DATE).days
"""The latest date that Python can represent."""

# datetime.fromisoformat also takes dates alone, week dates and times without an offset: none of them is RFC 3339.
_RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,18}))?(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))", re.ASCII
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def time_from_us(time_us: int) -> datetime:
    """Aware UTC datetime of integer microseconds."""
    return EPOCH + timedelta(microseconds=time_us)


def us_from_time(time: datetime) -> int:
    """Integer UTC microseconds of a datetime; a naive one is UTC."""
    if time.utcoffset() is None:
        time = time.replace(tzinfo=UTC)
    return (time - EPOCH) // MICROSECOND


def us_from_text(text: str) -> int:
    """UTC microseconds of RFC 3339 text with an offset.

    Digits after the sixth of a second's fraction must be zeros. A leap second (``:60``) is refused: integers since
    1970 have no place for it.

    Raises:
        InvalidEvent: Not such text.
    """
    found = _RFC_3339.fullmatch(text)
    if found is None:
        raise InvalidEvent(Reason.WRONG_TYPE, "is not RFC 3339 text with an offset")
    day, clock, fraction, sign, hours, minutes = found.groups()
    try:
        time = datetime.fromisoformat(f"{day}T{clock}+00:00")
    except ValueError as exc:
        raise InvalidEvent(Reason.WRONG_TYPE, "is not a time of the calendar") from exc
    time_us = (time - EPOCH) // MICROSECOND
    if fraction:
        if fraction[6:].strip("0"):
            raise InvalidEvent(Reason.OUT_OF_RANGE, "has a part smaller than a microsecond")
        time_us += int(fraction[:6].ljust(6, "0"))
    if sign:
        offset_us = (int(hours) * 60 + int(minutes)) * 60_000_000
        time_us += offset_us if sign == "-" else -offset_us
    return time_us


def day_from_text(text: str) -> int:
    """Days since 1970-01-01 of a date as YYYY-MM-DD.

    Raises:
        ValueError: Not such a date.
    """
    if not _DATE.fullmatch(text):  # fromisoformat also takes week dates
        raise ValueError("is not a date as YYYY-MM-DD")
    return (date.fromisoformat(text) - EPOCH_DATE).days
