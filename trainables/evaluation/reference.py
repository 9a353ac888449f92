"""The same metrics by pytrec_eval, the field's trusted library: the reference for `scoring`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trainables.evaluation.metrics import Metric
from trainables.evaluation.scoring import Floats, Ints, Judged

SAMPLE = 16
"""Queries of each evaluation whose values are compared with the library's."""

TOLERANCE = 1e-9


class MetricMismatch(ArithmeticError):
    """A metric's value differs from pytrec_eval's: this is a fault of the program."""


@dataclass(frozen=True)
class _Call:
    """How pytrec_eval is asked: its measure, and what of the run it is shown."""

    measure: str
    with_cutoff: bool = True
    cut: bool = False
    judged_only: bool = False


_CALLS: dict[str, _Call] = {
    "mrr": _Call("recip_rank", with_cutoff=False, cut=True),
    "ndcg": _Call("ndcg_cut"),
    "recall": _Call("recall"),
    "map": _Call("map_cut"),
    "success": _Call("success"),
    "bpref": _Call("bpref", with_cutoff=False),
    "condensed_ndcg": _Call("ndcg_cut", judged_only=True),
}


def library_scores(rows: Ints, truth: Judged, metrics: Iterable[Metric]) -> dict[str, Floats]:
    """What `scoring.score_rows` returns, by pytrec_eval; `unjudged` it does not know.

    The ranks are passed on as scores, whole numbers that fall: pytrec_eval sorts by score in
    single precision and breaks ties by id, and so cannot rank differently from the run.
    """
    known = [metric for metric in metrics if metric.family in _CALLS]
    qrels, whole = _qrels(truth), _run(rows)
    values = {}
    for metric in known:
        call = _CALLS[metric.family]
        run = _run(rows[:, : metric.cutoff]) if call.cut else whole
        values[metric.name] = _ask(call, metric.cutoff or max(1, rows.shape[1]), qrels, run, truth)
    return values


def verify(
    values: Mapping[str, Floats], rows: Ints, truth: Judged, chosen: Sequence[Metric]
) -> None:
    """Compare `values` with the library's on a sample of the queries.

    Raises MetricMismatch when one differs by more than TOLERANCE.
    """
    size = len(truth.query_ids)
    if size == 0:
        return
    sample = np.unique(np.linspace(0, size - 1, min(SAMPLE, size)).astype(np.int64))
    part = _take(truth, sample)
    for name, expected in library_scores(rows[sample], part, chosen).items():
        difference = np.abs(values[name][sample] - expected).max()
        if not difference <= TOLERANCE:
            raise MetricMismatch(f"{name} differs from pytrec_eval's value by {difference:.3g}")


def _ask(
    call: _Call,
    cutoff: int,
    qrels: dict[str, dict[str, int]],
    run: dict[str, dict[str, float]],
    truth: Judged,
) -> Floats:
    import pytrec_eval

    name = f"{call.measure}_{cutoff}" if call.with_cutoff else call.measure
    evaluator = pytrec_eval.RelevanceEvaluator(
        qrels, {name}, relevance_level=truth.min_grade, judged_docs_only_flag=call.judged_only
    )
    found = evaluator.evaluate(run)
    size = len(truth.query_ids)
    return np.array([found.get(str(i), {}).get(name, 0.0) for i in range(size)], dtype=np.float64)


def _qrels(truth: Judged) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    columns = zip(truth.query.tolist(), truth.passage.tolist(), truth.grade.tolist(), strict=True)
    for query, passage, grade in columns:
        qrels.setdefault(str(query), {})[str(passage)] = grade
    return qrels


def _run(rows: Ints) -> dict[str, dict[str, float]]:
    width = rows.shape[1]
    return {
        str(i): {str(row): float(width - r) for r, row in enumerate(line) if row >= 0}
        for i, line in enumerate(rows.tolist())
    }


def _take(truth: Judged, queries: Ints) -> Judged:
    """The part of `truth` that belongs to the ascending `queries`, renumbered from 0."""
    place = np.minimum(np.searchsorted(queries, truth.query), len(queries) - 1)
    inside = queries[place] == truth.query
    return replace(
        truth,
        query_ids=tuple(truth.query_ids[i] for i in queries.tolist()),
        query=place[inside],
        passage=truth.passage[inside],
        grade=truth.grade[inside],
    )
