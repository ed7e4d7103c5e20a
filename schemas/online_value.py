"""Stored form of one online row: its key and its value, alike in every online store.

Key = ``b"o"`` + group id (u32) + sync id (u64, 0 for stream groups) + entity key.
Value = format byte + version (21 bytes) + ingest time (i64 us) + schema fingerprint (8 bytes) + flags + Avro body.
A delete is a row with a version, the flag DELETED and no body, so that a late older event cannot resurrect it.
A whole copy of a revision has one more row, its *seal*, whose key has no entity: written last and removed first, so
that who reads it together with other rows of the copy, at one moment, knows that none of them is missing.

Source:
    design.md, section 6.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from oomstream.schemas.events import Event
from oomstream.schemas.versions import SIGN, VERSION_BYTES, Version

_KEY_HEAD = struct.Struct(">cIQ")
_TAIL = struct.Struct(">q8sB")
# All before the body, in one: the format byte, the packed version, the tail.
_HEAD = struct.Struct(">BQBIQq8sB")
# All that reading needs: the version's time, the fingerprint, the flags.
_SERVED = struct.Struct(">xQ13x8x8sB")

FORMAT = 1
"""Format byte of the layout written now."""

DELETED = 0x01
"""Flag: the entity was deleted by the event of this version."""

VERSION_START = 1
VERSION_END = VERSION_START + VERSION_BYTES
"""Where the packed version stands in every value: stores compare these bytes, and know nothing else of a value."""

FORGOTTEN_KIND = 255
"""In a version's place for the kind of its source: no event, but the mark of a forgotten entity."""

_MOST_SOURCES, _MOST_SEQUENCES = (1 << 32) - 1, (1 << 64) - 1

_SYNC_ID = slice(5, 13)
_VERSION = slice(VERSION_START, VERSION_END)
_BODY_START = VERSION_END + _TAIL.size
_FORMAT_BYTE = bytes([FORMAT])


class OnlineRow(NamedTuple):
    """One encoded online row.

    Attributes:
        key: Stored key without the store's namespace.
        value: Stored value, which begins with the format byte and the packed version.
    """

    key: bytes
    value: bytes


_AS_ROW: Callable[[tuple[bytes, bytes]], OnlineRow] = partial(tuple.__new__, OnlineRow)


def online_rows(keys: Iterable[bytes], values: Iterable[bytes]) -> list[OnlineRow]:
    """Many rows, without a call of a Python function for each."""
    return list(map(_AS_ROW, zip(keys, values, strict=True)))


class OnlineValue(NamedTuple):
    """A decoded online value.

    Attributes:
        version: Version of the event that wrote it.
        ingest_time_us: When its history row was written, by the history database's clock.
        fingerprint: CRC-64-AVRO fingerprint (8 bytes, little-endian) of the schema of `body`.
        deleted: Whether the event was a delete.
        body: Avro body of the whole record; empty for a delete.
    """

    version: Version
    ingest_time_us: int
    fingerprint: bytes
    deleted: bool
    body: bytes

    @property
    def forgotten(self) -> bool:
        """Whether it only stands for a forgotten entity (see `forgotten_value`)."""
        return self.version.kind == FORGOTTEN_KIND


def encode_key(group_id: int, entity: bytes, sync_id: int = 0) -> bytes:
    """Stored key of one entity in one group."""
    return key_prefix(group_id, sync_id) + entity


def key_prefix(group_id: int, sync_id: int = 0) -> bytes:
    """What every stored key of a group begins with."""
    return _KEY_HEAD.pack(b"o", group_id, sync_id)


def seal_key(group_id: int, sync_id: int) -> bytes:
    """Stored key of a copy's seal."""
    return key_prefix(group_id, sync_id)


def group_prefix(group_id: int) -> bytes:
    """What the stored keys of all copies of a group begin with."""
    return key_prefix(group_id)[: _SYNC_ID.start]


def sync_id_of(key: bytes) -> int:
    """The sync id in a stored key."""
    return int.from_bytes(key[_SYNC_ID], "big")


def encode_value(version: bytes, ingest_time_us: int, fingerprint: bytes, deleted: bool, body: bytes) -> bytes:
    """Stored value; `version` is packed already, as the pipeline compares packed versions."""
    return _FORMAT_BYTE + version + _TAIL.pack(ingest_time_us, fingerprint, DELETED if deleted else 0) + body


def encode_values(
    events: Iterable[Event], kind: int, source_id: int, ingest_time_us: int, fingerprint: bytes
) -> list[bytes]:
    """Stored values of many events of one source: `encode_value`, with their versions packed in the same go."""
    pack = _HEAD.pack
    return [
        pack(FORMAT, time_us + SIGN, kind, source_id, sequence, ingest_time_us, fingerprint, DELETED if deleted else 0)
        + body
        for sequence, _, _, time_us, deleted, _, body in events
    ]


def forgotten_value(time_us: int, fingerprint: bytes) -> bytes:
    """What takes the place of a forgotten entity's row: a delete that beats every event up to that time.

    It is no row of history, and is removed once no writer of before can still be under way.
    """
    version = Version(time_us, FORGOTTEN_KIND, _MOST_SOURCES, _MOST_SEQUENCES).pack()
    return encode_value(version, time_us, fingerprint, deleted=True, body=b"")


def packed_version(value: bytes) -> bytes:
    """The packed version inside a stored value: what stores compare before they write."""
    return value[_VERSION]


def decode_value(value: bytes) -> OnlineValue:
    """Read a stored value.

    Raises:
        ValueError: The bytes are not of a known format (a newer oomstream wrote them, or they are not ours).
    """
    if len(value) < _BODY_START or value[0] != FORMAT:
        raise ValueError(_unknown_format(value))
    ingest_time_us, fingerprint, flags = _TAIL.unpack_from(value, VERSION_END)
    version = Version.unpack(value[_VERSION])
    return OnlineValue(version, ingest_time_us, fingerprint, bool(flags & DELETED), value[_BODY_START:])


def value_to_serve(value: bytes) -> tuple[int, bytes, bool, bytes]:
    """Event time (us), fingerprint, whether it is a delete, and body: `decode_value` for those who read many.

    Raises:
        ValueError: As `decode_value`.
    """
    if len(value) < _BODY_START or value[0] != FORMAT:
        raise ValueError(_unknown_format(value))
    packed_time, fingerprint, flags = _SERVED.unpack_from(value)
    return packed_time - SIGN, fingerprint, bool(flags & DELETED), value[_BODY_START:]


def _unknown_format(value: bytes) -> str:
    return f"online value of unknown format {value[:1].hex() or 'empty'}"
