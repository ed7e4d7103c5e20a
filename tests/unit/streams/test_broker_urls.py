"""Broker URLs: the two forms, and one clear sentence for everything else."""

from __future__ import annotations

import pytest

from oomstream.schemas.errors import InvalidSetting
from oomstream.streams.broker import Broker, parse_broker


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("kafka://broker", Broker(("broker:9092",))),
        ("kafka://b1:9092,b2:9093", Broker(("b1:9092", "b2:9093"))),
        ("kafka://[::1]:9092/", Broker(("[::1]:9092",))),
        ("embedded://127.0.0.1:41/ab-cd/42", Broker(("127.0.0.1:41",), "ab-cd", 42)),
    ],
)
def test_forms(url: str, expected: Broker) -> None:
    """Both forms are read, default ports filled in, and written back as they are read."""
    assert parse_broker(url) == expected
    assert parse_broker(expected.url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "broker:9092",
        "http://broker:9092",
        "kafka://",
        "kafka://a,,b",
        "kafka://a:99999",
        "kafka://a:b",
        "kafka://a/topic",
        "kafka://user:secret@a",
        "kafka://a?x=1",
        "embedded://127.0.0.1:41",
        "embedded://127.0.0.1:41/ab",
        "embedded://127.0.0.1:41,127.0.0.1:42/ab/43",
        "embedded://127.0.0.1:41/ab/port",
    ],
)
def test_anything_else_is_refused(url: str) -> None:
    """The error says what a broker URL looks like, and never shows a password."""
    with pytest.raises(InvalidSetting, match="the broker URL must be kafka://") as refused:
        parse_broker(url)
    assert "secret" not in str(refused.value)
