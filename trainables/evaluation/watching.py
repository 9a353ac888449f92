"""What is scored while a trial trains: a dev split, in full or over a part of its passages.

The part holds the judged passages of the split, the best of BM25 for its queries, and random ones.
It is a fixed function of the collection's content and a seed, the same for every trial of a study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.data.arrays import read_array
from trainables.data.cache import JSON, Cache
from trainables.data.collections import Ref, open_collection, parse_ref
from trainables.data.hashing import permutation
from trainables.errors import InvalidInput, Problem
from trainables.evaluation.evaluate import evaluate, evaluate_within
from trainables.evaluation.lexical import bm25
from trainables.evaluation.results import Scores
from trainables.evaluation.topk import Ints
from trainables.model.encoder import Encoder, Precision

KIND = "parts"
POOL_DEPTH = 100
"""Passages of BM25 per query that may enter a part."""

SEED = 0
_RULES = 1
"""Version of how a part is drawn."""


@dataclass(frozen=True)
class Watch:
    """Score the dev `split` after every `every` steps, over `passages` passages or (None) all."""

    split: str
    every: int
    passages: int | None
    metrics: tuple[str, ...]


class Watcher:
    """Scores an encoder in training; its weights and every random state stay as they are."""

    def __init__(self, watch: Watch, cache: Cache, precision: Precision) -> None:
        """Raises InvalidInput when the split cannot be had or the part cannot be drawn."""
        self.every = watch.every
        self._ref, self._watch, self._cache = parse_ref(watch.split), watch, cache
        self._precision = precision
        self._rows = None if watch.passages is None else part(self._ref, watch.passages, cache)

    @property
    def label(self) -> str:
        """The beginning of the names of the metrics, which says over which passages they are."""
        rows = self._rows
        return self._ref.label if rows is None else self._ref.part_label(len(rows))

    @property
    def metric(self) -> str:
        """The metric that the study selects by: the first one watched."""
        return self._watch.metrics[0]

    def scores(self, encoder: Encoder) -> Scores:
        """The split's scores. In a process group every worker must call it and gets the same."""
        names, precision = self._watch.metrics, self._precision
        if self._rows is None:
            (scores,) = evaluate(
                encoder, [self._ref], self._cache, metrics=names, precision=precision
            )
            return scores
        return evaluate_within(
            encoder, self._ref, self._rows, self._cache, metrics=names, precision=precision
        )

    def of(self, row: Mapping[str, float]) -> dict[str, float]:
        """The watched scores among a row of a trial's history."""
        return {key: value for key, value in row.items() if key.startswith(f"{self.label}/")}

    def due(self, before: int, step: int, last: int) -> bool:
        """Whether one of the steps after `before`, up to `step`, ends a stretch or the training."""
        return step == last or step // self.every > before // self.every


def part(ref: Ref, size: int, cache: Cache, seed: int = SEED) -> Ints:
    """Rows of `size` passages, ascending: the split's judged ones, BM25's best, random ones.

    Half of what the judged passages leave free goes to BM25's best for the split's queries, all
    queries' first ranks before all second ones; the rest is drawn. Made once and kept in the cache.
    Raises InvalidInput when the judged passages are more than `size`, or all not more than it.
    """
    collection = open_collection(ref.collection, cache)
    judged = np.unique(collection.passages.rows(collection.judgements(ref.split).passage_ids))
    judged = judged[judged >= 0]
    count = len(collection.passages)
    if not len(judged) <= size < count:
        rule = f"must be {len(judged)} (the judged passages of {ref.label}) to {count - 1}"
        raise InvalidInput([Problem("watch.passages", rule, size)])

    def make(folder: Path) -> None:
        pool = _best_of_bm25(ref, cache)
        pool = pool[~np.isin(pool, judged)][: (size - len(judged)) // 2]
        random = permutation(count, seed, collection.fingerprint)
        random = random[~np.isin(random, np.concatenate([judged, pool]))]
        rows = np.concatenate([judged, pool, random])[:size]
        np.save(folder / "rows.npy", np.sort(rows))

    key: dict[str, JSON] = {
        "collection": collection.fingerprint,
        "split": ref.split,
        "size": size,
        "seed": seed,
        "rules": _RULES,
    }
    rows: Ints = np.array(read_array(cache.folder(KIND, key, make) / "rows.npy"))
    return rows


def _best_of_bm25(ref: Ref, cache: Cache) -> Ints:
    """Rows of the passages that BM25 finds for the split's queries, each once, best rank first."""
    (scores,) = bm25([ref], cache, depth=POOL_DEPTH, metrics=("recall_at_100",))
    ranked = scores.run.rows.T.ravel()
    ranked = ranked[ranked >= 0]
    rows: Ints = ranked[np.sort(np.unique(ranked, return_index=True)[1])]
    return rows
