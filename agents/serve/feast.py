"""The JSON of Feast's Python feature server: what its clients send, and what they get.

Source:
    Feast's feature server (paths and shapes of ``/get-online-features`` and ``/push``).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from oomstream.agents.cli.output import plain_json, time_text
from oomstream.query.online import OnlineResponse
from oomstream.schemas.errors import InvalidEvent, InvalidRequest
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.kinds import Kind
from oomstream.schemas.types import ValueType

EVENT_TIMESTAMP = "event_timestamp"
"""Feast's usual name of the column that says when it happened; taken beside the group's own field."""

IGNORED = frozenset({"created", "created_timestamp"})
"""Columns of Feast's that say when a row was made, which here the history database says."""

_TIMES = frozenset({Kind.TIMESTAMP_MILLIS, Kind.TIMESTAMP_MICROS})


class ReadRequest(NamedTuple):
    """What ``POST /get-online-features`` asks for.

    Attributes:
        features: Full feature names.
        entities: Values by key column.
    """

    features: list[str]
    entities: dict[str, list[Any]]


class PushRequest(NamedTuple):
    """What ``POST /push`` brings.

    Attributes:
        group: Name of the group: Feast's push source.
        columns: Values by column, all of one length.
        num_rows: That length.
    """

    group: str
    columns: dict[str, Sequence[Any]]
    num_rows: int


def read_request(body: bytes) -> ReadRequest:
    """Read the JSON of ``POST /get-online-features``.

    Raises:
        InvalidRequest: It is not that; says what is missing.
    """
    request = _object(body)
    if request.get("feature_service") is not None:
        raise InvalidRequest('there are no feature services here: name the features in "features"')
    features, entities = request.get("features"), request.get("entities")
    if not isinstance(features, list) or not all(isinstance(each, str) for each in features):
        raise InvalidRequest('the request needs "features": a list of full feature names')
    if not isinstance(entities, dict) or not all(isinstance(each, list) for each in entities.values()):
        raise InvalidRequest('the request needs "entities": a list of values per key column')
    return ReadRequest(features, entities)


def read_answer(response: OnlineResponse) -> dict[str, Any]:
    """The JSON that answers ``POST /get-online-features``: key columns first, one list item per entity."""
    columns, statuses, times = response.to_dict(), response.statuses, response.event_times
    results = []
    for name, values in columns.items():
        present = ["PRESENT"] * len(values)
        stamps = times.get(name) or [None] * len(values)
        results.append(
            {
                "values": [plain_json(value) for value in values],
                "statuses": [str(each) for each in statuses.get(name, present)],
                "event_timestamps": [None if time is None else time_text(time) for time in stamps],
            }
        )
    return {"metadata": {"feature_names": list(columns), "age_us": response.age_us}, "results": results}


def push_request(body: bytes) -> PushRequest:
    """Read the JSON of ``POST /push``.

    Raises:
        InvalidRequest: It is not that; says what is missing.
    """
    request = _object(body)
    source, columns, to = request.get("push_source_name"), request.get("df"), request.get("to", "online")
    if not isinstance(source, str):
        raise InvalidRequest('the request needs "push_source_name": the name of a group')
    if not isinstance(columns, dict):
        raise InvalidRequest('the request needs "df": a list of values per column')
    if to not in ("online", "online_and_offline"):  # no set: it may be anything
        raise InvalidRequest('"to" must be online or online_and_offline: an event is always written to both')
    lists: dict[str, Sequence[Any]] = {}
    for name, column in columns.items():
        # pandas' DataFrame.to_dict() gives a mapping by index unless it is told orient="list".
        values = list(column.values()) if isinstance(column, dict) else column
        if not isinstance(values, list):
            raise InvalidRequest(f'"df": column {name[:80]!r} is not a list of values')
        lists[name] = values
    lengths = {len(values) for values in lists.values()}
    if len(lengths) > 1:
        raise InvalidRequest('"df": the columns are of different lengths')
    return PushRequest(source, lists, lengths.pop() if lengths else 0)


def unknown_columns(group: FeatureGroup, request: PushRequest) -> list[str]:
    """Columns of a push that are none of its group's, as it is known."""
    known = {group.event_time_field.name, EVENT_TIMESTAMP, *IGNORED, *group.key_names}
    return [name for name in request.columns if name not in known and group.feature(name) is None]


def pushed_events(group: FeatureGroup, request: PushRequest) -> list[dict[str, Any]]:
    """The rows of a push in python form.

    Args:
        group: The group that they go into.
        request: What came.

    Raises:
        InvalidRequest: A column is none of the group's.
        InvalidEvent: A value is not of its column's type; names column and row.
    """
    time_field = group.event_time_field.name
    kinds = {key.name: key.type for key in group.keys} | {each.name: each.type for each in group.features}
    unknown = unknown_columns(group, request)
    if unknown:
        raise InvalidRequest(
            f"group {group.name} has no field {unknown[0][:80]!r} (it has: {', '.join([*kinds, time_field])})"
        )
    columns = {name: values for name, values in request.columns.items() if name in kinds}
    times = request.columns.get(time_field, None if EVENT_TIMESTAMP in kinds else request.columns.get(EVENT_TIMESTAMP))
    if times is not None:
        columns[time_field] = times
    python = {
        name: [_python(kinds.get(name), value, f"{group.name}.{name}", at) for at, value in enumerate(values)]
        for name, values in columns.items()
    }
    rows = [dict(zip(python, row, strict=True)) for row in zip(*python.values(), strict=True)]
    # A row without an event time is of now.
    return [{name: value for name, value in row.items() if name != time_field or value is not None} for row in rows]


def _python(kind: ValueType | None, value: Any, where: str, row: int) -> Any:
    """The python form of a value; of the event time where there is no type."""
    if value is None:
        return None
    try:
        if isinstance(value, str) and (kind is None or kind.kind in _TIMES):
            # As pandas writes times: also without an offset, which then is UTC's.
            return datetime.fromisoformat(value)
        if kind is None:
            return value
        return kind.python_from_plain(kind.plain_from_avro(kind.avro_from_json(value)))
    except InvalidEvent as exc:
        raise InvalidEvent(exc.reason, f"{where}, row {row} (from 0), {exc}") from exc
    except ValueError as exc:
        raise InvalidRequest(f"{where}, row {row} (from 0), is not ISO 8601 text") from exc


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise InvalidRequest("the request is not JSON") from exc
    if not isinstance(found, dict):
        raise InvalidRequest("the request is not a JSON object")
    return found
