"""BM25 over a collection, by bm25s: the ready baseline, and a miner of hard negatives.

k1 = 0.9 and b = 0.4, as Anserini and BEIR use; Lucene's form of the equation; words are lower-cased
runs of letters and digits, English stop words are dropped, nothing is stemmed. An index takes about
50 bytes of memory for each distinct word of a passage while it is made. A kept one is made once per
collection and memory-mapped afterwards: 8 bytes on disk for each, shared by all processes, and in
memory the vocabulary and, for a query, 4 bytes per passage.

Scores are sums in float32, so passages whose true scores are equal may differ in the last digit,
and two programs may rank such near-ties differently; equal scores go by row, as everywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.data.cache import JSON, Cache
from trainables.data.collections import Ref, Texts
from trainables.evaluation.metrics import DEFAULT_METRICS, DEPTH, parse_metrics
from trainables.evaluation.questions import by_collection
from trainables.evaluation.results import Scores
from trainables.evaluation.topk import EMPTY, Ints, best, pack

K1 = 0.9
B = 0.4
WORD = r"(?u)\b\w+\b"
KIND = "bm25"
"""Kind of cache folder that holds a memory-mapped index."""

Progress = Callable[[int, int], None]


class Bm25:
    """An index of the texts of a corpus."""

    def __init__(self, texts: Texts, cache: Cache | None = None) -> None:
        """With a cache the index is kept there and memory-mapped, else it lies in memory."""
        self._count = len(texts)
        self._index = _indexed(texts) if cache is None else _kept(texts, cache)

    def scores(self, query: str) -> NDArray[np.float32]:
        """Score of every passage for `query`, float32[N]; 0 where they share no word."""
        (words,) = _words([query], as_numbers=False)
        if not words:
            return np.zeros(self._count, dtype=np.float32)
        found: NDArray[np.float32] = self._index.get_scores(words)
        return found

    @staticmethod
    def best(scores: NDArray[np.float32], depth: int, own: int) -> Ints:
        """Keys int64[depth] (see `topk`) of the passages that share a word with the query.

        `scores` are the query's; `own` is the row that it must not find, -1 for none.
        """
        hits = np.flatnonzero(scores > 0)
        hits = hits[hits != own]
        keys: Ints = best(pack(scores[hits], hits)[None], depth)[0]
        return keys


def bm25(
    refs: Sequence[Ref],
    cache: Cache,
    *,
    depth: int = DEPTH,
    metrics: Sequence[str] = DEFAULT_METRICS,
    progress: Progress | None = None,
) -> list[Scores]:
    """Scores of BM25 on each of `refs`, in their order, from its best `depth` passages.

    `progress(done, total)` counts queries over all collections. Raises InvalidInput for unknown
    metrics, collections or splits.
    """
    chosen = parse_metrics(metrics, depth)
    groups = by_collection(refs, cache)
    size = sum(len(questions.query_rows) for _, questions in groups)
    done = 0
    results: dict[int, Scores] = {}
    for places, questions in groups:
        texts = questions.collection.queries.text(questions.query_rows)
        index = Bm25(questions.collection.passages, cache)
        keys = np.full((len(texts), depth), EMPTY, dtype=np.int64)
        for line, (text, own) in enumerate(zip(texts, questions.own_rows.tolist(), strict=True)):
            keys[line] = index.best(index.scores(text), depth, own)
            done += 1
            if progress is not None:
                progress(done, size)
        results |= zip(places, questions.scores(keys, chosen), strict=True)
    return [results[place] for place in range(len(refs))]


def _indexed(texts: Texts) -> Any:
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)
    index = bm25s.BM25(k1=K1, b=B, method="lucene")
    corpus = [text for _, chunk in texts.chunks() for text in chunk]
    index.index(_words(corpus, as_numbers=True), show_progress=False)
    return index


def _kept(texts: Texts, cache: Cache) -> Any:
    import bm25s

    key: dict[str, JSON] = {
        "texts": texts.fingerprint,
        "k1": K1,
        "b": B,
        "word": WORD,
        "bm25s": bm25s.__version__,
    }
    folder = cache.folder(KIND, key, lambda path: _indexed(texts).save(path, show_progress=False))
    return bm25s.BM25.load(folder, mmap=True, show_progress=False)


def _words(texts: list[str], *, as_numbers: bool) -> list[list[str]]:
    """The words of each text, or with `as_numbers` bm25s' numbered form of the same."""
    import bm25s

    words: list[list[str]] = bm25s.tokenize(
        texts, token_pattern=WORD, stopwords="en", return_ids=as_numbers, show_progress=False
    )
    return words
