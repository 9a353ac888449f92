"""Which queries are searched in a collection for some of its splits, and what is made of the finds.

Refs of one collection share one pass over its passages. The self-match rule stands here: a passage
whose id is the query's is left out of its ranking, as BEIR does for ArguAna and Quora, unless the
judgements name that very pair. The exception serves collections whose queries and passages share
a name space, by design or by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainables.data.cache import Cache
from trainables.data.collections import Collection, Ref, open_collection
from trainables.errors import InvalidInput, Problem
from trainables.evaluation.metrics import Metric
from trainables.evaluation.results import Run, Scores, score
from trainables.evaluation.scoring import Ints, Judged, judged
from trainables.evaluation.topk import unpack


@dataclass(frozen=True, eq=False)
class Questions:
    """The distinct searches S that some refs of one collection need.

    `query_rows` int64[S] are rows of the collection's queries; `own_rows` int64[S] the passage that
    a search must not find, -1 for none.
    """

    collection: Collection
    refs: tuple[Ref, ...]
    truths: tuple[Judged, ...]
    query_rows: Ints
    own_rows: Ints
    lines: tuple[Ints, ...]
    """For each ref and each of its scored queries the search, -1 for a query without a text."""

    def scores(self, keys: Ints, metrics: Sequence[Metric]) -> list[Scores]:
        """The refs' scores, given the keys int64[S, k] of what each search found, best first."""
        found, scores = unpack(keys)
        results = []
        for ref, truth, lines in zip(self.refs, self.truths, self.lines, strict=True):
            searched = np.flatnonzero(lines >= 0)
            names = tuple(truth.query_ids[i] for i in searched.tolist())
            mine = lines[searched]
            run = Run(names, found[mine], scores[mine], self.collection.passages)
            results.append(score(run, truth, metrics, ref.label))
        return results


def ask(collection: Collection, refs: Sequence[Ref]) -> Questions:
    """The searches for every judged query of `refs` that has a positive, each asked once.

    Raises InvalidInput for refs without such a query.
    """
    truths = [
        judged(collection.judgements(ref.split), collection.passages.rows, ref.min_grade)
        for ref in refs
    ]
    problems = [
        Problem("evaluate", f"has no query with a passage graded {ref.min_grade} or more", str(ref))
        for ref, truth in zip(refs, truths, strict=True)
        if not truth.query_ids
    ]
    if problems:
        raise InvalidInput(problems)
    pairs = [_searches(collection, truth) for truth in truths]
    together = np.concatenate([pair[pair[:, 0] >= 0] for pair in pairs])
    distinct = np.unique(together, axis=0)
    place = {pair: i for i, pair in enumerate(map(tuple, distinct.tolist()))}
    lines = tuple(
        np.array([place.get(tuple(one), -1) for one in pair.tolist()], dtype=np.int64)
        for pair in pairs
    )
    return Questions(collection, tuple(refs), tuple(truths), distinct[:, 0], distinct[:, 1], lines)


def by_collection(refs: Sequence[Ref], cache: Cache) -> list[tuple[list[int], Questions]]:
    """For each collection of `refs` their places and their searches; both in order of appearance.

    Raises InvalidInput for a collection or a split that cannot be had, or has nothing to score.
    """
    members: dict[str, list[int]] = {}
    for place, ref in enumerate(refs):
        members.setdefault(ref.collection, []).append(place)
    return [
        (places, ask(open_collection(name, cache), [refs[place] for place in places]))
        for name, places in members.items()
    ]


def _searches(collection: Collection, truth: Judged) -> Ints:
    """(query row, own passage's row) of each scored query, int64[Q, 2]."""
    names = list(truth.query_ids)
    own = collection.passages.rows(names)
    matched = (truth.passage == own[truth.query]) & (own[truth.query] >= 0)
    own[truth.query[matched]] = -1
    return np.stack([collection.queries.rows(names), own], axis=1)
