"""A state machine that does anything to an online store and compares it with a dict."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from oomstream.schemas.online_value import OnlineRow, encode_key, encode_value, packed_version
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.base import OnlineChange, OnlineStore

_T = TypeVar("_T")

# Few keys and few versions, so that everything happens to the same row again and again.
_KEYS = [encode_key(group, entity) for group in (1, 2) for entity in (b"\x01a\0\0", b"\x01a \0\0", b"\x01A\0\0")]
_VERSIONS = st.builds(
    Version, st.integers(-1, 2), st.sampled_from(SourceKind).map(int), st.integers(1, 2), st.integers(0, 2)
)
_VALUES = st.builds(
    lambda version, deleted, body: encode_value(version.pack(), 1, b"finger__", deleted, b"" if deleted else body),
    _VERSIONS,
    st.booleans(),
    st.binary(max_size=2),
)
_ROWS = st.lists(st.builds(OnlineRow, st.sampled_from(_KEYS), _VALUES), unique_by=lambda row: row.key, max_size=6)
_CLIENTS = st.integers(0, 1)


class OnlineMachine(RuleBasedStateMachine):
    """Two clients of one place against one dict."""

    def __init__(self, place: str, store: Callable[[str], OnlineStore]) -> None:
        super().__init__()
        self._place = place
        self._make = store
        self._runner = asyncio.Runner()
        self._model: dict[bytes, bytes] = {}
        self._clients = [store(place), store(place)]
        for client in self._clients:
            self._run(client.open())
            self._run(client.init())

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self._runner.run(work)

    @rule(client=_CLIENTS, rows=_ROWS, or_equal=st.booleans())
    def upsert(self, client: int, rows: list[OnlineRow], or_equal: bool) -> None:
        """Write rows, in any order of versions."""
        written = self._run(self._clients[client].upsert_newer(rows, or_equal=or_equal))
        expected = 0
        for key, value in rows:
            stored = self._model.get(key)
            if (
                stored is None
                or packed_version(value) > packed_version(stored)
                or (or_equal and packed_version(value) == packed_version(stored))
            ):
                self._model[key] = value
                expected += 1
        assert written == expected

    @rule(client=_CLIENTS, rows=_ROWS, remove=st.booleans(), same=st.booleans())
    def replace(self, client: int, rows: list[OnlineRow], remove: bool, same: bool) -> None:
        """Change or remove rows, if they are as they were found."""
        changes = [
            OnlineChange(key, self._model.get(key, b"") if same else value, None if remove else value)
            for key, value in rows
        ]
        expected = 0
        for key, found, value in changes:
            if self._model.get(key) == found:
                expected += 1
                if value is None:
                    del self._model[key]
                else:
                    self._model[key] = value
        assert self._run(self._clients[client].replace(changes)) == expected

    @rule(client=_CLIENTS, keys=st.lists(st.sampled_from(_KEYS), max_size=3))
    def delete(self, client: int, keys: list[bytes]) -> None:
        """Purge keys."""
        self._run(self._clients[client].delete(keys))
        for key in keys:
            self._model.pop(key, None)

    @rule(client=_CLIENTS, keys=st.lists(st.sampled_from(_KEYS), max_size=8))
    def read(self, client: int, keys: list[bytes]) -> None:
        """Read keys, repeated ones too."""
        assert self._run(self._clients[client].read(keys)) == [self._model.get(key) for key in keys]

    @rule(client=_CLIENTS, group=st.integers(1, 2), after=st.none() | st.sampled_from(_KEYS), limit=st.integers(1, 4))
    def scan(self, client: int, group: int, after: bytes | None, limit: int) -> None:
        """Read a page."""
        prefix = encode_key(group, b"")
        rows = sorted(self._model.items())
        expected = [
            OnlineRow(key, value) for key, value in rows if key.startswith(prefix) and (after is None or key > after)
        ][:limit]
        assert self._run(self._clients[client].scan(prefix, after=after, limit=limit)) == expected

    @rule(client=_CLIENTS)
    def reopen(self, client: int) -> None:
        """Close one client and take a new one."""
        self._run(self._clients[client].close())
        self._clients[client] = self._make(self._place)
        self._run(self._clients[client].open())

    @invariant()
    def equal(self) -> None:
        """Every row is the model's."""
        assert self._run(self._clients[0].scan(b"o")) == [OnlineRow(*item) for item in sorted(self._model.items())]

    def teardown(self) -> None:
        """Close everything."""
        for client in self._clients:
            self._run(client.close())
        self._runner.close()
