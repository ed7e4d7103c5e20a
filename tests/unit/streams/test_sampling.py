"""A sample is chosen by the seed alone, and every key has the same chance."""

from __future__ import annotations

import random

from oomstream.streams.sampling import Sample

KEYS = [b"%d" % number for number in range(2_000)]


def chosen(keys: list[bytes], size: int, seed: int) -> list[bytes]:
    """The sample of some keys."""
    sample = Sample(size, seed)
    for at in range(0, len(keys), 300):
        sample.offer(keys[at : at + 300])
    return sample.keys()


def test_order_does_not_matter() -> None:
    """The same keys in another order give the same sample, in key order."""
    shuffled = random.Random(1).sample(KEYS, len(KEYS))
    assert chosen(shuffled, 50, 7) == chosen(KEYS, 50, 7) == sorted(chosen(KEYS, 50, 7))


def test_sizes() -> None:
    """A sample has the size asked for, or all keys where there are fewer."""
    assert chosen(KEYS, 0, 7) == []
    assert len(set(chosen(KEYS, 50, 7))) == 50
    assert chosen(KEYS[:30], 50, 7) == sorted(KEYS[:30])


def test_every_key_has_the_same_chance() -> None:
    """Over many seeds the first and the second half of the keys are chosen about equally often."""
    first = set(KEYS[:1_000])
    hits = sum(key in first for seed in range(200) for key in chosen(KEYS, 20, seed))
    assert 1_800 < hits < 2_200
