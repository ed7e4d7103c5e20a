"""The online store on TiKV."""

from __future__ import annotations

from collections.abc import Sequence

from oomstream.schemas.errors import Fatal, InvalidSetting
from oomstream.schemas.online_value import OnlineRow, decode_value, encode_value
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.base import OnlineChange, OnlineRead, OnlineStore
from oomstream.stores.settings import Settings
from oomstream.stores.tikv.address import TikvAddress
from oomstream.stores.tikv.choice import chosen_driver

MIN_GC_AGE_S = 600.0
"""No safe point is younger, so that no read or transaction under way loses what it reads."""

# The pairing id is stored as a row of a version that never changes, so that it needs no writes of its own kind.
_PAIRING_VERSION = Version(0, SourceKind.PUSH, 0, 0).pack()


class TikvOnlineStore(OnlineStore):
    """The newest value per entity in TiKV, under a namespace of its own.

    Key = namespace + ``/`` + row key; the pairing id is at namespace + ``:pairing``. Used from one event loop.

    Args:
        url: ``tikv://pd1:2379,pd2:2379/NAME``, see `TikvAddress`.
        settings: Of which the client, the deadline of a call, and how old what is served may be count here.

    Raises:
        InvalidSetting: The URL is wrong, or it or the settings ask for a client that is not installed.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        address = TikvAddress.parse(url)
        self.url = address.shown
        self._prefix = address.row_prefix
        self._pairing_key = address.pairing_key
        self._max_age_s = settings.online_max_age_us / 1e6
        self._driver = chosen_driver(address, settings)

    async def open(self) -> None:
        """Connect to PD and read from TiKV; one attempt, so that a wrong URL is told at once.

        Raises:
            InvalidSetting: The client is not installed, or this process was forked from one that used it.
            StoreUnavailable: PD or TiKV does not answer.
        """
        await self._driver.connect()

    async def close(self) -> None:
        """Let what is under way end, and let go of the client."""
        await self._driver.close()

    async def init(self) -> None:
        """Nothing: TiKV needs no tables."""

    async def pairing_id(self) -> str | None:
        """UUID of the history database that these rows belong to."""
        [value] = await self._driver.read([self._pairing_key])
        if value is None:
            return None
        try:
            return decode_value(value).body.decode()
        except ValueError as exc:
            raise Fatal(
                f"online store {self.url}: its pairing id is not one that oomstream wrote; use another namespace"
            ) from exc

    async def pair(self, pairing_id: str) -> None:
        """Remember the history database."""
        value = encode_value(_PAIRING_VERSION, 0, bytes(8), False, pairing_id.encode())
        await self._driver.upsert_newer([OnlineRow(self._pairing_key, value)], or_equal=True)

    async def upsert_newer(self, rows: Sequence[OnlineRow], *, or_equal: bool = False) -> int:
        """Small transactions, several at once: what is newer is put; a conflict is read and compared again."""
        prefix = self._prefix
        return await self._driver.upsert_newer(
            [OnlineRow(prefix + key, value) for key, value in rows], or_equal=or_equal
        )

    async def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values of now, all of one moment; waits, for some 3 s, for locks that a killed writer has left."""
        prefix = self._prefix
        return await self._driver.read([prefix + key for key in keys])

    async def read_aged(self, keys: Sequence[bytes]) -> OnlineRead:
        """Values all of one moment: now, as long ago as settings allow, or just before a killed writer locked one."""
        prefix = self._prefix
        return await self._driver.read_aged([prefix + key for key in keys], max_age_s=self._max_age_s)

    async def scan(self, prefix: bytes, *, after: bytes | None = None, limit: int = 1000) -> list[OnlineRow]:
        """Rows in key order, all of one moment."""
        start = self._prefix + prefix
        if after is not None:
            start = max(start, self._prefix + after + b"\0")
        end = _end_of(self._prefix + prefix)
        if start >= end or limit < 1:
            return []
        cut = len(self._prefix)
        rows = await self._driver.scan(start, end, limit)
        return [OnlineRow(key[cut:], value) for key, value in rows]

    async def replace(self, changes: Sequence[OnlineChange]) -> int:
        """Small transactions, several at once; one that meets another writer reads and compares again."""
        prefix = self._prefix
        return await self._driver.replace([each._replace(key=prefix + each.key) for each in changes])

    async def delete(self, keys: Sequence[bytes]) -> None:
        """Small transactions, several at once."""
        prefix = self._prefix
        await self._driver.delete([prefix + key for key in keys])

    async def gc(self, older_than_s: float = MIN_GC_AGE_S) -> bool:
        """Move the GC safe point of the whole cluster, which TiKV needs where no TiDB does it.

        Raises:
            InvalidSetting: Younger than 600 s.
            StoreUnavailable: Do it again.
        """
        if older_than_s < MIN_GC_AGE_S:
            raise InvalidSetting(
                f"online store {self.url}: garbage younger than {MIN_GC_AGE_S:.0f} s cannot be collected, as reads "
                "under way may still need it"
            )
        return await self._driver.gc(older_than_s)


def _end_of(prefix: bytes) -> bytes:
    """The first key greater than all that begin with a prefix, which has a byte other than 0xFF."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1])
