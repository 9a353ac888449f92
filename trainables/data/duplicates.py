"""Near-duplicate texts: shingles, their overlap, and groups of texts that say the same.

A shingle is the hash of SHINGLE words in a row. Candidates are found by MinHash signatures in bands
(Broder 1997; Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3) and verified by
their exact overlap.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from trainables.data.hashing import hash64, mix

SHINGLE = 4
THRESHOLD = 0.7
"""Texts whose shingles overlap by at least this share count as near-duplicates."""

_BANDS, _BAND_ROWS = 16, 4
_WORD = re.compile(r"\w+")


def normalised(text: str) -> str:
    """The words of a text in lower case, separated by blanks: equal for texts equal but in form."""
    return " ".join(_WORD.findall(text.lower()))


def shingles(text: str) -> NDArray[np.uint64]:
    """The distinct shingles of a text, sorted, uint64[n]; a text too short for one is its own."""
    words = _WORD.findall(text.lower())
    if len(words) <= SHINGLE:
        return hash64([" ".join(words)])
    starts = range(len(words) - SHINGLE + 1)
    return np.unique(hash64(" ".join(words[start : start + SHINGLE]) for start in starts))


def overlap(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> float:
    """The Jaccard index of two sets of shingles: shared by all, between 0 and 1."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / (len(left) + len(right) - shared)


def near_duplicates(texts: Sequence[str], threshold: float = THRESHOLD) -> NDArray[np.int64]:
    """For each text the first one of its group of near-duplicates, int64[N].

    Groups are closed: a text joins every text that it overlaps with by `threshold` or more.
    """
    sets = [shingles(text) for text in texts]
    groups = Groups(len(texts))
    for left, right in sorted(_candidates(sets)):
        if groups.find(left) == groups.find(right):
            continue
        if overlap(sets[left], sets[right]) >= threshold:
            groups.join(left, right)
    return groups.labels()


def _candidates(sets: Sequence[NDArray[np.uint64]]) -> Iterable[tuple[int, int]]:
    """Pairs that agree in a band of their signatures: neighbours in it, and each with the first."""
    if not sets:
        return set()
    seeds = np.arange(_BANDS * _BAND_ROWS, dtype=np.int64)[:, None]
    signatures = np.stack([mix(seeds, values[None, :]).min(axis=1) for values in sets])
    pairs: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        columns = signatures[:, band * _BAND_ROWS : (band + 1) * _BAND_ROWS]
        keys = mix(*(columns[:, row] for row in range(_BAND_ROWS)))
        order = np.argsort(keys, kind="stable")
        breaks = np.flatnonzero(np.diff(keys[order])) + 1
        for bucket in np.split(order, breaks):
            first = int(bucket[0])
            for left, right in zip(bucket[:-1].tolist(), bucket[1:].tolist(), strict=True):
                pairs.update({(left, right), (first, right)})
    return pairs


class Groups:
    """Disjoint groups of 0 to N - 1, joined pair by pair."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def find(self, item: int) -> int:
        """The first item of the group that holds `item`."""
        while self._parents[item] != item:
            self._parents[item] = self._parents[self._parents[item]]
            item = self._parents[item]
        return item

    def join(self, left: int, right: int) -> None:
        """Makes the groups of two items one."""
        left, right = sorted((self.find(left), self.find(right)))
        self._parents[right] = left

    def labels(self) -> NDArray[np.int64]:
        """For each item the first item of its group, int64[N]."""
        return np.array([self.find(item) for item in range(len(self._parents))], dtype=np.int64)
