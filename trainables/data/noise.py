"""Known noise: a share of the positives is replaced by passages known to be wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.data.collections import Collection
from trainables.data.hashing import mix
from trainables.data.sources import Pairs, Sources, pair_hashes


@dataclass(frozen=True)
class Noisy:
    """Positives after the noise; `true` is bool[M], False where a wrong passage stands."""

    pairs: Pairs
    true: NDArray[np.bool_]
    judged: int
    """Wrong passages that a source judges wrong for the query."""
    unjudged: int
    """Wrong passages that no source judges for the query."""


def with_noise(
    collection: Collection, sources: Sources, positives: Pairs, share: float, seed: int
) -> Noisy:
    """The positives (sorted by query) with `share` of them, rounded, replaced by wrong passages.

    A wrong passage is one that the human source judges wrong for the query, else one that another
    source judges wrong (a look-alike: it was worth judging), else any that no source judges. It
    takes the rank, the grade and the source of the positive that it replaces. Which positives are
    replaced, and by what, follows from the seed and the pair, so a larger share contains a smaller
    one. A positive stays where the collection has no wrong passage left for its query.
    """
    passages = positives.passage_rows.copy()
    true = np.ones(len(positives), dtype=bool)
    count = int(share * len(positives) + 0.5)
    if not count:
        return Noisy(positives, true, 0, 0)
    keys = mix(seed, "noise", *pair_hashes(collection, positives))
    finder = _WrongPassages(sources, positives, len(collection.passages))
    judged = unjudged = 0
    for place in np.argsort(keys, kind="stable")[:count].tolist():
        query = int(positives.query_rows[place])
        wrong = finder.judged(query, keys[place])
        judged += wrong is not None
        if wrong is None:
            wrong = finder.unjudged(query, keys[place])
            unjudged += wrong is not None
        if wrong is not None:
            passages[place] = wrong
            true[place] = False
    return Noisy(Pairs(positives.query_rows, passages, positives.grades), true, judged, unjudged)


class _WrongPassages:
    """Finds wrong passages, each at most once per query."""

    def __init__(self, sources: Sources, positives: Pairs, passages: int) -> None:
        self._listed = positives
        self._human = _sorted(sources.human)
        self._known = sources.known
        self._tiers = [_sorted(sources.human_wrong), _sorted(sources.other_wrong)]
        self._passages = passages
        self._taken: dict[int, set[int]] = {}

    def judged(self, query: int, key: np.uint64) -> int | None:
        """A passage that a source judges wrong for `query`."""
        taken = self._used(query)
        for tier in self._tiers:
            rows = _rows(tier, query)
            free = rows[[row not in taken for row in rows.tolist()]] if len(rows) else rows
            if len(free):
                draws = mix(np.asarray(key), free)
                return self._take(query, int(free[np.argmin(draws)]))
        return None

    def unjudged(self, query: int, key: np.uint64) -> int | None:
        """A passage that no source judges for `query`."""
        excluded = self._used(query) | set(_rows(self._known, query).tolist())
        excluded.update(*(_rows(tier, query).tolist() for tier in self._tiers))
        if len(excluded) >= self._passages:
            return None
        attempt = 0
        while True:
            draw = int(mix(np.asarray(key), attempt)) % self._passages
            if draw not in excluded:
                return self._take(query, draw)
            attempt += 1

    def _used(self, query: int) -> set[int]:
        """What is a positive of `query` or has taken the place of one."""
        if query not in self._taken:
            rows = [*_rows(self._listed, query).tolist(), *_rows(self._human, query).tolist()]
            self._taken[query] = set(rows)
        return self._taken[query]

    def _take(self, query: int, row: int) -> int:
        self._used(query).add(row)
        return row


def _sorted(pairs: Pairs) -> Pairs:
    return pairs.take(np.argsort(pairs.query_rows, kind="stable"))


def _rows(pairs: Pairs, query: int) -> NDArray[np.int64]:
    start, end = np.searchsorted(pairs.query_rows, [query, query + 1])
    return pairs.passage_rows[start:end]
