"""The equations of the metrics, all on one page, over the judged passages of a run.

Only judged passages move a metric, so a ranking is read as the short list of its judged entries:
(query, rank, grade). That makes scoring take milliseconds where dictionaries take seconds. The
trusted library stays the reference: the tests hold every value to pytrec_eval and ir_measures,
and `reference.verify` compares a sample of the queries with pytrec_eval in each evaluation.

The rules, one for every metric:
* A positive is a passage graded `min_grade` or higher. nDCG reads the raw grades, gain = grade,
  discount = log2(rank + 1), as trec_eval and BEIR do.
* A query without a positive is left out of every metric, because no run can score on it;
  trec_eval would count it as 0 for every system and so shrink all differences.
* A judged query that is missing from the run, or found no positive, scores 0.
* A judged passage that is not in the corpus still counts among the positives.
* A negative grade is read as unjudged, as in trec_eval.
* Ranks are the run's own. Scores are not sorted again, so ties are decided once, in the search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.data.collections import Judgements
from trainables.evaluation.metrics import Metric

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Judged:
    """What is known of Q queries that have a positive, J judged pairs in all.

    `query` int64[J] ascending indices into `query_ids`; `passage` int64[J] rows of the corpus,
    ascending within a query, below 0 for passages that the corpus lacks; `grade` int64[J].
    """

    query_ids: tuple[str, ...]
    query: Ints
    passage: Ints
    grade: Ints
    min_grade: int
    left_out: int
    """Judged queries without a positive."""

    @property
    def positives(self) -> Ints:
        """Positives per query, int64[Q]."""
        return _count(self.query[self.grade >= self.min_grade], len(self.query_ids))

    @property
    def negatives(self) -> Ints:
        """Passages judged not positive per query, int64[Q]."""
        return _count(self.query[self.grade < self.min_grade], len(self.query_ids))


def judged(judgements: Judgements, rows: Callable[[list[str]], Ints], min_grade: int) -> Judged:
    """Judgements in the form that scoring reads; queries stand in the order of their first line.

    `rows` maps passage ids to rows of the corpus, -1 when absent. Raises ValueError when
    `min_grade` is below 1: a passage without a gain cannot be a positive.
    """
    if min_grade < 1:
        raise ValueError(f"min_grade must be at least 1, is {min_grade}")
    index = {name: i for i, name in enumerate(dict.fromkeys(judgements.query_ids))}
    query = np.fromiter((index[name] for name in judgements.query_ids), np.int64, len(judgements))
    grade = judgements.grades.astype(np.int64)
    passage_ids = list(judgements.passage_ids)
    passage = _distinct(passage_ids, rows(passage_ids))
    scored = _count(query[grade >= min_grade], len(index)) > 0
    order = np.lexsort((passage, query))
    kept = order[scored[query[order]] & (grade[order] >= 0)]
    return Judged(
        tuple(name for name, use in zip(index, scored.tolist(), strict=True) if use),
        (np.cumsum(scored) - 1)[query[kept]],
        passage[kept],
        grade[kept],
        min_grade,
        int((~scored).sum()),
    )


@dataclass(frozen=True, eq=False)
class Found:
    """The judged entries of a run, by query and then by rank.

    `query`, `rank` (from 0) and `grade` are int64[E]; `retrieved` is int64[Q], the passages that
    the run holds per query.
    """

    truth: Judged
    query: Ints
    rank: Ints
    grade: Ints
    retrieved: Ints

    @property
    def positive(self) -> NDArray[np.bool_]:
        """Which entries are positives, bool[E]."""
        return self.grade >= self.truth.min_grade


def found(rows: Ints, truth: Judged) -> Found:
    """The judged entries of a run given as rows int64[Q, k] in rank order, -1 where it ends.

    Line q of `rows` belongs to `truth.query_ids[q]`.
    """
    starts = np.searchsorted(truth.query, np.arange(len(rows) + 1))
    queries, ranks, grades = [], [], []
    for i, line in enumerate(rows):
        known = truth.passage[starts[i] : starts[i + 1]]
        place = np.minimum(np.searchsorted(known, line), len(known) - 1)
        rank = np.flatnonzero((known[place] == line) & (line >= 0))
        ranks.append(rank)
        grades.append(truth.grade[starts[i] + place[rank]])
        queries.append(np.full(len(rank), i, dtype=np.int64))
    return Found(truth, _join(queries), _join(ranks), _join(grades), (rows >= 0).sum(1))


def score_rows(rows: Ints, truth: Judged, metrics: Iterable[Metric]) -> dict[str, Floats]:
    """Every metric per query, float64[Q], of a run given as rows int64[Q, k] in rank order."""
    entries = found(rows, truth)
    depth = max(1, rows.shape[1])
    return {m.name: EQUATIONS[m.family](entries, m.cutoff or depth) for m in metrics}


def mrr(run: Found, k: int) -> Floats:
    """1 / rank of the first positive of the top k; Voorhees, TREC-8 QA track (1999)."""
    query, rank = _hits(run, k)
    values = np.zeros(len(run.retrieved))
    first_query, first = np.unique(query, return_index=True)
    values[first_query] = 1.0 / (rank[first] + 1)
    return values


def ndcg(run: Found, k: int) -> Floats:
    """sum_{r<=k} g_r / log2(r + 1) over its largest value; Jarvelin and Kekalainen (2002)."""
    return _ndcg(run, run.rank, k)


def condensed_ndcg(run: Found, k: int) -> Floats:
    """nDCG after the unjudged passages are taken out; Sakai, SIGIR 2007."""
    return _ndcg(run, _position(run.query), k)


def recall(run: Found, k: int) -> Floats:
    """Positives in the top k / positives."""
    return _count(_hits(run, k)[0], len(run.retrieved)) / run.truth.positives


def average_precision(run: Found, k: int) -> Floats:
    """sum over the positives of the top k of their precision / positives."""
    query, rank = _hits(run, k)
    precision = (_position(query) + 1) / (rank + 1)
    return _sum(query, precision, len(run.retrieved)) / run.truth.positives


def success(run: Found, k: int) -> Floats:
    """1 when the top k holds a positive, else 0."""
    return (_count(_hits(run, k)[0], len(run.retrieved)) > 0).astype(np.float64)


def bpref(run: Found, k: int) -> Floats:
    """1/R sum_positives (1 - min(R, n) / min(R, N)); Buckley and Voorhees (2004).

    n counts the judged negatives above the positive, R and N the positives and negatives judged.
    As in trec_eval a positive with no negative above it adds 1.
    """
    positives, negatives = run.truth.positives, run.truth.negatives
    above = _position(run.query)[run.positive] - _position(run.query[run.positive])
    query = run.query[run.positive]
    limit = np.minimum(positives, negatives)[query]
    share = np.minimum(above, positives[query]) / np.maximum(limit, 1)
    return _sum(query, 1.0 - share, len(positives)) / positives


def unjudged(run: Found, k: int) -> Floats:
    """Passages without a judgement / passages, both in the top k; 0 when nothing was found."""
    shown = np.minimum(run.retrieved, k)
    known = _count(run.query[run.rank < k], len(shown))
    return (shown - known) / np.maximum(shown, 1)


EQUATIONS: dict[str, Callable[[Found, int], Floats]] = {
    "mrr": mrr,
    "ndcg": ndcg,
    "recall": recall,
    "map": average_precision,
    "success": success,
    "bpref": bpref,
    "condensed_ndcg": condensed_ndcg,
    "unjudged": unjudged,
}


def _hits(run: Found, k: int) -> tuple[Ints, Ints]:
    inside = run.positive & (run.rank < k)
    return run.query[inside], run.rank[inside]


def _ndcg(run: Found, rank: Ints, k: int) -> Floats:
    truth = run.truth
    order = np.lexsort((-truth.grade, truth.query))
    best = _gain(truth.query, _position(truth.query), truth.grade[order], k, len(run.retrieved))
    return _gain(run.query, rank, run.grade, k, len(run.retrieved)) / best


def _gain(query: Ints, rank: Ints, grade: Ints, k: int, size: int) -> Floats:
    inside = rank < k
    return _sum(query[inside], grade[inside] / np.log2(rank[inside] + 2.0), size)


def _position(query: Ints) -> Ints:
    """Position of each entry among the entries of its query, from 0; `query` ascends."""
    return np.arange(len(query)) - np.searchsorted(query, query)


def _count(query: Ints, size: int) -> Ints:
    return np.bincount(query, minlength=size)


def _sum(query: Ints, values: Floats, size: int) -> Floats:
    return np.bincount(query, weights=values, minlength=size).astype(np.float64, copy=False)


def _join(parts: list[Ints]) -> Ints:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def _distinct(ids: list[str], rows: Ints) -> Ints:
    """Rows, with a number of its own below -1 for each id that the corpus lacks."""
    absent: dict[str, int] = {}
    rows = rows.copy()
    for place in np.flatnonzero(rows < 0).tolist():
        rows[place] = absent.setdefault(ids[place], -2 - len(absent))
    return rows
