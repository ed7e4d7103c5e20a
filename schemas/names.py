"""Rules for names: what a group, an entity, a field and a topic may be called."""

from __future__ import annotations

import re
from typing import Any

from oomstream.schemas.errors import InvalidDefinition

MAX_NAME = 63
"""Most characters in a name of an entity, a key field or a feature."""

MAX_GROUP_NAME = 48
"""Most characters in a group's name: tables are called after it."""

MAX_TOPIC_NAME = 249 - len(".dlq")
"""Most characters in a topic's name, so that its dead-letter topic is legal too."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*", re.ASCII)
_WITH_DASHES = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*", re.ASCII)
_AVRO = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_TOPIC = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


def check_name(name: Any, *, what: str, where: str, dashes: bool = False) -> str:
    """The name of an entity, a key field or a feature, checked.

    Args:
        name: The name.
        what: What it names, for the error.
        where: Where it stands, for the error.
        dashes: Whether it may hold ``-``: only what is not the name of an Avro field may.

    Raises:
        InvalidDefinition: It breaks a rule.
    """
    if dashes:
        return _checked(name, _WITH_DASHES, MAX_NAME, "letters, digits, _ and -", what, where)
    return _checked(name, _NAME, MAX_NAME, "letters, digits and _", what, where)


def is_avro_name(name: str) -> bool:
    """Whether every Avro library takes it for a name."""
    return _AVRO.fullmatch(name) is not None


def avro_name(name: str) -> str:
    """The legal Avro name that is nearest to a name of ours."""
    legal = name.replace("-", "_")
    return legal if is_avro_name(legal) else f"_{legal}"


def check_group_name(name: Any, *, where: str) -> str:
    """The name of a group, checked.

    Raises:
        InvalidDefinition: It breaks a rule.
    """
    return _checked(name, _WITH_DASHES, MAX_GROUP_NAME, "letters, digits, _ and -", "group name", where)


def check_topic(name: Any, *, where: str) -> str:
    """The name of a topic, checked by Kafka's rules with room for the dead-letter topic.

    Raises:
        InvalidDefinition: It breaks a rule.
    """
    if not isinstance(name, str) or not _TOPIC.fullmatch(name) or name in {".", ".."} or len(name) > MAX_TOPIC_NAME:
        raise InvalidDefinition(
            f"{where}: topic {_shown(name)} is not 1 to {MAX_TOPIC_NAME} letters, digits, '.', '_' or '-'"
        )
    return name


def _checked(name: Any, pattern: re.Pattern[str], longest: int, allowed: str, what: str, where: str) -> str:
    if isinstance(name, str) and name.startswith("_"):
        raise InvalidDefinition(f"{where}: {what} {_shown(name)} begins with _, which is reserved")
    if not isinstance(name, str) or not pattern.fullmatch(name) or len(name) > longest:
        raise InvalidDefinition(f"{where}: {what} {_shown(name)} is not 1 to {longest} {allowed}")
    return name


def _shown(name: Any) -> str:
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:77]}…"
