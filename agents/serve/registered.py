"""The definitions that requests are read with: groups by name, and the entity keys that texts mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.errors import InvalidEvent, InvalidKey, UnknownFeature
from oomstream.schemas.groups import FeatureGroup, KeyField
from oomstream.schemas.texts import avro_from_text
from oomstream.stores.base import HistoryStore
from oomstream.stores.catalog_cache import CatalogCache


class Registered:
    """What is registered; read anew when a name is asked for that is not.

    Args:
        history: Open history store.
    """

    def __init__(self, history: HistoryStore) -> None:
        self._cache = CatalogCache(history)

    async def group(self, name: str, *, with_features: Iterable[str] = ()) -> FeatureGroup:
        """The newest known definition of a group.

        Args:
            name: Its name.
            with_features: Features that it should have; one that is missing may have been added since.

        Raises:
            UnknownGroup: No such group.
            StoreUnavailable: The definitions cannot be read.
        """
        catalog = await self._cache.get()
        known = catalog.groups.get(name)
        if known is None or any(known.group.feature(each) is None for each in with_features):
            catalog = await self._cache.reload()
        return catalog.group(name)

    async def newest(self, name: str) -> RegisteredGroup:
        """A group as it is registered now.

        Raises:
            UnknownGroup: No such group.
            StoreUnavailable: The definitions cannot be read.
        """
        catalog = await self._cache.reload()
        catalog.group(name)
        return catalog.groups[name]

    async def groups_of(self, features: Sequence[str]) -> list[FeatureGroup]:
        """The groups of features, each once, in the order first asked for.

        Args:
            features: Full names.

        Raises:
            UnknownFeature: One or more are not registered; names all of them.
            InvalidRequest: None was named, or one twice.
            StoreUnavailable: The definitions cannot be read.
        """
        try:
            found = (await self._cache.get()).features(features)
        except UnknownFeature:
            found = (await self._cache.reload()).features(features)
        return list({group.name: group for group, _ in found}.values())


def key_columns(groups: Iterable[FeatureGroup]) -> dict[str, KeyField]:
    """The key fields that a request of these groups needs, by the column names that the query module takes.

    A field is called ``entity.key`` where another entity has a key of the same name.
    """
    keys = {group.entity: group.keys for group in groups}
    names = [key.name for fields in keys.values() for key in fields]
    return {
        key.name if names.count(key.name) == 1 else f"{entity}.{key.name}": key
        for entity, fields in keys.items()
        for key in fields
    }


def entity_row(text: str, columns: Mapping[str, KeyField]) -> dict[str, Any]:
    """The key that a client wrote as one text.

    Args:
        text: The key itself where there is one field, whatever characters it has; else ``field=value,field=value``.
        columns: The fields that are needed, by the column names to use.

    Returns:
        One entity row, in python form.

    Raises:
        InvalidKey: A field is missing or there twice, or its text is no value of its type; names the field.
    """
    if len(columns) == 1:
        given = dict.fromkeys(columns, text)
    else:
        # A value may hold commas: only one that is followed by `field=` ends it.
        names = "|".join(map(re.escape, columns))
        parts = [part.partition("=") for part in re.split(rf",(?=(?:{names})=)", text)]
        given = {name: value for name, _, value in parts}
        if given.keys() != columns.keys() or len(given) != len(parts):
            raise InvalidKey(f"the entity key must name each of its fields once: {','.join(f'{n}=…' for n in columns)}")
    row: dict[str, Any] = {}
    for name, field in columns.items():
        try:
            row[name] = python_from_text(field, given[name])
        except InvalidEvent as exc:
            raise InvalidKey(f"entity key: {name} {exc}") from exc
    return row


def python_from_text(field: KeyField, text: str) -> Any:
    """The python form of a key field's text.

    Raises:
        InvalidEvent: It is no value of the field's type.
    """
    kind = field.type
    return kind.python_from_plain(kind.plain_from_avro(avro_from_text(kind, text)))
