"""Names of metrics: what they mean, and what is answered to a wrong one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainables.errors import InvalidInput
from trainables.evaluation.metrics import (
    DEFAULT_METRICS,
    FAMILIES,
    Metric,
    parse_metric,
    parse_metric_key,
    parse_metrics,
)
from trainables.evaluation.scoring import EQUATIONS


def test_a_name_says_family_and_cutoff() -> None:
    assert parse_metric("mrr_at_10") == Metric("mrr_at_10", "mrr", 10)
    assert parse_metric("map") == Metric("map", "map", None)
    assert parse_metric("map_at_100") == Metric("map_at_100", "map", 100)
    assert parse_metric("condensed_ndcg_at_20").family == "condensed_ndcg"
    assert not parse_metric("unjudged_at_10").higher_is_better


def test_every_family_has_an_equation() -> None:
    assert set(FAMILIES) == set(EQUATIONS)
    assert {parse_metric(name).family for name in DEFAULT_METRICS} >= {"mrr", "ndcg", "recall"}


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("ndgc_at_10", "ndcg_at_10"),
        ("ndcg@20", "ndcg_at_20"),
        ("recall_at_0", "recall_at_10"),
        ("recall_at_", "recall_at_10"),
        ("recall", "recall_at_10"),
        ("bpref_at_5", "bpref"),
        ("map_at_", "map"),
        ("mrr_at_10_", "mrr_at_10"),
        ("mrr_at_010", "mrr_at_10"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(wrong: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_metric(wrong, key="select.maximize", place="study.yaml")
    (problem,) = caught.value.problems
    assert problem.key == "select.maximize"
    assert problem.place == "study.yaml"
    assert problem.value == wrong
    assert problem.nearest is not None
    assert problem.nearest.startswith(hint)


def test_all_wrong_names_are_listed_together() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_metrics(["mrr_at_10", "recal_at_10", "recall_at_1000", "ndcg"], depth=100)
    assert [problem.value for problem in caught.value.problems] == [
        "recal_at_10",
        "recall_at_1000",
        "ndcg",
    ]


def test_a_metric_named_twice_is_computed_once() -> None:
    assert len(parse_metrics(["map", "mrr_at_10", "map"], depth=10)) == 2


def test_a_key_says_what_was_evaluated() -> None:
    label, metric = parse_metric_key("beir/scifact/test/ndcg_at_10")
    assert label == "beir/scifact/test"
    assert metric.name == "ndcg_at_10"


@pytest.mark.parametrize("wrong", ["mrr_at_10", "nq/mrr_at_10", "/mrr_at_10", "nq/test/mrr"])
def test_a_wrong_key_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidInput):
        parse_metric_key(wrong)


def test_names_import_nothing_heavy() -> None:
    code = (
        "import sys, trainables.evaluation.metrics;"
        "print(*{'numpy', 'torch', 'ir_measures', 'pytrec_eval', 'pyarrow'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
