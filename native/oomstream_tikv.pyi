"""TiKV, a whole batch per call; see README.md beside this file.

Every method that begins a call returns its number at once. When calls have ended, `Driver.fileno` is readable, and
`Driver.ended` has their results. Nothing here waits, and no thread behind it touches Python.
"""

from collections.abc import Sequence
from typing import Any, final

@final
class Driver:
    """A cluster and the calls to it; does no I/O until `connect`.

    Args:
        pd: host:port of each PD server, none of them twice.
        tls: Paths of PEM files: the authorities to trust, the client's certificate, its private key. None = no TLS.
    """

    def __new__(cls, pd: Sequence[str], *, tls: tuple[str, str, str] | None = None) -> Driver: ...
    def fileno(self) -> int:
        """The socket that is readable when a call has ended."""

    def connect(self, timeout_s: float) -> int:
        """Result: a `Session`."""

    def leave(self, call: int) -> None:
        """Nobody waits for this call any more.

        A read is stopped. A write ends what it is committing, and begins nothing more; so does one that is out of time.
        """

    def ended(self) -> list[tuple[int, str | None, Any]]:
        """(number, what went wrong or None, result) of the calls that have ended since the last time."""

@final
class Session:
    """A connection to the cluster. Lets go of it when it is deleted."""

    def read(self, keys: Sequence[bytes], timeout_s: float) -> int:
        """Result: (values in the order of the keys, None where there is none; 0)."""

    def read_aged(self, keys: Sequence[bytes], max_age_s: float, timeout_s: float) -> int:
        """Like `read`, but where rows stay locked, of just before their locks.

        A timestamp that was asked for at most `max_age_s` ago is used again. The second part of the result is the age
        of what was read, in microseconds.
        """

    def scan(self, start: bytes, end: bytes, limit: int, timeout_s: float) -> int:
        """Result: [(key, value)] of the first rows with `start` <= key < `end`, in key order."""

    def upsert_newer(
        self, rows: Sequence[tuple[bytes, bytes]], version: tuple[int, int], or_equal: bool, timeout_s: float
    ) -> int:
        """Write rows whose bytes version[0]:version[1] of the value are greater than those that are stored.

        Result: (how many were written, what went wrong with others or None).
        """

    def replace(self, changes: Sequence[tuple[bytes, bytes | None, bytes | None]], timeout_s: float) -> int:
        """For each (key, found, value): put the value, or delete if it is None, if `found` is what is stored.

        Result: as of `upsert_newer`.
        """

    def delete(self, keys: Sequence[bytes], timeout_s: float) -> int:
        """Result: as of `upsert_newer`."""

    def gc(self, age_s: float, timeout_s: float) -> int:
        """Move PD's safe point to so long ago. Result: whether that moved it forwards."""

def finish(timeout_s: float) -> bool:
    """Before the process ends: wait for what is under way; whether it has ended. No session works afterwards.

    In a fork of the process that used it there is nothing to wait for.
    """
