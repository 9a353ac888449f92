"""Metric values: by hand, against plain loops, against pytrec_eval and ir_measures, to 1e-9."""

from __future__ import annotations

import math
from collections.abc import Iterable

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.data.collections import Judgements
from trainables.evaluation.metrics import Metric, parse_metric
from trainables.evaluation.reference import MetricMismatch, library_scores, verify
from trainables.evaluation.scoring import Judged, judged, score_rows

CORPUS = 14
NAMES = (
    "mrr_at_3",
    "mrr_at_10",
    "ndcg_at_1",
    "ndcg_at_5",
    "ndcg_at_10",
    "recall_at_2",
    "recall_at_10",
    "map",
    "map_at_4",
    "success_at_1",
    "success_at_5",
    "bpref",
    "condensed_ndcg_at_5",
    "unjudged_at_3",
    "unjudged_at_10",
)
METRICS = tuple(parse_metric(name) for name in NAMES)
Qrels = dict[str, dict[str, int]]
Rankings = dict[str, list[int]]


def corpus_rows(ids: list[str]) -> np.ndarray:
    """Passage pN stands in row N; the corpus ends at CORPUS."""
    rows = [int(name[1:]) for name in ids]
    return np.array([row if row < CORPUS else -1 for row in rows], dtype=np.int64)


def columns(qrels: Qrels) -> Judgements:
    lines = [(q, p, grade) for q, known in qrels.items() for p, grade in known.items()]
    return Judgements(
        [line[0] for line in lines],
        [line[1] for line in lines],
        np.array([line[2] for line in lines], dtype=np.int16),
    )


def run_rows(truth: Judged, rankings: Rankings, depth: int) -> np.ndarray:
    rows = np.full((len(truth.query_ids), depth), -1, dtype=np.int64)
    for i, query in enumerate(truth.query_ids):
        ranking = rankings.get(query, [])[:depth]
        rows[i, : len(ranking)] = ranking
    return rows


def values(qrels: Qrels, rankings: Rankings, min_grade: int = 1) -> dict[str, dict[str, float]]:
    """Metric -> query -> value."""
    truth = judged(columns(qrels), corpus_rows, min_grade)
    found = score_rows(run_rows(truth, rankings, CORPUS), truth, METRICS)
    return {
        name: dict(zip(truth.query_ids, per_query.tolist(), strict=True))
        for name, per_query in found.items()
    }


def test_values_worked_out_by_hand() -> None:
    qrels = {"a": {"p0": 2, "p1": 1, "p2": 0, "p3": 0}}
    found = values(qrels, {"a": [5, 2, 0, 7, 1, 3]})
    ideal = 2 + 1 / math.log2(3)
    assert found["mrr_at_10"]["a"] == pytest.approx(1 / 3)
    assert found["mrr_at_3"]["a"] == pytest.approx(1 / 3)
    assert found["ndcg_at_10"]["a"] == pytest.approx((2 / 2 + 1 / math.log2(6)) / ideal)
    assert found["ndcg_at_1"]["a"] == 0
    assert found["recall_at_2"]["a"] == 0
    assert found["recall_at_10"]["a"] == 1
    assert found["map"]["a"] == pytest.approx((1 / 3 + 2 / 5) / 2)
    assert found["map_at_4"]["a"] == pytest.approx((1 / 3) / 2)
    assert found["success_at_5"]["a"] == 1
    assert found["bpref"]["a"] == pytest.approx(((1 - 1 / 2) + (1 - 1 / 2)) / 2)
    condensed = (2 / math.log2(3) + 1 / math.log2(4)) / ideal
    assert found["condensed_ndcg_at_5"]["a"] == pytest.approx(condensed)
    assert found["unjudged_at_3"]["a"] == pytest.approx(1 / 3)
    assert found["unjudged_at_10"]["a"] == pytest.approx(2 / 6)


def test_a_missing_query_scores_zero_and_stays_in_the_mean() -> None:
    found = values({"a": {"p0": 1}, "b": {"p1": 1}}, {"a": [0]})
    assert found["mrr_at_10"] == {"a": 1.0, "b": 0.0}
    assert found["ndcg_at_10"] == {"a": 1.0, "b": 0.0}


def test_a_query_without_a_positive_is_left_out() -> None:
    qrels = {"a": {"p0": 1}, "b": {"p1": 0}, "c": {"p2": 2}}
    assert set(values(qrels, {"a": [0], "b": [1]})["map"]) == {"a", "c"}
    assert set(values(qrels, {"a": [0], "b": [1]}, min_grade=2)["map"]) == {"c"}
    assert judged(columns(qrels), corpus_rows, 2).left_out == 2


def test_the_grade_of_a_positive_is_a_threshold_for_all_but_ndcg() -> None:
    qrels = {"a": {"p0": 1, "p1": 3}}
    found = values(qrels, {"a": [0, 1]}, min_grade=2)
    assert found["mrr_at_10"]["a"] == 0.5
    assert found["recall_at_10"]["a"] == 1
    assert found["ndcg_at_1"]["a"] == pytest.approx(1 / 3)


def test_a_positive_that_the_corpus_lacks_still_counts() -> None:
    found = values({"a": {"p0": 1, "p98": 1, "p99": 1}}, {"a": [0]})
    assert found["recall_at_10"]["a"] == pytest.approx(1 / 3)
    assert found["ndcg_at_10"]["a"] < 1


def test_a_negative_grade_is_no_judgement() -> None:
    found = values({"a": {"p0": 1, "p1": -2}}, {"a": [1, 0]})
    assert found["unjudged_at_10"]["a"] == 0.5
    assert found["bpref"]["a"] == 1


def test_a_grade_without_gain_cannot_be_positive() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        judged(columns({"a": {"p0": 1}}), corpus_rows, 0)


def test_nothing_judged_gives_no_values() -> None:
    truth = judged(columns({}), corpus_rows, 1)
    found = score_rows(np.empty((0, 5), dtype=np.int64), truth, METRICS)
    assert all(per_query.shape == (0,) for per_query in found.values())
    verify(found, np.empty((0, 5), dtype=np.int64), truth, METRICS)


grades = st.dictionaries(
    st.integers(0, CORPUS + 3).map("p{}".format), st.integers(0, 3), min_size=1, max_size=12
)
all_qrels = st.dictionaries(st.sampled_from("abcdef"), grades, min_size=1)
all_runs = st.dictionaries(
    st.sampled_from("abcdef"), st.permutations(range(CORPUS)).flatmap(lambda p: _prefix(p))
)


def _prefix(ranking: list[int]) -> st.SearchStrategy[list[int]]:
    return st.integers(0, CORPUS).map(lambda length: ranking[:length])


@settings(max_examples=150, deadline=None)
@given(all_qrels, all_runs, st.integers(1, 3))
def test_values_equal_plain_loops(qrels: Qrels, rankings: Rankings, min_grade: int) -> None:
    found = values(qrels, rankings, min_grade)
    scored = [q for q, known in qrels.items() if max(known.values()) >= min_grade]
    for metric in METRICS:
        expected = {q: loops(metric, qrels[q], rankings.get(q, []), min_grade) for q in scored}
        assert found[metric.name] == pytest.approx(expected, abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(all_qrels, all_runs, st.integers(1, 3))
def test_values_equal_pytrec_eval(qrels: Qrels, rankings: Rankings, min_grade: int) -> None:
    truth = judged(columns(qrels), corpus_rows, min_grade)
    rows = run_rows(truth, rankings, CORPUS)
    ours, theirs = score_rows(rows, truth, METRICS), library_scores(rows, truth, METRICS)
    assert len(theirs) == len(METRICS) - 2
    for name, expected in theirs.items():
        np.testing.assert_allclose(ours[name], expected, rtol=0, atol=1e-9, err_msg=name)


@settings(max_examples=60, deadline=None)
@given(all_qrels, all_runs, st.integers(1, 3))
def test_values_equal_ir_measures(qrels: Qrels, rankings: Rankings, min_grade: int) -> None:
    found = values(qrels, rankings, min_grade)
    rel = min_grade
    measures = {
        "mrr_at_3": ir_measures.RR(rel=rel) @ 3,
        "mrr_at_10": ir_measures.RR(rel=rel) @ 10,
        "ndcg_at_5": ir_measures.nDCG @ 5,
        "recall_at_2": ir_measures.R(rel=rel) @ 2,
        "map": ir_measures.AP(rel=rel),
        "map_at_4": ir_measures.AP(rel=rel) @ 4,
        "success_at_5": ir_measures.Success(rel=rel) @ 5,
        "bpref": ir_measures.Bpref(rel=rel),
        "condensed_ndcg_at_5": ir_measures.nDCG(judged_only=True) @ 5,
        "unjudged_at_3": ir_measures.Judged @ 3,
    }
    lines = [ir_measures.Qrel(q, p, g) for q, known in qrels.items() for p, g in known.items()]
    run = [
        ir_measures.ScoredDoc(q, f"p{row}", float(-rank))
        for q, ranking in rankings.items()
        for rank, row in enumerate(ranking)
    ]
    theirs = {
        (str(value.measure), value.query_id): value.value
        for value in ir_measures.iter_calc(list(measures.values()), lines, run)
    }
    compared = 0
    for name, measure in measures.items():
        for query, value in found[name].items():
            if not rankings.get(query):
                continue
            expected = theirs[str(measure), query]
            expected = 1 - expected if name.startswith("unjudged") else expected
            assert value == pytest.approx(expected, abs=1e-9), name
            compared += 1
    assert compared == len(measures) * len([q for q in found["map"] if rankings.get(q)])


def test_a_value_that_is_not_the_librarys_is_a_fault() -> None:
    truth = judged(columns({"a": {"p0": 1}, "b": {"p1": 1}}), corpus_rows, 1)
    rows = run_rows(truth, {"a": [0], "b": [2, 1]}, 5)
    found = score_rows(rows, truth, METRICS)
    verify(found, rows, truth, METRICS)
    with pytest.raises(MetricMismatch, match="map"):
        verify({**found, "map": found["map"] + 1e-6}, rows, truth, METRICS)
    with pytest.raises(MetricMismatch, match="map"):
        verify({**found, "map": found["map"] * np.nan}, rows, truth, METRICS)


def loops(metric: Metric, known: dict[str, int], ranking: list[int], min_grade: int) -> float:
    """The metric of one query, as its definition reads."""
    graded = [known.get(f"p{row}") for row in ranking]
    cutoff = metric.cutoff or CORPUS
    positive = [grade is not None and grade >= min_grade for grade in graded]
    total = sum(grade >= min_grade for grade in known.values())
    if metric.family == "mrr":
        return next((1 / r for r, hit in enumerate(positive[:cutoff], 1) if hit), 0.0)
    if metric.family == "recall":
        return sum(positive[:cutoff]) / total
    if metric.family == "success":
        return float(any(positive[:cutoff]))
    if metric.family == "map":
        hits = [r for r, hit in enumerate(positive[:cutoff], 1) if hit]
        return sum(i / r for i, r in enumerate(hits, 1)) / total
    if metric.family == "unjudged":
        shown = graded[:cutoff]
        return sum(grade is None for grade in shown) / len(shown) if shown else 0.0
    if metric.family == "bpref":
        return _bpref(graded, positive, total, len(known) - total)
    if metric.family == "condensed_ndcg":
        graded = [grade for grade in graded if grade is not None]
    ideal = sorted(known.values(), reverse=True)
    return _dcg(graded[:cutoff]) / _dcg(ideal[:cutoff])


def _dcg(graded: Iterable[int | None]) -> float:
    return sum((grade or 0) / math.log2(r + 1) for r, grade in enumerate(graded, 1))


def _bpref(graded: list[int | None], positive: list[bool], total: int, negatives: int) -> float:
    above, value = 0, 0.0
    for grade, hit in zip(graded, positive, strict=True):
        if hit and above:
            value += 1 - min(above, total) / min(negatives, total)
        elif hit:
            value += 1
        elif grade is not None:
            above += 1
    return value / total
