"""Which columns of a request hold the entity keys: by the key's name, or by ``entity.key``.

Where there is only one key field, a column ``entity_key`` holds it too: oomstore's label files call it so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from oomstream.schemas.errors import InvalidRequest
from oomstream.schemas.groups import FeatureGroup

ENTITY_KEY = "entity_key"
"""oomstore's name of the column that holds an entity's only key field."""


def find_key_columns(
    groups: Iterable[FeatureGroup], columns: Collection[str], *, where: str, error: type[InvalidRequest]
) -> Mapping[str, tuple[str, ...]]:
    """Find the columns that hold the keys of every entity that a request touches.

    A column named ``entity.key`` is taken before one that bears the key's plain name, and that before ``entity_key``.

    Args:
        groups: Groups of the request.
        columns: Names there are.
        where: What to name in an error, for example ``entity_rows[3]``.
        error: Type of the error to raise.

    Returns:
        By entity name, one column name per key field, in order.

    Raises:
        InvalidRequest: As `error`: a key has no column, or two entities would take the same plain column; names them.
    """
    by_entity = {group.entity: group.key_names for group in groups}
    only_key = [key for keys in by_entity.values() for key in keys]
    found: dict[str, tuple[str, ...]] = {}
    plain: dict[str, str] = {}
    for entity, keys in by_entity.items():
        names: list[str] = []
        for key in keys:
            qualified = f"{entity}.{key}"
            if qualified in columns:
                names.append(qualified)
            elif key in columns:
                other = plain.setdefault(key, entity)
                if other != entity:
                    raise error(
                        f"{where}: key column {key!r} could mean {other}.{key} or {qualified}; name the columns so"
                    )
                names.append(key)
            elif ENTITY_KEY in columns and only_key == [key]:
                names.append(ENTITY_KEY)
            else:
                also = f"{qualified!r} or {ENTITY_KEY!r}" if only_key == [key] else repr(qualified)
                raise error(f"{where}: key column {key!r} (or {also}) of entity {entity!r} is missing")
        found[entity] = tuple(names)
    return found
