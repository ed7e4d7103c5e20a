"""Chosen features of stored bodies, column by column, in the form that users get.

Bodies are matched by `field_pattern` where their schema and all of them allow it, else read one by one by `codec`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.field_pattern import FieldPattern, can_match
from oomstream.schemas.groups import Feature
from oomstream.schemas.layout import read_fields
from oomstream.schemas.types import Kind

Columns = list[list[Any]]

_PLAIN_IS_PYTHON = frozenset(
    {Kind.BOOLEAN, Kind.INT, Kind.LONG, Kind.FLOAT, Kind.DOUBLE, Kind.STRING, Kind.BYTES, Kind.ENUM}
)


class Projection:
    """Reads some features of a group, from bodies of any of its definitions; from any thread.

    Args:
        registered: The group as the catalog holds it.
        features: Some of its active features, one or more, in the order wanted.
    """

    def __init__(self, registered: RegisteredGroup, features: Sequence[Feature]) -> None:
        self._registered = registered
        self._features = features
        self._codec = BodyCodec(registered)
        places = {feature.name: at for at, feature in enumerate(registered.group.features)}
        self._slow = [
            (places[each.name], None if each.type.kind in _PLAIN_IS_PYTHON else each.type.python_from_plain)
            for each in features
        ]
        self._patterns: dict[bytes, Callable[[Sequence[bytes]], Columns | None]] = {}

    def columns(self, fingerprints: Sequence[bytes], bodies: Sequence[bytes]) -> Columns:
        """One column per feature, in python form; None where it is null.

        Args:
            fingerprints: Of the schema of each body.
            bodies: As stored.

        Raises:
            InvalidEvent: A fingerprint is of no known definition version, or bytes are not such a body.
        """
        written = set(fingerprints)
        if len(written) <= 1:
            return self._alike(fingerprints[0], bodies) if bodies else [[] for _ in self._features]
        columns: Columns = [[None] * len(bodies) for _ in self._features]
        for fingerprint in written:
            places = [at for at, each in enumerate(fingerprints) if each == fingerprint]
            for column, part in zip(columns, self._alike(fingerprint, [bodies[at] for at in places]), strict=True):
                for at, value in zip(places, part, strict=True):
                    column[at] = value
        return columns

    def _alike(self, fingerprint: bytes, bodies: Sequence[bytes]) -> Columns:
        pattern = self._patterns.get(fingerprint)
        if pattern is None:
            pattern = self._patterns[fingerprint] = self._pattern(fingerprint)
        try:
            columns = pattern(bodies)
        except Exception:  # whatever damaged bytes lead to: the codec says it
            columns = None
        return self._one_by_one(fingerprint, bodies) if columns is None else columns

    def _pattern(self, fingerprint: bytes) -> Callable[[Sequence[bytes]], Columns | None]:
        writer = self._registered.writers.get(fingerprint)
        fields = () if writer is None else read_fields(writer.schema, where=f"group {self._registered.group.name}")
        known = {each.name for each in fields}
        names = [each.name for each in self._features if each.name in known]
        if not names or not can_match(fields):
            return lambda bodies: None
        match = FieldPattern(fields, names).columns
        if len(names) == len(self._features):
            return match
        absent = [None if each.name in known else each for each in self._features]

        def filled(bodies: Sequence[bytes]) -> Columns | None:
            found = match(bodies)
            if found is None:
                return None
            columns = iter(found)
            # A default that is a list is another list in each row, as a value would be.
            return [next(columns) if each is None else [_default(each) for _ in bodies] for each in absent]

        return filled

    def _one_by_one(self, fingerprint: bytes, bodies: Sequence[bytes]) -> Columns:
        rows = [self._codec.read(fingerprint, body) for body in bodies]
        return [
            [value if convert is None or value is None else convert(value) for value in [row[place] for row in rows]]
            for place, convert in self._slow
        ]


def _default(feature: Feature) -> Any:
    plain = feature.absent_value
    return None if plain is None else feature.type.python_from_plain(plain)
