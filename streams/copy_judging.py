"""Whether one row of a revision's copy online says what the revision says, and if not, how the two differ."""

from __future__ import annotations

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.errors import InvalidEvent
from oomstream.schemas.online_value import OnlineValue, decode_value
from oomstream.schemas.versions import Version
from oomstream.stores.revisions import Revision
from oomstream.streams.judging import Finding, Side


class CopyJudge:
    """Compares rows of one copy with those of its revision.

    Args:
        registered: The group as the catalog holds it.
        revision: What the copy is of.
    """

    def __init__(self, registered: RegisteredGroup, revision: Revision) -> None:
        self.group = registered.group
        self._codec = BodyCodec(registered)
        self._names = [each.name for each in registered.group.features]
        # A copy that was begun before the revision got its time has the one that the revision had till then.
        self._times_us = {revision.time_us, revision.create_time_us} if revision.moved else {revision.time_us}

    def finding(self, value: bytes | None, wanted: bytes | None) -> Finding | None:
        """How stored bytes differ from those that a sync would write; bytes of an older definition may say the same."""
        if value == wanted:
            return None
        if wanted is None:
            return Finding.UNKNOWN
        if value is None:
            return Finding.MISSING
        try:
            stored, right = decode_value(value), decode_value(wanted)
            version = self._as(stored.version, right.version)
            if version != right.version:
                return Finding.UNKNOWN if version > right.version else Finding.OLDER
            if stored.deleted or stored.ingest_time_us != right.ingest_time_us:
                return Finding.DIFFERENT
            return None if self._says_same(stored, right) else Finding.DIFFERENT
        except (ValueError, InvalidEvent):
            return Finding.UNREADABLE

    def _as(self, version: Version, other: Version) -> Version:
        """A version with the time of another, where both times are the revision's."""
        same = {version.event_time_us, other.event_time_us} <= self._times_us
        return version._replace(event_time_us=other.event_time_us) if same else version

    def _says_same(self, stored: OnlineValue, right: OnlineValue) -> bool:
        if stored.fingerprint == right.fingerprint:
            return stored.body == right.body
        return self._codec.read(stored.fingerprint, stored.body) == self._codec.read(right.fingerprint, right.body)

    def side(self, value: bytes | None, like: bytes | None = None) -> Side | None:
        """What a value says; None where there is none, or it cannot be read.

        Args:
            value: What is stored online, or what a sync would write.
            like: The other side: what counts as the same version is shown as that.
        """
        stored, other = _decoded(value), _decoded(like)
        if stored is None:
            return None
        version = stored.version if other is None else self._as(stored.version, other.version)
        try:
            values = () if stored.deleted else self._codec.read(stored.fingerprint, stored.body)
        except InvalidEvent:
            return Side(version, stored.deleted, stored.ingest_time_us)
        named = dict(zip(self._names, values, strict=False))
        return Side(version, stored.deleted, stored.ingest_time_us, named)


def _decoded(value: bytes | None) -> OnlineValue | None:
    try:
        return None if value is None else decode_value(value)
    except ValueError:
        return None
