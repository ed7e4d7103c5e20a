"""What one worker of all does from time to time: removing from the online store what nobody needs any more.

Copies of revisions that are due, the places of forgotten entities, and replaced values. Drafts and old revisions are
left to `oomstream gc`: workers have no right to drop tables.

Source:
    traps.md, tikv 10: a TiKV that no TiDB looks after keeps every old version until somebody moves the safe point.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from oomstream.schemas.errors import StoreUnavailable
from oomstream.stores.base import HistoryStore, OnlineStore
from oomstream.streams.forget import free_places
from oomstream.streams.purge import purge_due

log = logging.getLogger(__name__)

EVERY_S = 600.0
OLDER_THAN_S = 1_800.0


async def tidy(
    history: HistoryStore,
    online: OnlineStore,
    elected: Callable[[], bool],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Tidy every ten minutes while this worker is the elected one; runs until cancelled.

    Args:
        history: The open history store.
        online: The open online store.
        elected: Whether it is this worker's turn.
        sleep: Waits that many seconds.
    """
    while True:
        await sleep(EVERY_S)
        if not elected():
            continue
        try:
            purged = await purge_due(history, online)
            freed = await free_places(history, online)
            moved = await online.gc(OLDER_THAN_S)
        except StoreUnavailable as exc:
            log.info("online store not tidied: %s", exc)
        else:
            if purged or freed or moved:
                log.info(
                    "online store %s tidied: %d copies of revisions and the places of %d forgotten entities removed%s",
                    online.url,
                    purged,
                    freed,
                    "; values replaced over 30 minutes ago may go" if moved else "",
                )
