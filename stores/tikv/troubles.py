"""What the client's errors mean: one table from their texts to what to do about them.

tikv-client raises bare ``Exception`` whose text is a Rust error, with the keys concerned in it: the texts are matched
here and never shown. Every one was provoked from a server (tests/unit/stores/tikv/test_troubles.py has them), except
those marked [read], which are known from the client's source.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple


class Remedy(Enum):
    """What the driver does about an error."""

    AGAIN = "again"
    """Another transaction was in the way: the client is well, try again."""

    HALVE = "halve"
    """The answer is larger than the client takes: ask for less at once."""

    COUNT = "count"
    """The servers did not do it: try again, with a new client after the second failure in a row."""

    RENEW = "renew"
    """This client will never work again: try again with a new one."""

    STOP = "stop"
    """Trying again cannot help."""


class Trouble(NamedTuple):
    """One kind of error.

    Attributes:
        remedy: What the driver does.
        said: What is wrong, for the message.
        advice: What to do about it, for the message.
    """

    remedy: Remedy
    said: str
    advice: str


_RUNS = "see that TiKV runs and that this machine reaches the address which PD tells of it"
_PD_RUNS = "see that PD runs and that the URL names it"
_LOGS = "see TiKV's log"

NO_ANSWER = Trouble(Remedy.RENEW, "there was no answer in time", "see that PD and TiKV run and are reachable")
"""A call that ran into its deadline."""

LOST_COMMIT = Trouble(
    Remedy.RENEW, "TiKV's client reports commits that write nothing", "see that every region of TiKV has a leader"
)
"""A commit that is not there when it is read back."""


class LostCommit(Exception):
    """A commit that the client reported as done did not write everything."""


class NativeFault(Exception):
    """What oomstream-tikv, or what stands before it, says went wrong: words of the table below."""


NO_TLS = "no TLS with PD"
"""Word of a connection to PD that TLS, or the lack of a PD, has prevented."""


UNKNOWN = Trouble(Remedy.COUNT, "TiKV's client failed in a way that oomstream does not know", _LOGS)
"""An error that is not in the table."""

_TABLE: tuple[tuple[str, Trouble], ...] = (
    ("no answer in time", NO_ANSWER),
    (
        NO_TLS,
        Trouble(
            Remedy.COUNT,
            "PD does not answer, or TLS with it fails",
            "see that PD runs with TLS, that its certificate has the name in the URL, and that either side trusts the "
            "other's authority",
        ),
    ),
    (
        "TLS authorities",
        Trouble(
            Remedy.COUNT,
            "the file that the URL's ca names cannot be read, or holds no certificate of an authority",
            "correct the URL or the file",
        ),
    ),
    (
        "TLS certificate and key",
        Trouble(
            Remedy.COUNT,
            "the files that the URL's certificate and key name cannot be read, are not a pair, or the key is encrypted",
            "correct the URL or the files",
        ),
    ),
    (
        "WriteConflict",
        Trouble(Remedy.AGAIN, "other writers change the same rows without a pause", "have fewer writers of one group"),
    ),
    (
        "Failed to resolve lock",
        Trouble(Remedy.AGAIN, "rows are locked by a writer that does not go on", "try again in a few seconds"),
    ),
    (
        "message length too large",
        Trouble(Remedy.HALVE, "one row is larger than TiKV's client takes in one answer", "have smaller rows"),
    ),
    (
        "raft entry is too large",
        Trouble(Remedy.STOP, "TiKV refuses a row for its size", "raise raftstore.raft-entry-max-size in TiKV"),
    ),
    (
        "TimestampRequest channel is closed",
        Trouble(Remedy.RENEW, "the connection to PD was lost", _PD_RUNS),
    ),
    ("TSO stream terminated", Trouble(Remedy.RENEW, "the connection to PD was lost", _PD_RUNS)),  # [read]
    (
        "Leader of region",
        Trouble(Remedy.RENEW, "a region of TiKV has no leader", "see that enough TiKV servers run"),
    ),
    ("PD cluster failed to respond", Trouble(Remedy.COUNT, "PD does not answer", _PD_RUNS)),
    ("failed to connect to [Member", Trouble(Remedy.COUNT, "PD does not answer", _PD_RUNS)),
    (
        "cluster_id mismatch",  # [read]
        Trouble(Remedy.STOP, "the PD servers in the URL belong to different clusters", "correct the URL"),
    ),
    ("tcp connect error", Trouble(Remedy.COUNT, "TiKV refuses connections", _RUNS)),
    ("error trying to connect", Trouble(Remedy.COUNT, "TiKV cannot be connected to", _RUNS)),
    ("transport error", Trouble(Remedy.COUNT, "the connection to TiKV broke", _RUNS)),
    ("Timeout expired", Trouble(Remedy.COUNT, "TiKV does not answer", _RUNS)),
    ("DeadlineExceeded", Trouble(Remedy.COUNT, "TiKV does not answer", _RUNS)),
    ("disk_full: Some", Trouble(Remedy.COUNT, "TiKV's disk is full", "give TiKV more room")),  # [read]
    ("server_is_busy: Some", Trouble(Remedy.COUNT, "TiKV is overloaded", "write less or add TiKV servers")),  # [read]
    ("Region error", Trouble(Remedy.COUNT, "regions of TiKV are moving", _LOGS)),  # [read]
    ("is not found for", Trouble(Remedy.COUNT, "regions of TiKV are moving", _LOGS)),  # [read]
    ("undetermined", Trouble(Remedy.COUNT, "the connection to TiKV broke during a commit", _RUNS)),  # [read]
    # What is left of errors about single keys: a lock that was taken away, a commit that came too late.
    ("ey error", Trouble(Remedy.AGAIN, "TiKV refuses to commit", _LOGS)),  # [read]
    ("gRPC api error", Trouble(Remedy.COUNT, "TiKV refuses a call", _LOGS)),
)


def trouble_of(error: BaseException) -> Trouble | None:
    """What an error from either client means; None if neither raised it."""
    if isinstance(error, TimeoutError):
        return NO_ANSWER
    if isinstance(error, LostCommit):
        return LOST_COMMIT
    # Bare Exception is all that tikv-client raises; a panic in Rust is a BaseException of a class that has no module.
    if type(error) not in {Exception, NativeFault} and type(error).__name__ not in {"PanicException", "RustPanic"}:
        return None
    text = str(error)
    return next((trouble for fragment, trouble in _TABLE if fragment in text), UNKNOWN)


def answer_bytes(error: BaseException) -> int:
    """Size of the answer that was refused with `Remedy.HALVE`; 0 if the error does not tell."""
    found = re.search(r"found (\d+) bytes", str(error))
    return int(found[1]) if found else 0
