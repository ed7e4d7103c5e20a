"""What one worker of all does from time to time: letting the online store forget replaced values.

Source:
    traps.md, tikv 10: a TiKV that no TiDB looks after keeps every old version until somebody moves the safe point.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from oomstream.schemas.errors import StoreUnavailable
from oomstream.stores.base import OnlineStore

log = logging.getLogger(__name__)

EVERY_S = 600.0
OLDER_THAN_S = 1_800.0


async def tidy(
    online: OnlineStore,
    elected: Callable[[], bool],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Tidy every ten minutes while this worker is the elected one; runs until cancelled.

    Args:
        online: The open online store.
        elected: Whether it is this worker's turn.
        sleep: Waits that many seconds.
    """
    while True:
        await sleep(EVERY_S)
        if not elected():
            continue
        try:
            moved = await online.gc(OLDER_THAN_S)
        except StoreUnavailable as exc:
            log.info("online store not tidied: %s", exc)
        else:
            if moved:
                log.info("online store %s may forget values replaced over 30 minutes ago", online.url)
