"""Pools: the passages that a searcher ranks highest for each query, and its scores of given pairs.

Negatives are mined from a pool, and annotators judge one. Nothing here talks to other workers:
a pool is made while a lock of the cache is held, where the others wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.data.cache import Cache
from trainables.data.collections import Collection
from trainables.data.sources import Pairs
from trainables.evaluation.evaluate import encode_passages, encode_queries
from trainables.evaluation.lexical import Bm25
from trainables.evaluation.search import Search
from trainables.evaluation.topk import EMPTY, unpack
from trainables.model.encoder import Encoder

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Progress = Callable[[int, int], None]

QUERY_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Pool:
    """What was found for N queries.

    `rows` int64[N, depth] and `scores` float32[N, depth] are the best passages, best first, -1 and
    -inf after the last; a passage with the query's own id is never among them. `pair_scores`
    float32[M] are the scores of the pairs that were asked for.
    """

    query_rows: Ints
    rows: Ints
    scores: Floats
    pair_scores: Floats


def lexical_pool(
    collection: Collection,
    query_rows: Ints,
    depth: int,
    pairs: Pairs,
    cache: Cache,
    progress: Progress | None = None,
) -> Pool:
    """The pool of BM25 for the sorted `query_rows`, which hold the queries of all `pairs`.

    Only passages that share a word with the query are found; the score of other pairs is 0. The
    index is the one that the baseline searches, made once and memory-mapped.

    `progress(done, total)` counts queries.
    """
    index = Bm25(collection.passages, cache)
    own = _own(collection, query_rows).tolist()
    asked = np.argsort(pairs.query_rows, kind="stable")
    starts = np.searchsorted(pairs.query_rows[asked], query_rows, side="left")
    stops = np.searchsorted(pairs.query_rows[asked], query_rows, side="right")
    keys = np.full((len(query_rows), depth), EMPTY, dtype=np.int64)
    pair_scores = np.zeros(len(pairs), dtype=np.float32)
    for line, text in enumerate(collection.queries.text(query_rows)):
        scores = index.scores(text)
        keys[line] = index.best(scores, depth, own[line])
        part = asked[starts[line] : stops[line]]
        pair_scores[part] = scores[pairs.passage_rows[part]]
        if progress is not None:
            progress(line + 1, len(query_rows))
    return Pool(query_rows, *unpack(keys), pair_scores)


def dense_pool(
    collection: Collection,
    query_rows: Ints,
    depth: int,
    pairs: Pairs,
    encoder: Encoder,
    cache: Cache,
    progress: Progress | None = None,
) -> Pool:
    """The pool of `encoder` for the sorted `query_rows`, which hold the queries of all `pairs`.

    `progress(done, total)` counts passages. Raises FloatingPointError when vectors are not finite.
    """
    with encoder.inference():
        queries = _encode(encoder, collection, query_rows)
        passages = encode_passages(encoder, collection, cache)
        return vector_pool(collection, query_rows, depth, pairs, queries, passages, progress)


def vector_pool(
    collection: Collection,
    query_rows: Ints,
    depth: int,
    pairs: Pairs,
    queries: Tensor,
    passages: Iterable[tuple[Tensor, int]],
    progress: Progress | None = None,
) -> Pool:
    """The pool of vectors: `queries` [N, D], and `passages` in parts [C, D] of consecutive rows,
    each with its first row. The rest is as in `dense_pool`.
    """
    scores = np.empty(len(pairs), dtype=np.float32)
    asked = np.argsort(pairs.passage_rows, kind="stable")
    sorted_rows = pairs.passage_rows[asked]
    lines = torch.from_numpy(np.searchsorted(query_rows, pairs.query_rows))
    search = Search(queries, depth, _own(collection, query_rows))
    for vectors, first in passages:
        search.add(vectors, first)
        start, stop = np.searchsorted(sorted_rows, [first, first + len(vectors)])
        part = asked[start:stop]
        mine = vectors[torch.from_numpy(pairs.passage_rows[part] - first).to(vectors.device)]
        theirs = queries[lines[part].to(queries.device)]
        scores[part] = (mine.float() * theirs.float()).sum(-1).cpu().numpy()
        if progress is not None:
            progress(first + len(vectors), len(collection.passages))
    return Pool(query_rows, *unpack(search.result()), scores)


def _encode(encoder: Encoder, collection: Collection, query_rows: Ints) -> Tensor:
    parts = [
        encode_queries(encoder, collection.queries.text(query_rows[start : start + QUERY_BLOCK]))
        for start in range(0, len(query_rows), QUERY_BLOCK)
    ]
    return torch.cat(parts) if parts else torch.empty(0, encoder.dimension, device=encoder.device)


def _own(collection: Collection, query_rows: Ints) -> Ints:
    return collection.passages.rows(collection.queries.ids(query_rows))


def accelerator() -> torch.device:
    """The device that models of this room work on: a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
