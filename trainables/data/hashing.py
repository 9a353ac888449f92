"""Seeded choices that depend on nothing but their ingredients: no generator, no order, no version.

A draw is a hash of (seed, purpose, ids, ...), so the same item gets the same number in every
process, whatever else is drawn: subsets nest, and adding a query moves no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def hash64(texts: Iterable[str]) -> NDArray[np.uint64]:
    """The 64-bit BLAKE2b hash of each text, uint64[N]; the same on every machine."""
    blake = hashlib.blake2b
    digests = b"".join(blake(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def mix(*parts: int | str | NDArray[np.uint64] | NDArray[np.int64]) -> NDArray[np.uint64]:
    """One hash per element of the broadcast `parts`: numbers, words (a purpose), or arrays.

    Each part goes through the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
    """
    state = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            if isinstance(part, str):
                value = hash64([part])[0]
            elif isinstance(part, int):
                value = np.uint64(part & 0xFFFFFFFFFFFFFFFF)
            else:
                value = part.astype(np.uint64)
            state = np.asarray((state ^ value) + _GOLDEN, dtype=np.uint64)
            state = (state ^ (state >> np.uint64(30))) * _FIRST
            state = (state ^ (state >> np.uint64(27))) * _SECOND
            state = state ^ (state >> np.uint64(31))
    return np.asarray(state, dtype=np.uint64)


def uniform(hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Numbers in [0, 1) from hashes, 53 bits each."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(count: int, *parts: int | str) -> NDArray[np.int64]:
    """A permutation of range(count), int64[count], fixed by `parts`."""
    keys = mix(*parts, np.arange(count, dtype=np.int64))
    return np.argsort(keys, kind="stable").astype(np.int64)
