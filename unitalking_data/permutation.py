"""The order of an epoch: every sample once, shuffled through a sliding window of shards, the same on every machine.

A sample's place is a hash, not a draw from a generator. So there is no state, no dependence on a library's random
numbers, and the order of a subset is the subset of the order.
"""

from __future__ import annotations

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hash64(*parts: object) -> int:
    """64 bits of BLAKE2b over the parts, the same on every machine and Python version."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def scatter(numbers: np.ndarray, *stream: object) -> np.ndarray:
    """uint64 hashes of integers, another family for every ``stream``; distinct numbers have distinct hashes.

    The finaliser is SplitMix64's (Steele, Lea and Flood, 2014), a bijection of 64-bit integers.
    """
    x = numbers.astype(np.uint64) * _GOLDEN
    x += np.uint64(hash64(*stream))
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def shuffle(
    samples: np.ndarray, shard_of: np.ndarray, *, total: int, shards: int, window: int, seed: int, epoch: int
) -> np.ndarray:
    """The samples in the epoch's order.

    Shards come up in a hashed order. A sample of the shard with turn *t* is put at a hashed place in *t … t + window*,
    so about ``window`` shards are in use at any moment, and a new one comes up when another is used up. A cache that
    holds a few more shards downloads each once.

    Args:
        samples: integers ``[n]``, any subset of the split's samples.
        shard_of: integers ``[n]`` in 0…shards−1, the shard of each.
        total, shards: how many the split has.
        window: how many shards are mixed, at least 1; from ``shards`` on every order is equally likely.
    """
    if window >= shards:
        turns, window, shards = np.zeros(len(samples), np.uint64), 1, 1
    else:
        turn = np.empty(shards, np.uint64)
        turn[np.argsort(scatter(np.arange(shards), "shards", seed, epoch))] = np.arange(shards, dtype=np.uint64)
        turns = turn[shard_of]
    # place in the high bits, the sample itself in the low ones: one sort of integers, a tenth of the time of an
    # argsort, and no ties
    low = total.bit_length()
    fraction = 63 - (shards + window).bit_length() - low
    place = scatter(samples, "samples", seed, epoch) >> np.uint64(64 - fraction)
    place *= np.uint64(window)
    place += turns << np.uint64(fraction)
    place <<= np.uint64(low)
    place |= samples.astype(np.uint64)
    place.sort()
    place &= np.uint64((1 << low) - 1)
    return place.astype(samples.dtype)
