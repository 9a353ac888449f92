"""The best k of a stream of candidates, with one rule for ties, as whole numbers.

A candidate (score, row) is one int64: the score's order in the upper half, the row's complement in
the lower. Larger is better, so the order is: score descending, then row ascending. No two
candidates are equal, hence the result is the same however the stream is cut, shared among workers
or merged. -0.0 counts as 0.0. Rows must lie below 2**32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Scores = NDArray[np.float32]

EMPTY: int = -(2**63)
"""The key of no candidate; every candidate is larger."""

LOWEST = np.finfo(np.float32).min
_LOWER_HALF = 0xFFFFFFFF

SMALLEST_ROOM = 256
"""Candidates of a query that may wait to be merged; k of them when k is larger."""


def ordered(scores: Scores) -> Ints:
    """Whole numbers in int32's range that are ordered as float32 scores are; -0.0 becomes 0.0."""
    bits = (np.asarray(scores, dtype=np.float32) + np.float32(0.0)).view(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)


def unordered(order: Ints) -> Scores:
    """The float32 scores that `ordered` turned into `order`."""
    bits = order.astype(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)


def pack(scores: Scores, rows: Ints) -> Ints:
    """Keys of candidates, of the arrays' common shape."""
    return (ordered(scores) << 32) | (_LOWER_HALF - rows)


def unpack(keys: Ints) -> tuple[Ints, Scores]:
    """Rows and scores of keys; -1 and -inf for EMPTY."""
    empty = keys == EMPTY
    rows = np.where(empty, -1, _LOWER_HALF - (keys & _LOWER_HALF))
    scores = np.where(empty, np.float32("-inf"), unordered(keys >> 32))
    return rows, scores


def best(keys: Ints, k: int) -> Ints:
    """The k largest of each line, int64[Q, k], largest first; EMPTY where a line has fewer."""
    if keys.shape[1] < k:
        fill = np.full((len(keys), k - keys.shape[1]), EMPTY, dtype=np.int64)
        keys = np.concatenate([keys, fill], axis=1)
    cut = keys.shape[1] - k
    kept = np.partition(keys, cut, axis=1)[:, cut:] if cut else keys
    return np.sort(kept, axis=1)[:, ::-1]


class TopK:
    """The best k candidates so far of Q queries.

    Candidates wait beside the best ones and are merged in when enough have come, since a merge
    costs about the same for few as for many.
    """

    def __init__(self, queries: int, k: int) -> None:
        self.floor: Scores = np.full(queries, LOWEST, dtype=np.float32)
        """The score below which a candidate of each query cannot enter, float32[Q]."""
        self._k = k
        self._room = max(k, SMALLEST_ROOM)
        self._keys = np.full((queries, k + self._room), EMPTY, dtype=np.int64)
        self._waiting = np.zeros(queries, dtype=np.int64)

    def offer(self, query: Ints, keys: Ints) -> None:
        """Take in candidates: `query` int64[M] ascending, `keys` int64[M]."""
        counts = np.bincount(query, minlength=len(self.floor))
        place = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        for start in range(0, int(place.max(initial=-1)) + 1, self._room):
            part = (place >= start) & (place < start + self._room)
            self._add(query[part], keys[part], place[part] - start)

    def result(self) -> Ints:
        """Keys of the best k, int64[Q, k], best first; EMPTY where a query has fewer."""
        self._merge()
        return np.sort(self._keys[:, : self._k], axis=1)[:, ::-1]

    def _add(self, query: Ints, keys: Ints, place: Ints) -> None:
        counts = np.bincount(query, minlength=len(self.floor))
        if int((self._waiting + counts).max(initial=0)) > self._room:
            self._merge()
        self._keys[query, self._k + self._waiting[query] + place] = keys
        self._waiting += counts
        if self._waiting.sum() * 2 >= self._k * len(self.floor):
            self._merge()

    def _merge(self) -> None:
        width = int(self._waiting.max(initial=0))
        if width == 0:
            return
        used = self._keys[:, : self._k + width]
        used[:, : self._k] = np.partition(used, width, axis=1)[:, width:]
        used[:, self._k :] = EMPTY
        self._waiting[:] = 0
        worst = self._keys[:, : self._k].min(axis=1)
        self.floor = np.where(worst == EMPTY, LOWEST, unordered(worst >> 32))
