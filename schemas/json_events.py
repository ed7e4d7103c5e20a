"""JSON events: one object, read strictly.

orjson reads; what it does not tell (duplicate keys, depth) is checked here.

Source:
    design.md, section 3 (JSON forms); RFC 8259.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import orjson

from oomstream.schemas.errors import InvalidEvent, Reason

MAX_DEPTH = 64
"""Deepest nesting of a JSON event, unknown fields included."""


def parse_object(raw: bytes, *, where: str) -> dict[str, Any]:
    """The object in a JSON event.

    Args:
        raw: The message's value.
        where: What to name in an error: the group.

    Raises:
        InvalidEvent: Not one JSON object, with each key once.
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
        _refuse_duplicates(raw, where)
    elif _nested(found.values()):
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


def _nested(values: Iterable[Any]) -> bool:
    return any(type(each) is dict or type(each) is list for each in values)


def _refuse_depth(found: Any, where: str) -> None:
    level: list[Any] = [found]
    for _ in range(MAX_DEPTH):
        level = [
            each
            for outer in level
            for each in (outer.values() if type(outer) is dict else outer)
            if type(each) is dict or type(each) is list
        ]
        if not level:
            return
    raise InvalidEvent(Reason.TOO_DEEP, f"{where}: the JSON is nested more than {MAX_DEPTH} levels deep")


def _refuse_duplicates(raw: bytes, where: str) -> None:
    _refuse_depth(orjson.loads(raw), where)  # before the standard library's reader recurses into it

    def one_of_each(pairs: list[tuple[str, Any]]) -> None:
        if len({name for name, _ in pairs}) != len(pairs):
            raise InvalidEvent(Reason.DUPLICATE_FIELD, f"{where}: a field is there twice in one JSON object")

    # Numbers were judged already, and Python refuses long ones: they are left as text.
    json.loads(raw, object_pairs_hook=one_of_each, parse_int=str, parse_float=str)


def _why_not(raw: bytes, error: orjson.JSONDecodeError, where: str) -> InvalidEvent:
    """The reason why orjson refused a message; its own text tells no values, only positions."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return InvalidEvent(Reason.INVALID_TEXT, f"{where}: the JSON is not UTF-8 text")
    for sign, reason in _SIGNS.items():
        if sign in error.msg:
            return InvalidEvent(reason, f"{where}: not valid JSON: {error.msg} at byte {error.pos}")
    return InvalidEvent(Reason.MALFORMED_JSON, f"{where}: not valid JSON at character {error.pos}")


_SIGNS = {
    "surrogate": Reason.INVALID_TEXT,
    "depth": Reason.TOO_DEEP,
    "Recursion": Reason.TOO_DEEP,
    "infinity": Reason.NOT_FINITE,
}
