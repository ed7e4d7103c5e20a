"""Refused events are spoken of: why, how many, where the first one is, and not too often."""

from __future__ import annotations

import logging

import pytest

from oomstream.schemas.errors import InvalidEvent, Reason
from oomstream.schemas.events import RawRecord, Rejected
from oomstream.streams.refused import EVERY_S, RefusedLog, reasons_text


def rejected(reason: Reason, offset: int) -> Rejected:
    """One refused record."""
    return Rejected(RawRecord(offset, None, b"secret", 0), InvalidEvent(reason, "why"))


def test_reasons_are_counted() -> None:
    """Reasons come by number, with the first offset."""
    batch = [rejected(Reason.TOO_LARGE, 7), *(rejected(Reason.UNKNOWN_FRAMING, n) for n in range(8, 1_010))]
    assert reasons_text(batch) == "1,002 unknown_framing, 1 too_large, the first at offset 7"


def test_said_at_once_then_seldom(caplog: pytest.LogCaptureFixture) -> None:
    """The first refusal is said at once; what follows within ten seconds is said together, at the end at the latest."""
    now_s = 0.0
    refused = RefusedLog("rides[0]", clock=lambda: now_s)
    with caplog.at_level(logging.WARNING):
        refused.add([rejected(Reason.TOO_LARGE, 3)])
        for offset in range(4, 9):
            refused.add([rejected(Reason.UNKNOWN_FRAMING, offset)])
        assert caplog.messages == [
            "rides[0]: 1 event refused (1 too_large, the first at offset 3): see `oomstream dlq list`"
        ]
        now_s = EVERY_S
        refused.add([rejected(Reason.TOO_LARGE, 9)])
        refused.add([rejected(Reason.TOO_LARGE, 10)])
        refused.say()
        refused.say()
    assert caplog.messages[1:] == [
        "rides[0]: 6 events refused (5 unknown_framing, 1 too_large, the first at offset 4): see `oomstream dlq list`",
        "rides[0]: 1 event refused (1 too_large, the first at offset 10): see `oomstream dlq list`",
    ]
