"""Conformance suites that every store must pass, the ones shipped here and those of third parties.

A store's package subclasses `OnlineStoreConformance` or `HistoryStoreConformance` in its tests, says how to make a
fresh place and a store on it, and how to read and write that place *without* the store, so that a mistake common to put
and get cannot hide. Needs pytest and hypothesis::

    class TestMyOnlineStore(OnlineStoreConformance):
        def new_place(self) -> str: ...
        def store(self, place: str) -> OnlineStore: ...
        async def raw_read(self, place: str, key: bytes) -> bytes | None: ...
        async def raw_write(self, place: str, row: OnlineRow) -> None: ...
"""

from oomstream.stores.testing.history import HistoryStoreConformance
from oomstream.stores.testing.online import OnlineStoreConformance

__all__ = ["HistoryStoreConformance", "OnlineStoreConformance"]
