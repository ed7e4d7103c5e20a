"""What the TiKV store asks of a client of TiKV, so that one client can take another's place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from oomstream.schemas.online_value import OnlineRow
from oomstream.stores.base import OnlineChange, OnlineRead


class TikvDriver(ABC):
    """Everything that goes to TiKV; keys are whole stored keys, the namespace included.

    Every method ends within the deadline that the driver was made with, retries by itself what can be retried, and
    raises `StoreUnavailable` or `Fatal` with a sentence that names the store. Used from one event loop.
    """

    @abstractmethod
    async def connect(self) -> None:
        """Connect, and see that both PD and TiKV answer; one attempt.

        Raises:
            InvalidSetting: The client is not installed, or cannot run here.
            StoreUnavailable: One of them does not answer.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let what is under way end, and disconnect; `connect` may follow."""

    @abstractmethod
    async def upsert_newer(self, rows: Sequence[OnlineRow], *, or_equal: bool = False) -> int:
        """Write each row whose version is greater than that of the stored row of its key; see `OnlineStore`."""

    @abstractmethod
    async def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The newest committed values, all of one moment; waits for locks of killed writers to expire."""

    @abstractmethod
    async def read_aged(self, keys: Sequence[bytes], *, max_age_s: float = 0.0) -> OnlineRead:
        """Values of one moment, which is now unless rows are locked, and else just before they were.

        Args:
            keys: Stored keys.
            max_age_s: So much earlier the moment may be in any case, seconds, if that saves asking PD for one.
        """

    @abstractmethod
    async def scan(self, start: bytes, end: bytes, limit: int) -> list[OnlineRow]:
        """The first `limit` rows with `start` <= key < `end`, in key order, all of one moment."""

    @abstractmethod
    async def replace(self, changes: Sequence[OnlineChange]) -> int:
        """Change or remove rows that still are as they were found; see `OnlineStore`."""

    @abstractmethod
    async def delete(self, keys: Sequence[bytes]) -> None:
        """Remove rows; not atomic over them."""

    @abstractmethod
    async def gc(self, older_than_s: float) -> bool:
        """Move the cluster's GC safe point to so many seconds ago; whether that moved it forwards."""
