"""Machine labels: local models judge passages, and what they say becomes a label source.

Judged are the queries of every split, or of one, each with the passages that a searcher ranks
highest for it and with its human positives, so that the source's recall can be measured. Passages
judged not relevant stay in the source with grade 0: they are look-alikes that are known to be
wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.data.agreement import Agreement, agreement
from trainables.data.cache import Cache
from trainables.data.collections import (
    Collection,
    Judgements,
    open_collection,
    write_judgements,
)
from trainables.data.sources import (
    LABELS_FILE,
    LABELS_KIND,
    Pairs,
    annotated,
    annotation_key,
    load_labels,
    located,
)
from trainables.errors import InvalidInput, Problem, nearest
from trainables.prepare.annotators import (
    ANNOTATORS,
    Annotator,
    BiEncoder,
    CrossEncoder,
    PairAnnotator,
    description,
)
from trainables.prepare.judging import (
    Here,
    Judging,
    count_missing,
    encoded,
    open_encoder,
    verdicts_on,
)
from trainables.prepare.pools import Pool, Progress, dense_pool, lexical_pool, vector_pool

Ints = NDArray[np.int64]

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
MADE_BY = "annotator.json"
"""Beside the labels: what made them."""


@dataclass(frozen=True)
class Amount:
    """What an annotation comes to."""

    queries: int
    pairs: int
    """Pairs to judge, those that have a verdict included."""
    left: int
    """Pairs without a verdict."""
    exact: bool
    """False where the searcher has to encode the passages to tell which pairs they are: then the
    numbers are the most that they can be."""


def ensure_labels(
    collection: Collection,
    source: str,
    cache: Cache,
    progress: Progress | None = None,
    min_grade: int = 1,
    source_min_grade: int = 1,
) -> Agreement:
    """The agreement of a label source with the human labels; the source is made if it is absent.

    The thresholds are those of the human labels and of the source. Safe when several processes
    call it. Raises InvalidInput for a source that neither the collection, nor the cache, nor
    ANNOTATORS has.
    """
    made = annotated(collection.fingerprint, source, cache)
    if source not in collection.sources and made is None:
        if source not in ANNOTATORS:
            known = [*collection.sources, *ANNOTATORS]
            rule = f"is no label source of {collection.name}; known: {', '.join(known)}"
            raise InvalidInput([Problem("labels", rule, source, nearest(source, known))])
        _Making(collection, ANNOTATORS[source], None, cache, None, progress).make(source)
    return compare(collection, source, cache, min_grade, source_min_grade)


def annotate(
    collection_name: str,
    annotator: Annotator,
    source: str,
    cache: Cache,
    progress: Progress | None = None,
    split: str | None = None,
    judging: Judging | None = None,
) -> Agreement:
    """Let `annotator` judge a collection; `source` names its labels, a source like any other then.

    Only the queries of `split` are judged when one is given. `judging` does the work, by default
    in this process. Verdicts are kept block by block, so an interrupted call goes on where it
    stopped. `progress` counts pairs (passages for a BiEncoder). Raises InvalidInput when the name
    is taken or unfit, or the model or the prompt cannot be used.
    """
    collection = open_collection(collection_name, cache)
    problems = name_problems(collection, annotator, source, cache, split)
    if problems:
        raise InvalidInput(problems)
    _Making(collection, annotator, split, cache, judging or Here(), progress).make(source)
    return compare(collection, source, cache, split=split)


def name_problems(
    collection: Collection,
    annotator: Annotator | None,
    source: str,
    cache: Cache,
    split: str | None = None,
) -> list[Problem]:
    """Why the annotator's labels of a collection cannot be called `source`; empty when they can.

    Without an annotator nothing is said of labels of that name that another may have made.
    """
    taken = (*collection.sources, "qrels", *ANNOTATORS)
    if re.fullmatch(_NAME, source) is None or source in taken:
        rule = (
            "must be a new name of letters, digits, dots, dashes and underscores; taken: "
            f"{', '.join(taken)}"
        )
        return [Problem("source", rule, source)]
    made = cache.find(LABELS_KIND, annotation_key(collection.fingerprint, source))
    if made is None or annotator is None:
        return []
    before = json.loads((made / MADE_BY).read_text(encoding="utf-8"))
    now = description(annotator, split)
    if before == now:
        return []
    other = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    told = ", ".join(f"{key} {before.get(key)!r}" for key in other)
    rule = f"is the name of labels that were made otherwise ({told}); choose another"
    return [Problem("source", rule, source)]


def amount(
    collection: Collection, annotator: Annotator, cache: Cache, split: str | None = None
) -> Amount:
    """What `annotate` would have to judge; nothing is judged, and no model is loaded."""
    human = _human(collection, collection.splits if split is None else [split])
    positives = human.take(human.grades >= 1)
    queries = np.unique(human.query_rows)
    if isinstance(annotator, BiEncoder) or annotator.pool != "bm25":
        most = len(queries) * min(annotator.depth, len(collection.passages)) + len(positives)
        return Amount(len(queries), most, most, exact=False)
    pool = lexical_pool(collection, queries, annotator.depth, positives, cache)
    pairs, _ = _judged_pairs(pool, positives)
    left = count_missing(collection, annotator, pairs, cache)
    return Amount(len(queries), len(pairs), left, exact=True)


def compare(
    collection: Collection,
    source: str,
    cache: Cache,
    min_grade: int = 1,
    source_min_grade: int = 1,
    split: str | None = None,
) -> Agreement:
    """The agreement of a label source with the human labels of `split`, by default of the training
    split, where there is one, else of all splits."""
    splits = ["train"] if "train" in collection.splits else list(collection.splits)
    human = _human(collection, splits if split is None else [split])
    pairs, _ = located(collection, load_labels(collection, source, cache))
    inside = pairs.take(np.isin(pairs.query_rows, human.query_rows))
    return agreement(source, inside, human, min_grade, source_min_grade)


@dataclass(frozen=True)
class _Making:
    """One annotation: who judges what, and who does the work (None: as for any search)."""

    collection: Collection
    annotator: Annotator
    split: str | None
    cache: Cache
    judging: Judging | None
    progress: Progress | None

    def make(self, source: str) -> Path:
        """The folder of the source in the cache, made if it is absent."""

        def make(folder: Path) -> None:
            write_judgements(folder / LABELS_FILE, self._labels())
            text = json.dumps(description(self.annotator, self.split), sort_keys=True, indent=1)
            (folder / MADE_BY).write_text(text + "\n", encoding="utf-8")

        key = annotation_key(self.collection.fingerprint, source)
        return self.cache.folder(LABELS_KIND, key, make)

    def _labels(self) -> Judgements:
        """The judgements; those of a query stand together, the likeliest answer first."""
        splits = self.collection.splits if self.split is None else [self.split]
        human = _human(self.collection, splits)
        positives = human.take(human.grades >= 1)
        queries = np.unique(human.query_rows)
        if isinstance(self.annotator, BiEncoder):
            pool = self._dense(self.annotator, queries, positives, self.progress)
            pairs, scores = _judged_pairs(pool, positives)
            grades = _threshold(pairs, scores, self.annotator)
        else:
            pool = self._candidates(self.annotator, queries, positives)
            pairs, _ = _judged_pairs(pool, positives)
            grades, scores = self._verdicts(self.annotator, pairs)
        order = np.lexsort((pairs.passage_rows, -scores, pairs.query_rows))
        return Judgements(
            self.collection.queries.ids(pairs.query_rows[order]),
            self.collection.passages.ids(pairs.passage_rows[order]),
            grades[order],
        )

    def _verdicts(
        self, annotator: PairAnnotator, pairs: Pairs
    ) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        judging = self.judging or Here()
        found = verdicts_on(self.collection, annotator, pairs, self.cache, judging, self.progress)
        if isinstance(annotator, CrossEncoder):
            # A kept verdict may come from a call with another threshold.
            return (found.scores >= annotator.threshold).astype(np.int16), found.scores
        return found.grades, found.scores

    def _candidates(self, annotator: PairAnnotator, queries: Ints, positives: Pairs) -> Pool:
        if annotator.pool == "bm25":
            return lexical_pool(self.collection, queries, annotator.depth, positives, self.cache)
        searcher = BiEncoder(annotator.pool, annotator.depth)
        return self._dense(searcher, queries, positives, None)

    def _dense(
        self, annotator: BiEncoder, queries: Ints, positives: Pairs, progress: Progress | None
    ) -> Pool:
        place = (self.collection, queries, annotator.depth, positives)
        if self.judging is None:
            return dense_pool(*place, open_encoder(annotator), self.cache, progress)
        texts, passages = self.collection.queries, self.collection.passages
        asked = encoded(texts, queries, "query", annotator, self.cache, self.judging)
        vectors = torch.cat([part for part, _ in asked])
        every = np.arange(len(passages), dtype=np.int64)
        parts = encoded(passages, every, "passage", annotator, self.cache, self.judging, progress)
        return vector_pool(*place, vectors, parts)


def _judged_pairs(pool: Pool, positives: Pairs) -> tuple[Pairs, NDArray[np.float32]]:
    """The pool and the positives, each pair once, sorted by query and passage, with its score."""
    line, rank = np.nonzero(pool.rows >= 0)
    queries = np.concatenate([pool.query_rows[line], positives.query_rows])
    passages = np.concatenate([pool.rows[line, rank], positives.passage_rows])
    scores = np.concatenate([pool.scores[line, rank], pool.pair_scores])
    pairs = Pairs(queries, passages, np.zeros(len(queries), dtype=np.int16))
    _, first = np.unique(pairs.keys(), return_index=True)
    return pairs.take(first), scores[first]


def _threshold(
    pairs: Pairs, scores: NDArray[np.float32], annotator: BiEncoder
) -> NDArray[np.int16]:
    distinct, line = np.unique(pairs.query_rows, return_inverse=True)
    best = np.full(len(distinct), -np.inf, dtype=np.float32)
    np.maximum.at(best, line, scores)
    relevant = (scores >= annotator.least) & (scores >= annotator.share * best[line])
    return relevant.astype(np.int16)


def _human(collection: Collection, splits: Sequence[str]) -> Pairs:
    """The human judgements of the splits; of a pair judged in several, the first."""
    tables = [located(collection, collection.judgements(split))[0] for split in splits]
    joined = Pairs(
        np.concatenate([table.query_rows for table in tables]),
        np.concatenate([table.passage_rows for table in tables]),
        np.concatenate([table.grades for table in tables]),
    )
    return joined.take(np.sort(np.unique(joined.keys(), return_index=True)[1]))
