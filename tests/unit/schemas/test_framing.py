"""Framings, and the message keys of tombstones."""

from __future__ import annotations

import pytest

from oomstream.schemas.errors import InvalidEvent, Reason
from oomstream.schemas.events import Plain
from oomstream.schemas.framing import (
    Framed,
    Framing,
    detect,
    frame,
    frame_confluent,
    parse_tombstone_key,
    tombstone_key,
)
from oomstream.schemas.groups import KeyField
from oomstream.schemas.types import Kind, ValueType

TEXT = KeyField("text", ValueType(Kind.STRING))
RAW = KeyField("raw", ValueType(Kind.BYTES))
SMALL = KeyField("small", ValueType(Kind.INT))
NUMBER = KeyField("number", ValueType(Kind.LONG))
DAY = KeyField("day", ValueType(Kind.DATE))


def test_what_is_framed_is_detected() -> None:
    """Each framing is told from its first bytes."""
    assert detect(frame(b"12345678", b"body")) == Framed(Framing.SINGLE_OBJECT, b"body", fingerprint=b"12345678")
    assert frame(b"12345678", b"body") == b"\xc3\x0112345678body"
    assert detect(frame_confluent(258, b"body")) == Framed(Framing.CONFLUENT, b"body", schema_id=258)
    assert frame_confluent(258, b"body") == b"\0\0\0\x01\x02body"
    for text in (b"{}", b" \n{}", b"[1]", b'"a"', b"-1", b"true"):
        assert detect(text) == Framed(Framing.JSON, text)


@pytest.mark.parametrize(
    ("key", "fields", "raw"),
    [
        (("a b",), [TEXT], b"a b"),
        (("é\0",), [TEXT], "é\0".encode()),
        (('["x"]',), [TEXT], b'["x"]'),
        ((b"\xff\0",), [RAW], b"\xff\0"),
        ((-5,), [NUMBER], b"-5"),
        ((0,), [SMALL], b"0"),
        ((19_000,), [DAY], b"2022-01-08"),
        (("1", "11"), [TEXT, TEXT], b'["1","11"]'),
        (("é", b"\xff", 7, 19_000), [TEXT, RAW, NUMBER, DAY], '["é","/w==",7,"2022-01-08"]'.encode()),
    ],
)
def test_tombstone_keys(key: tuple[Plain, ...], fields: list[KeyField], raw: bytes) -> None:
    """An entity's message key is text, raw bytes, decimal text, an ISO date, or a JSON array of several parts."""
    assert tombstone_key(key, fields) == raw
    assert parse_tombstone_key(raw, fields) == key


@pytest.mark.parametrize(
    ("raw", "fields", "reason"),
    [
        (None, [TEXT], Reason.KEY_MISSING),
        (b"", [TEXT], Reason.KEY_EMPTY),
        (b"", [RAW], Reason.KEY_EMPTY),
        (b"", [NUMBER], Reason.KEY_EMPTY),
        (b"", [DAY], Reason.KEY_EMPTY),
        (b"\xff", [TEXT], Reason.INVALID_TEXT),
        (b"x" * 256, [RAW], Reason.KEY_TOO_LONG),
        (b"x" * 100_000, [TEXT], Reason.KEY_TOO_LONG),
        (b"1.0", [NUMBER], Reason.WRONG_TYPE),
        (b"01", [NUMBER], Reason.WRONG_TYPE),
        (b"-0", [NUMBER], Reason.WRONG_TYPE),
        (b"+1", [NUMBER], Reason.WRONG_TYPE),
        (b" 1", [NUMBER], Reason.WRONG_TYPE),
        (b"1\n", [NUMBER], Reason.WRONG_TYPE),
        ("١".encode(), [NUMBER], Reason.WRONG_TYPE),
        (b"9" * 5000, [NUMBER], Reason.WRONG_TYPE),
        (b"9" * 19, [SMALL], Reason.OUT_OF_RANGE),
        (b"9" * 20, [NUMBER], Reason.OUT_OF_RANGE),
        (b"2022-1-8", [DAY], Reason.WRONG_TYPE),
        (b"19000", [DAY], Reason.WRONG_TYPE),
        (b"a", [TEXT, TEXT], Reason.MALFORMED_JSON),
        (b"{}", [TEXT, TEXT], Reason.WRONG_TYPE),
        (b'["a"]', [TEXT, TEXT], Reason.WRONG_TYPE),
        (b'["a","b","c"]', [TEXT, TEXT], Reason.WRONG_TYPE),
        (b'["a",1]', [TEXT, TEXT], Reason.WRONG_TYPE),
        (b'["a",null]', [TEXT, TEXT], Reason.KEY_MISSING),
        (b'["a",""]', [TEXT, TEXT], Reason.KEY_EMPTY),
        (b'["a","1"]', [TEXT, NUMBER], Reason.WRONG_TYPE),
        (b'["a",1.0]', [TEXT, NUMBER], Reason.WRONG_TYPE),
        (b'["a",99999999999999999999]', [TEXT, NUMBER], Reason.OUT_OF_RANGE),
        (b"[" * 60_000, [TEXT, TEXT], Reason.MALFORMED_JSON),
    ],
)
def test_other_message_keys_are_no_entity(raw: bytes | None, fields: list[KeyField], reason: Reason) -> None:
    """A tombstone's message key that is not exactly one entity key is refused, and the part is named."""
    with pytest.raises(InvalidEvent) as caught:
        parse_tombstone_key(raw, fields, where="ride")
    assert caught.value.reason is reason
    assert str(caught.value).startswith("ride")
