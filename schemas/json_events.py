"""JSON events: one object, read strictly.

orjson reads; what it does not tell (duplicate keys, depth) is checked here.

Source:
    design.md, section 3 (JSON forms); RFC 8259.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import repeat
from operator import methodcaller
from typing import Any

import orjson

from oomstream.schemas.columns import Column
from oomstream.schemas.errors import InvalidEvent, Reason
from oomstream.schemas.groups import NO_DEFAULT, FeatureGroup
from oomstream.schemas.layout import RecordField
from oomstream.schemas.times import us_from_text
from oomstream.schemas.types import Kind

MAX_DEPTH = 64
"""Deepest nesting of a JSON event, unknown fields included."""

_MISSING = object()
_AS_IT_IS = {
    Kind.BOOLEAN: {bool},
    Kind.INT: {int},
    Kind.LONG: {int},
    Kind.DOUBLE: {float},
    Kind.STRING: {str},
}
"""Types of JSON values that are the avro form already, up to their range."""


class JsonForm:
    """Takes the values of a group's fields out of JSON objects."""

    keeps_bodies = False

    def __init__(self, group: FeatureGroup, fields: Sequence[RecordField]) -> None:
        """Prepare for a group.

        Args:
            group: Its newest definition.
            fields: The fields of its schema.
        """
        self._where = group.name
        self._fields = tuple(fields)
        self._keys = frozenset(group.key_names)
        self._event_time = group.event_time_field
        self._getters = [
            (each, methodcaller("get", each.name, _MISSING), _AS_IT_IS.get(each.type.kind)) for each in fields
        ]

    def columns(self, objects: Sequence[dict[str, Any]]) -> list[Column] | None:
        """One column per field of the schema, in avro form; None if any value is in doubt."""
        columns: list[Column] = []
        try:
            for field, get, as_it_is in self._getters:
                column = list(map(get, objects))
                if as_it_is is None or set(map(type, column)) != as_it_is:
                    column = list(map(self._value, repeat(field), column))
                columns.append(column)
        except InvalidEvent:
            return None
        return columns

    def record(self, found: dict[str, Any]) -> dict[str, Any]:
        """The record of one object, in checked, canonical avro form.

        Raises:
            InvalidEvent: A value is missing or not of its type; names the field.
        """
        record: dict[str, Any] = {}
        for field in self._fields:
            try:
                record[field.name] = self._value(field, found.get(field.name, _MISSING))
            except InvalidEvent as exc:
                raise InvalidEvent(exc.reason, f"{self._where}.{field.name} {exc}") from exc
        return record

    def _value(self, field: RecordField, value: Any) -> Any:
        if value is None:
            if field.nullable:
                return None
            if field.name in self._keys:
                raise InvalidEvent(Reason.KEY_MISSING, "is null, but is part of the entity key")
            raise InvalidEvent(Reason.NULL_REQUIRED, "is null but is not nullable")
        if value is _MISSING:
            if field.default is not NO_DEFAULT:
                return field.default
            if field.nullable:
                return None
            if field.name in self._keys:
                raise InvalidEvent(Reason.KEY_MISSING, "is missing, but is part of the entity key")
            raise InvalidEvent(Reason.MISSING_FIELD, "is missing and has no default")
        if type(value) is str and field.name == self._event_time.name:
            # Also where the field is a long with a unit: it is a time, and times may be text.
            ticks = self._event_time.ticks(us_from_text(value))
            field.type.check(ticks)
            return ticks
        return field.type.avro_from_json(value)


def parse_object(raw: bytes, *, where: str) -> dict[str, Any]:
    """The object in a JSON event.

    Args:
        raw: The message's value.
        where: What to name in an error: the group.

    Raises:
        InvalidEvent: Not one JSON object, with each key once, nested no deeper than `MAX_DEPTH`.
    """
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        raise _why_not(raw, exc, where) from exc
    if type(found) is not dict:
        raise InvalidEvent(Reason.WRONG_TYPE, f"{where}: the message is JSON but not an object")
    # Each pair has a colon. Without escapes, colons within texts can be counted off, and what is left over is a key
    # that came twice. Everything less simple is looked at closely.
    colons = raw.count(b":")
    if colons != len(found) and (b"\\" in raw or colons - _colons_in_texts(found) != len(found)):
        _refuse_duplicates(raw, found, where)
    elif b"[" in raw or b"{" in raw[1:]:
        _refuse_depth(found, where)
    return found


def _colons_in_texts(found: dict[str, Any]) -> int:
    count = sum(name.count(":") for name in found)
    for value in found.values():
        if type(value) is str:
            count += value.count(":")
        elif type(value) is list:
            count += sum(each.count(":") for each in value if type(each) is str)
    return count


def _refuse_depth(found: dict[str, Any], where: str) -> None:
    level: list[Any] = [found]
    for _ in range(MAX_DEPTH):
        level = [each for outer in level for each in _inner(outer) if type(each) is dict or type(each) is list]
        if not level:
            return
    raise InvalidEvent(Reason.TOO_DEEP, f"{where}: the JSON is nested more than {MAX_DEPTH} levels deep")


def _inner(outer: Any) -> Iterable[Any]:
    return outer.values() if type(outer) is dict else outer


def _refuse_duplicates(raw: bytes, found: dict[str, Any], where: str) -> None:
    _refuse_depth(found, where)  # before the standard library's reader recurses

    def one_of_each(pairs: list[tuple[str, Any]]) -> None:
        if len({name for name, _ in pairs}) != len(pairs):
            raise InvalidEvent(Reason.DUPLICATE_FIELD, f"{where}: a field is there twice in one JSON object")

    # Numbers were judged already, and Python refuses long ones: nothing is made of them.
    json.loads(raw, object_pairs_hook=one_of_each, parse_int=_nothing, parse_float=_nothing)


def _nothing(_: str) -> None:
    return None


def _why_not(raw: bytes, error: orjson.JSONDecodeError, where: str) -> InvalidEvent:
    """The reason why orjson refused a message; its texts hold no values."""
    try:
        raw.decode()
    except UnicodeDecodeError as exc:
        return InvalidEvent(Reason.INVALID_TEXT, f"{where}: the JSON is not UTF-8 text (byte {exc.start})")
    reason = next((reason for sign, reason in _SIGNS.items() if sign in error.msg), Reason.MALFORMED_JSON)
    return InvalidEvent(reason, f"{where}: not valid JSON: {error.msg} (character {error.pos})")


_SIGNS = {
    "surrogate": Reason.INVALID_TEXT,
    "depth limit": Reason.TOO_DEEP,
    "infinity": Reason.NOT_FINITE,
    "end of data": Reason.TRUNCATED,
}
