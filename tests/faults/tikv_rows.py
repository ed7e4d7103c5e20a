"""Rows and stores for the tests of TiKV's faults."""

from __future__ import annotations

from oomstream.schemas.online_value import OnlineRow, encode_key, encode_value
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.settings import load_settings
from oomstream.stores.tikv.store import TikvOnlineStore

# Half of it is one attempt, which must outlast the 1.6 s for which the client itself tries.
CALL_TIMEOUT_S = 4.0


def rows(count: int, event_time_us: int = 1, body: bytes = b"x" * 100) -> list[OnlineRow]:
    """So many rows of one version, in key order."""
    value = encode_value(Version(event_time_us, SourceKind.TOPIC, 1, 1).pack(), 7, b"finger__", False, body)
    return [OnlineRow(encode_key(1, b"%06d" % number), value) for number in range(count)]


def store_of(url: str, namespace: str) -> TikvOnlineStore:
    """A store with short deadlines."""
    return TikvOnlineStore(f"{url}/{namespace}", load_settings(call_timeout_us=int(CALL_TIMEOUT_S * 1e6)))
