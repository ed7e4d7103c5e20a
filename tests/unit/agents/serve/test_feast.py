"""Feast's JSON: what is taken, and what is refused."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from oomstream.agents.serve.feast import push_request, pushed_events, read_request
from oomstream.schemas.errors import InvalidEvent, InvalidRequest
from tests.integration.agent_groups import CLICKS


def events(df: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    """The events that a push of `clicks` brings."""
    body = json.dumps({"push_source_name": "clicks", "df": df, **more}).encode()
    return pushed_events(CLICKS, push_request(body))


def test_columns_of_every_type() -> None:
    """JSON forms become python forms; null stays null, and a missing event time is left to be now."""
    columns = {
        "user": ["ann", "bob"],
        "title": ["", None],
        "number": [1 << 60, 0],
        "share": [1, 2.5],
        "is_new": [True, False],
        "seen": ["2024-05-01T12:00:00Z", "2024-05-01 12:00:00"],
        "raw": ["AP8=", None],
        "day": ["2024-02-29", None],
        "paid": ["1.50", None],
        "vector": [[1.5], []],
        "happened_at": ["2024-05-01T12:00:00+02:00", None],
    }
    first, second = events(columns)
    assert first == {
        "user": "ann",
        "title": "",
        "number": 1 << 60,
        "share": 1.0,
        "is_new": True,
        "seen": datetime(2024, 5, 1, 12, tzinfo=UTC),
        "raw": b"\x00\xff",
        "day": date(2024, 2, 29),
        "paid": Decimal("1.50"),
        "vector": [1.5],
        "happened_at": datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=2))),
    }
    assert "happened_at" not in second
    assert (second["title"], second["vector"]) == (None, [])
    assert second["seen"] == datetime(2024, 5, 1, 12)


def test_what_feast_calls_its_columns() -> None:
    """event_timestamp is the event time, created columns are left out, and pandas' own to_dict() is understood."""
    (event,) = events({"user": ["a"], "event_timestamp": ["2024-05-01 12:00:00"], "created": ["2024-05-01 12:00:00"]})
    assert event == {"user": "a", "happened_at": datetime(2024, 5, 1, 12)}
    assert events({"user": {"0": "a", "1": "b"}, "number": {"0": 1, "1": 2}}, to="online_and_offline") == [
        {"user": "a", "number": 1},
        {"user": "b", "number": 2},
    ]
    assert events({}) == []
    assert events({"user": []}) == []


@pytest.mark.parametrize(
    ("df", "sentence"),
    [
        ({"user": ["a"], "nothing": [1]}, "clicks has no field 'nothing'"),
        ({"user": ["a"], "number": [1.5]}, "clicks.number, row 0 (from 0), is not an integer"),
        ({"user": ["a", "b"], "number": [1, "2"]}, "clicks.number, row 1"),
        ({"user": ["a"], "happened_at": ["yesterday"]}, "clicks.happened_at, row 0 (from 0), is not ISO 8601 text"),
        ({"user": ["a"], "seen": ["noon"]}, "clicks.seen"),
        ({"user": ["a"], "raw": ["%"]}, "clicks.raw"),
        ({"user": ["a"], "number": []}, "different lengths"),
        ({"user": "ann"}, "is not a list"),
    ],
)
def test_wrong_pushes(df: dict[str, Any], sentence: str) -> None:
    """Column and row are named."""
    with pytest.raises((InvalidRequest, InvalidEvent)) as raised:
        events(df)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"df": {}}', '"push_source_name"'),
        (b'{"push_source_name": "clicks"}', '"df"'),
        (b'{"push_source_name": "clicks", "df": {}, "to": "offline"}', '"to" must be online or online_and_offline'),
        (b'{"push_source_name": "clicks", "df": {}, "to": {}}', '"to" must be online or online_and_offline'),
    ],
)
def test_wrong_push_bodies(body: bytes, sentence: str) -> None:
    """What is missing is named."""
    with pytest.raises(InvalidRequest) as raised:
        push_request(body)
    assert sentence in str(raised.value)


def test_feature_services_are_refused_by_name() -> None:
    """There are none; the sentence says what to send."""
    with pytest.raises(InvalidRequest, match='name the features in "features"'):
        read_request(b'{"feature_service": "x", "entities": {}}')
