"""Rows of a revision as online rows of one copy.

Source:
    design.md, section 6 (stored form).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.errors import InvalidEvent, InvalidRequest, Reason
from oomstream.schemas.events import Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.keys import check_part, encode_entity
from oomstream.schemas.kinds import Kind
from oomstream.schemas.online_value import OnlineRow, encode_key, encode_value, key_prefix, seal_key
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.forgetting import Marks
from oomstream.stores.revisions import Revision, Sync

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_AT_ONCE = 4_000
_ROWS_OF_TEXTS = 1_000
_ROWS_OF_ARRAYS = 200


def rows_at_once(group: FeatureGroup) -> int:
    """So many rows of a group are in memory at once: fewer where one row may be large."""
    kinds = {feature.type.kind for feature in group.features}
    if Kind.ARRAY in kinds:
        return _ROWS_OF_ARRAYS
    return _ROWS_OF_TEXTS if kinds & {Kind.STRING, Kind.BYTES} else _ROWS_AT_ONCE


def copy_key(group: FeatureGroup, sync: Sync, key: tuple[Plain, ...]) -> bytes:
    """An entity's key online, in a copy."""
    return encode_key(group.id, encode_entity(key), sync.id)


class CopyRows:
    """Encodes the rows of one copy.

    Args:
        codec: Of the group, under its newest definition.
        revision: What is copied.
        sync: The copy.
        marks: Forgotten entities, which a table of the user's may still hold; None where there are none.
    """

    def __init__(self, codec: BodyCodec, revision: Revision, sync: Sync, marks: Marks | None) -> None:
        self._codec = codec
        self._group = codec.group
        self._revision = revision
        self._prefix = key_prefix(self._group.id, sync.id)
        self._seal = seal_key(self._group.id, sync.id)
        self._version = Version(revision.time_us, SourceKind.FILE, 0, revision.id).pack()
        self._marks = marks if marks is not None and marks.concern(self._group.entity) else None
        self._last: bytes | None = None

    def rows(self, table: pa.Table) -> list[OnlineRow]:
        """Online rows of the next table of a scan, in its order, forgotten entities left out.

        Raises:
            InvalidRequest: A row of a linked table cannot be one of a revision; names table and column.
        """
        width = len(self._group.keys)
        lines: Iterator[tuple[Any, ...]] = zip(*(column.to_pylist() for column in table.columns), strict=True)
        return [row for line in lines if (row := self._row(line[:width], line[width:])) is not None]

    def seal(self) -> OnlineRow:
        """What says that the copy is whole."""
        return OnlineRow(self._seal, self._value(b""))

    def _row(self, key: tuple[Plain, ...], values: tuple[Plain, ...]) -> OnlineRow | None:
        if self._revision.linked:
            self._check(key, values)
        entity = encode_entity(key)
        if self._revision.linked and entity == self._last:
            raise InvalidRequest(f"{self._where} holds a key twice by now: a revision has one row per entity")
        self._last = entity
        if self._marks is not None and self._marks.cover(self._group.entity, entity, self._revision.known_us):
            return None
        return OnlineRow(self._prefix + entity, self._value(self._codec.encode(key, 0, values)))

    def _value(self, body: bytes) -> bytes:
        revision = self._revision
        return encode_value(self._version, revision.create_time_us, self._group.fingerprint, False, body)

    def _check(self, key: Sequence[Plain], values: Sequence[Plain]) -> None:
        """The user may have changed the table since it was linked."""
        name = ""
        try:
            for field, part in zip(self._group.keys, key, strict=True):
                name = field.name
                check_part(part)
            for feature, value in zip(self._group.features, values, strict=True):
                name = feature.name
                if value is not None:
                    feature.type.check(feature.type.avro_from_plain(value))
                elif not feature.nullable:
                    raise InvalidEvent(Reason.NULL_REQUIRED, "is null but is not nullable")
        except (InvalidEvent, ValueError, TypeError, ArithmeticError) as exc:
            why = str(exc) if isinstance(exc, InvalidEvent) else "is not of its type"
            raise InvalidRequest(f"{self._where}: {name} {why} in some row") from None  # the cause may hold the value

    @property
    def _where(self) -> str:
        return f"table {self._revision.table}, linked as revision {self._revision.id} of group {self._group.name}"
