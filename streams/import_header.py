"""Which column of a file is which field of a group.

Source:
    oomcli.md (import): the header is the entity's name and the group's features in any order; stream groups also have
    `unix_milli`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from oomstream.schemas.errors import InvalidImport
from oomstream.schemas.groups import FeatureGroup

UNIX_MILLI = "unix_milli"
"""Column of event times by oomstore's name, in milliseconds since 1970-01-01 UTC."""

_MAX_NAME = 80  # characters of a name that a message shows


def match_header(group: FeatureGroup, header: Sequence[str], *, where: str, begun: bool = False) -> dict[str, int]:
    """Find the columns of a group's fields.

    A key field is found by its own name, as ``entity.key``, and, where it is the only one, by the entity's name; a
    feature by its own name or as ``group.feature``; the event time by its own name or as `UNIX_MILLI`.

    Args:
        group: The group, as registered.
        header: Names of the file's columns, in order.
        where: Names the file and the place of the header, for messages.
        begun: Whether the file was begun earlier, perhaps under an older definition: a feature with a default may be
            missing, and a retired one may be there.

    Returns:
        Number of the column by field.

    Raises:
        InvalidImport: A column is missing, unknown, or there twice; names it.
    """
    meanings = _meanings(group)
    retired = {each.name for each in group.retired} if begun else set()
    found: dict[str, int] = {}
    for at, name in enumerate(header):
        field = meanings.get(name)
        if field is None:
            if name in retired or name.removeprefix(f"{group.name}.") in retired:
                continue
            raise InvalidImport(
                f"{where}: column {name[:_MAX_NAME]!r} is none of group {group.name} ({_expected(group)})"
            )
        if field in found:
            other = header[found[field]]
            twice = "is there twice" if other == name else f"is there beside {other!r}, which means the same"
            raise InvalidImport(f"{where}: column {name!r} {twice}")
        found[field] = at
    defaults = {each.name for each in group.features if each.has_default} if begun else set()
    missing = [name for name in _fields(group) if name not in found and name not in defaults]
    if missing:
        names = ", ".join(" or ".join(map(repr, _shown(group, name))) for name in missing)
        raise InvalidImport(f"{where}: no column {names} ({_expected(group)})")
    return found


def _fields(group: FeatureGroup) -> Iterable[str]:
    yield from group.key_names
    if group.event_time is not None:
        yield group.event_time.name
    yield from (feature.name for feature in group.features)


def _meanings(group: FeatureGroup) -> dict[str, str]:
    """Field by every name that a column of it may have; a field's own name is never another's."""
    by_name: dict[str, str] = {}
    if group.event_time is not None:
        by_name[UNIX_MILLI] = group.event_time.name
    by_name |= {f"{group.name}.{feature.name}": feature.name for feature in group.features}
    by_name |= {f"{group.entity}.{name}": name for name in group.key_names}
    if len(group.keys) == 1:
        by_name[group.entity] = group.key_names[0]
    return by_name | {name: name for name in _fields(group)}


def _expected(group: FeatureGroup) -> str:
    return f"the group's columns are {', '.join(' or '.join(_shown(group, name)) for name in _fields(group))}"


def _shown(group: FeatureGroup, field: str) -> list[str]:
    """The names that people use for a field's column."""
    if len(group.keys) == 1 and field == group.key_names[0]:
        return [field] if group.entity in set(_fields(group)) else list(dict.fromkeys([group.entity, field]))
    if group.event_time is not None and field == group.event_time.name:
        return list(dict.fromkeys([field, UNIX_MILLI]))
    return [field]
