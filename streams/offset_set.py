"""A set of offsets that stays small: two bytes for a lone one, and at most a bit per offset of a stretch full of them.

Source:
    Chambi, Lemire, Kaser and Godin, Better bitmap performance with Roaring bitmaps, section 2.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterator

_CHUNK_BITS = 16
_CHUNK = 1 << _CHUNK_BITS
_BITMAP_BYTES = _CHUNK // 8
_MOST_LONE = _BITMAP_BYTES // 2
"""A chunk with more offsets is smaller as a bitmap."""


class OffsetSet:
    """Offsets of one partition, in any order, each once."""

    def __init__(self) -> None:
        self._chunks: dict[int, array[int] | bytearray] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, offset: int) -> None:
        """Put an offset in."""
        if offset in self:
            return
        number, low = divmod(offset, _CHUNK)
        chunk = self._chunks.get(number)
        if chunk is None:
            self._chunks[number] = array("H", [low])
        elif isinstance(chunk, bytearray):
            chunk[low >> 3] |= 1 << (low & 7)
        elif len(chunk) < _MOST_LONE:
            insort(chunk, low)
        else:
            bitmap = self._chunks[number] = bytearray(_BITMAP_BYTES)
            for each in (*chunk, low):
                bitmap[each >> 3] |= 1 << (each & 7)
        self._count += 1

    def __contains__(self, offset: object) -> bool:
        if not isinstance(offset, int):
            return False
        number, low = divmod(offset, _CHUNK)
        chunk = self._chunks.get(number)
        if chunk is None:
            return False
        if isinstance(chunk, bytearray):
            return bool(chunk[low >> 3] & (1 << (low & 7)))
        at = bisect_left(chunk, low)
        return at < len(chunk) and chunk[at] == low

    def between(self, start: int, end: int) -> Iterator[int]:
        """Offsets with `start` <= offset < `end`, ascending."""
        first, last = start >> _CHUNK_BITS, (end - 1) >> _CHUNK_BITS
        few = last - first < len(self._chunks)
        numbers = range(first, last + 1) if few else sorted(each for each in self._chunks if first <= each <= last)
        for number in numbers:
            chunk = self._chunks.get(number)
            base = number << _CHUNK_BITS
            if chunk is not None:
                yield from (base + low for low in _members(chunk) if start <= base + low < end)


def _members(chunk: array[int] | bytearray) -> Iterator[int]:
    if isinstance(chunk, bytearray):
        return ((at << 3) + bit for at, byte in enumerate(chunk) if byte for bit in range(8) if byte & (1 << bit))
    return iter(chunk)
