"""A moment on the event loop's clock by which something must be over."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Self


class Deadline(NamedTuple):
    """A deadline; all steps of one call share one.

    Attributes:
        at: Time of the running event loop's clock, seconds.
    """

    at: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """The deadline so many seconds from now."""
        return cls(asyncio.get_running_loop().time() + seconds)

    def left_s(self) -> float:
        """Seconds until it, 0 if it is over."""
        return max(0.0, self.at - asyncio.get_running_loop().time())

    def no_later_than(self, seconds: float) -> Deadline:
        """This deadline, or the one so many seconds from now if that is sooner."""
        return min(self, Deadline.after(seconds))
