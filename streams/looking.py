"""Looking at entities until each is right, or wrong for good: what every comparison of online with its origin does.

Writers go on meanwhile. So what differs at first sight is only put aside, and counts when a later look sees the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from oomstream.stores.base import HistoryStore, OnlineStore
from oomstream.streams.entities import PageSize
from oomstream.streams.sampling import Sample
from oomstream.streams.verification import Progress, Verification

LOOKS = 20
LOOK_AGAIN_S = 0.5
MOST_DOUBTFUL = 20_000
"""So many keys are put aside at most before they are looked at again: it bounds memory."""


class Seen(Protocol):
    """One look at one entity that is not as it should be."""

    @property
    def evidence(self) -> int:
        """What must be the same in two looks for a difference to count; small, as there may be many."""

    @property
    def waits(self) -> bool:
        """Whether what is under way may yet put it right: then it is given the time of all looks."""


_S = TypeVar("_S", bound=Seen)


class Looking:
    """Compares what is online with where it comes from, group by group, in bounded memory.

    Args:
        history: Open history store.
        online: Open online store.
        keep: How many differences to keep per group.
        sample: How many entities of each group's history, or revision, to look at; None = all of them, and all rows
            that are online.
        seed: Chooses the sample.
        progress: Told now and then how many entities of the group are done.
        sleep: Waits that many seconds.
    """

    def __init__(
        self,
        history: HistoryStore,
        online: OnlineStore,
        *,
        keep: int = 10,
        sample: int | None = None,
        seed: int = 0,
        progress: Progress = lambda done: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._history = history
        self._online = online
        self._keep = keep
        self._sample = sample
        self._seed = seed
        self._progress = progress
        self._sleep = sleep

    async def _sampled(self, size: int, pages: AsyncIterator[Iterable[bytes]]) -> list[bytes]:
        """So many of the keys in some pages."""
        chosen, walked = Sample(size, self._seed), 0
        async for page in pages:
            keys = list(page)
            chosen.offer(keys)
            walked += len(keys)
            self._progress(walked)
        return chosen.keys()

    async def _settle_all(
        self,
        pages: AsyncIterator[list[bytes]],
        settle: Callable[[list[bytes]], Awaitable[None]],
        result: Verification,
    ) -> None:
        """Settle doubtful keys, many at once but never too many; `result` counts the entities that were walked over."""
        doubtful: list[bytes] = []
        async for page in pages:
            doubtful += page
            if len(doubtful) >= MOST_DOUBTFUL:
                await settle(doubtful)
                doubtful = []
            self._progress(result.entities)
        await settle(doubtful)
        self._progress(result.entities)

    async def _look_until_settled(
        self,
        keys: Sequence[bytes],
        look: Callable[[Sequence[bytes], PageSize], Awaitable[Mapping[bytes, _S]]],
        report: Callable[[bytes, _S], None],
        *,
        last_counts: bool,
    ) -> list[bytes]:
        """Look at entities until each is right, or wrong for good.

        Args:
            keys: Online keys.
            look: Looks at some of them; leaves out those that are as they should be.
            report: Told of each that is wrong for good.
            last_counts: Whether what the last look sees is reported, whatever was seen before.

        Returns:
            Those that were never seen the same way twice, if they are not reported.
        """
        left: dict[bytes, int | None] = dict.fromkeys(keys)
        size = PageSize()
        for number in range(LOOKS):
            if not left:
                break
            if number:
                await self._sleep(LOOK_AGAIN_S)
            still: dict[bytes, int | None] = {}
            for page in size.pages(list(left)):
                for key, seen in (await look(page, size)).items():
                    is_settled = seen.evidence == left[key] and not seen.waits
                    if is_settled or (last_counts and number == LOOKS - 1):
                        report(key, seen)
                    else:
                        still[key] = seen.evidence
            left = still
        return list(left)
