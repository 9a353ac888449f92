"""Hard negatives that are negatives: mined by BM25 or a bi-encoder, or supplied by the collection;
cleaned, kept in the cache.

Supplied are those that Tevatron's and DPR's files bring, or that a folder has in
`labels/negatives.tsv` with grade 0, in the order of the file.

From the first `negative_depth` passages these are taken out:

- every known positive of the query, of any source;
- every near-duplicate of a known positive, since it answers the query too;
- with `negative_margin`, every passage that the miner scores above that share of the query's best
  known positive: it may well be a positive that nobody labelled (Moreira et al., NV-Retriever,
  arXiv 2407.15831, "TopK-PercPos").

What remains stands in the miner's order, the hardest first, with its scores.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.data.arrays import offsets_of, ranks_within
from trainables.data.cache import Cache
from trainables.data.collections import Collection
from trainables.data.collections.contexts import NEGATIVES as SUPPLIED
from trainables.data.duplicates import (
    THRESHOLD,
    near_duplicates,
    normalised,
    overlap,
    shingles,
)
from trainables.data.hashing import hash64
from trainables.data.negatives import (
    NEGATIVES_KIND,
    Negatives,
    load_negatives,
    negatives_key,
    write_negatives,
)
from trainables.data.sources import Sources, load_sources, located, pair_keys
from trainables.errors import InvalidInput, Problem
from trainables.model.backbones import PACKAGED
from trainables.model.encoder import Encoder
from trainables.prepare.pools import Pool, Progress, accelerator, dense_pool, lexical_pool
from trainables.spec import DataSpec, EncoderSpec

DENSE_MINER = EncoderSpec(backbone="packaged/all-MiniLM-L6-v2", query_length=64, passage_length=128)
"""The bi-encoder that mines when none is given. One for all trials, so that every compared encoder
trains on the same negatives."""

COMPARED_TEXTS = 200_000
"""Up to so many texts near-duplicates are found by shingles; beyond, by equal words alone."""

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def needs_negatives(data: DataSpec) -> bool:
    """Whether a trial on `data` reads mined negatives."""
    return data.hard_negatives > 0 or data.group_size is not None


def miner_name(data: DataSpec, miner: Encoder | None = None) -> str:
    """The `miner` of `negatives_key` and `load_negatives`: empty for BM25, else who mines."""
    if data.negatives != "dense":
        return ""
    if miner is not None:
        return miner.fingerprint()
    weights = PACKAGED[DENSE_MINER.backbone].sha256[:16]
    return f"{weights}/{DENSE_MINER.query_length}/{DENSE_MINER.passage_length}"


def ensure_negatives(
    collection: Collection,
    data: DataSpec,
    cache: Cache,
    miner: Encoder | None = None,
    progress: Progress | None = None,
) -> Negatives | None:
    """The mined negatives that `data` asks for, mined if they have not been; None if it asks none.

    Safe when several processes call it: one mines, the others wait. `miner` replaces DENSE_MINER
    under `data.negatives: dense`. Raises InvalidInput when a label source is missing.
    """
    if not needs_negatives(data):
        return None
    name = miner_name(data, miner)

    def make(folder: Path) -> None:
        sources = load_sources(collection, data, cache)
        if data.negatives == "supplied":
            pool, margin = _supplied(collection, sources, data.negative_depth), None
        else:
            pool = _mine(collection, data, sources, cache, miner, progress)
            margin = data.negative_margin
        write_negatives(folder, _cleaned(collection, sources, pool, margin))

    cache.folder(NEGATIVES_KIND, negatives_key(collection.fingerprint, data, name), make)
    return load_negatives(collection, data, cache, name)


def _mine(
    collection: Collection,
    data: DataSpec,
    sources: Sources,
    cache: Cache,
    miner: Encoder | None,
    progress: Progress | None,
) -> Pool:
    rows, depth = sources.query_rows, data.negative_depth
    if data.negatives == "bm25":
        return lexical_pool(collection, rows, depth, sources.known, cache, progress)
    encoder = miner or Encoder.load(DENSE_MINER, seed=0).to(accelerator())
    return dense_pool(collection, rows, depth, sources.known, encoder, cache, progress)


def _supplied(collection: Collection, sources: Sources, depth: int) -> Pool:
    """The negatives that the collection's files bring, as if a miner had ranked them so."""
    if SUPPLIED not in collection.sources:
        rule = (
            f"{collection.name} brings no negatives: it needs Tevatron's or DPR's files, or "
            f"labels/{SUPPLIED}.tsv"
        )
        raise InvalidInput([Problem("data.negatives", rule, "supplied", "bm25")])
    pairs, _ = located(collection, collection.labels(SUPPLIED))
    mine = np.isin(pairs.query_rows, sources.query_rows) & (pairs.grades < sources.ref.min_grade)
    pairs = pairs.take(mine)
    pairs = pairs.take(np.argsort(pairs.query_rows, kind="stable"))
    pairs = pairs.take(ranks_within(pairs.query_rows) < depth)
    ranks = ranks_within(pairs.query_rows)
    shape = (len(sources.query_rows), int(ranks.max(initial=0)) + 1)
    rows = np.full(shape, -1, dtype=np.int64)
    scores = np.full(shape, -np.inf, dtype=np.float32)
    lines = np.searchsorted(sources.query_rows, pairs.query_rows)
    rows[lines, ranks], scores[lines, ranks] = pairs.passage_rows, -ranks.astype(np.float32)
    return Pool(sources.query_rows, rows, scores, np.zeros(len(sources.known), dtype=np.float32))


def _cleaned(
    collection: Collection, sources: Sources, pool: Pool, margin: float | None
) -> Negatives:
    """The pool without known positives, their near-duplicates and what scores like a positive."""
    line, rank = np.nonzero(pool.rows >= 0)
    rows, scores = pool.rows[line, rank], pool.scores[line, rank]
    kept = ~_alike(collection, sources, pool.query_rows[line], rows)
    if margin is not None:
        kept &= scores <= _limits(sources, pool, margin)[line]
    counts = np.bincount(line[kept], minlength=len(pool.query_rows))
    return Negatives(pool.query_rows, offsets_of(counts), rows[kept], scores[kept])


def _limits(sources: Sources, pool: Pool, margin: float) -> NDArray[np.float32]:
    """The highest score that a negative of each query may have, float32[N].

    The share of a positive score; as far below a negative one; without a positive no limit.
    """
    best = np.full(len(pool.query_rows), -np.inf, dtype=np.float32)
    line = np.searchsorted(pool.query_rows, sources.known.query_rows)
    np.maximum.at(best, line, pool.pair_scores)
    free = np.isneginf(best)
    best[free] = 0.0
    limits = best - np.float32(1.0 - margin) * np.abs(best)
    return np.where(free, np.float32(np.inf), limits)


def _alike(collection: Collection, sources: Sources, query_rows: Ints, rows: Ints) -> Bools:
    """Whether each candidate is a known positive of its query or says the same as one, bool[C]."""
    known = sources.known
    distinct = np.unique(np.concatenate([rows, known.passage_rows]))
    texts = _Likeness(collection, distinct)
    candidates = pair_keys(query_rows, texts.group_of(rows))
    positives = pair_keys(known.query_rows, texts.group_of(known.passage_rows))
    order = np.argsort(positives, kind="stable")
    starts = np.searchsorted(positives[order], candidates, side="left")
    stops = np.searchsorted(positives[order], candidates, side="right")
    alike = np.zeros(len(rows), dtype=bool)
    for i in np.flatnonzero(stops > starts).tolist():
        others = known.passage_rows[order[starts[i] : stops[i]]].tolist()
        alike[i] = any(texts.alike(int(rows[i]), other) for other in others)
    return alike


class _Likeness:
    """Which of some passages say the same: groups find the suspects, their overlap decides."""

    def __init__(self, collection: Collection, rows: Ints) -> None:
        self._passages, self._rows = collection.passages, rows
        texts = collection.passages.text(rows)
        self._by_words = len(texts) > COMPARED_TEXTS
        if self._by_words:
            words = hash64(normalised(text) for text in texts)
            self._groups = np.unique(words, return_inverse=True)[1].astype(np.int64)
        else:
            self._groups = near_duplicates(texts)
        self._shingles: dict[int, NDArray[np.uint64]] = {}

    def group_of(self, rows: Ints) -> Ints:
        """A number per passage, equal for texts that may say the same."""
        groups: Ints = self._groups[np.searchsorted(self._rows, rows)]
        return groups

    def alike(self, left: int, right: int) -> bool:
        """Whether two passages of one group are near-duplicates."""
        if self._by_words or left == right:
            return True
        return overlap(self._of(left), self._of(right)) >= THRESHOLD

    def _of(self, row: int) -> NDArray[np.uint64]:
        if row not in self._shingles:
            self._shingles[row] = shingles(self._passages.text([row])[0])
        return self._shingles[row]
