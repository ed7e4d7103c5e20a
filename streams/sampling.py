"""A sample of keys, each with the same chance, chosen by a seed alone."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from hashlib import blake2b


class Sample:
    """The keys whose seeded hashes are the smallest: the same ones whatever order they are offered in.

    Args:
        size: How many keys to keep at most.
        seed: Another seed gives another sample.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._salt = (seed % (1 << 64)).to_bytes(16, "big")
        # A heap with the greatest hash first; hashes are negated, as heapq has the smallest first.
        self._kept: list[tuple[int, bytes]] = []

    def offer(self, keys: Iterable[bytes]) -> None:
        """Take keys into account, each once."""
        for key in keys:
            rank = -int.from_bytes(blake2b(key, digest_size=8, salt=self._salt).digest(), "big")
            if len(self._kept) < self._size:
                heapq.heappush(self._kept, (rank, key))
            elif self._kept and rank > self._kept[0][0]:
                heapq.heapreplace(self._kept, (rank, key))

    def keys(self) -> list[bytes]:
        """The sample, in key order."""
        return sorted(key for _, key in self._kept)
