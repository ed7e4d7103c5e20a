"""A batch group's copy online that is not what its revision says: the revision is synced again, beside readers.

No row of the copy that readers see is touched: a copy is shown as a whole, and `forget` counts on that. The new one
takes the place of the one that was looked at and of no other: where a sync has shown another revision meanwhile, that
one stays, and is looked at.

Source:
    design.md, section 6 (batch groups); what `verify` finds, `repair` mends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.errors import Fenced, StoreUnavailable
from oomstream.schemas.events import Plain
from oomstream.stores.base import HistoryStore, OnlineStore
from oomstream.stores.settings import METADATA_MAX_AGE_US
from oomstream.streams.judging import Finding
from oomstream.streams.repair import Mended, Repaired, Synced
from oomstream.streams.sync import sync_group
from oomstream.streams.verification import Verification
from oomstream.streams.verify_copy import CopyVerifier

TRIES = 5
"""How often it begins again because another copy was shown meanwhile."""


class CopyRepairer:
    """Mends batch groups, in bounded memory.

    Args:
        history: Open history store.
        online: Open online store.
        dry_run: Only say what would be done.
        keep: How many of the entities found wrong to keep per group.
        max_age_s: How old readers' metadata may be (setting `metadata_max_age`).
        progress: Told now and then how many entities of the group are done.
        sleep: Waits that many seconds.
    """

    def __init__(
        self,
        history: HistoryStore,
        online: OnlineStore,
        *,
        dry_run: bool = False,
        keep: int = 10,
        max_age_s: float = METADATA_MAX_AGE_US / 1e6,
        progress: Callable[[int], None] = lambda done: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._history = history
        self._online = online
        self._dry_run = dry_run
        self._max_age_s = max_age_s
        self._progress = progress
        self._verifier = CopyVerifier(history, online, keep=keep, progress=progress, sleep=sleep)

    async def repair(self, registered: RegisteredGroup, keys: Sequence[tuple[Plain, ...]] | None = None) -> Repaired:
        """Mend one group.

        Args:
            registered: A batch group as the catalog holds it.
            keys: Only if one of these entities, in plain form, is not as it should be; mended is the whole group.

        Raises:
            InvalidRequest: A linked table cannot be a revision any more; names table and column.
            StoreUnavailable: Readers still see what they saw; do it again.
        """
        name = registered.group.name
        for _ in range(TRIES):
            found = await self._verifier.verify(registered, keys)
            result = _result(found)
            if self._dry_run or found.copy is None or not found.differing:
                return result
            try:
                now = (await self._history.load_catalog()).groups[name]
                done = await sync_group(
                    self._history,
                    self._online,
                    now,
                    revision_id=found.copy.revision.id,
                    max_age_s=self._max_age_s,
                    instead_of=found.copy.sync.id,
                    progress=self._progress,
                )
            except Fenced:
                continue
            result.synced = Synced(found.copy.revision.id, done.entities, done.purge_delay_s)
            return result
        raise StoreUnavailable(f"syncs of group {name} follow each other too fast to mend one: repair it later")


def _result(found: Verification) -> Repaired:
    return Repaired(
        found.group,
        found.entities,
        found=found.found,
        first=[Mended(each.key, each.finding, each.finding is Finding.UNKNOWN) for each in found.first],
        copy=found.copy,
    )
