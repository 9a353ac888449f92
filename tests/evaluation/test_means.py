"""BEIR's means: CQADupStack as one set, and names that say what is averaged."""

from __future__ import annotations

import re

import pytest

from trainables.data.collections import COLLECTIONS, parse_refs
from trainables.evaluation.means import beir_means

PARTS = [name for name in COLLECTIONS if name.startswith("beir/cqadupstack/")]


def test_cqadupstack_is_the_mean_of_its_parts_and_one_set_among_others() -> None:
    assert len(PARTS) == 12
    metrics = {f"{name}/test/ndcg_at_10": i / 20 for i, name in enumerate(PARTS)}
    metrics |= {"beir/scifact/test/ndcg_at_10": 0.7, "nfcorpus/test/ndcg_at_10": 0.3}
    means = beir_means(metrics)
    assert means == {
        "beir/cqadupstack/test/ndcg_at_10": pytest.approx(5.5 / 20),
        "beir/mean:cqadupstack:nfcorpus:scifact/ndcg_at_10": pytest.approx((0.275 + 0.7 + 0.3) / 3),
    }


def test_parts_alone_are_no_set_and_one_set_has_no_mean() -> None:
    metrics = {f"{name}/test/map": 0.5 for name in PARTS[1:]}
    assert beir_means(metrics) == {}
    assert beir_means({**metrics, "beir/scifact/test/map": 0.7}) == {}


def test_only_the_split_that_beir_scores_counts() -> None:
    metrics = {
        "msmarco/dev/map": 0.2, "msmarco/test/map": 0.9, "nq/test/map": 0.4, "nq/dev/map": 0.8,
        "pydocs/test/map": 1.0, "nq/test:machine:weak/map": 0.6, "train/loss": 2.0,
    }  # fmt: skip
    assert beir_means(metrics) == {"beir/mean:msmarco:nq/map": pytest.approx(0.3)}


def test_the_longest_name_suits_mlflow() -> None:
    sets = [name for name in COLLECTIONS if name.startswith("beir/") and name.count("/") == 1]
    metrics = {f"{name}/test/ndcg_at_10": 0.1 for name in [*sets, *PARTS]}
    (key,) = [key for key in beir_means(metrics) if "mean" in key]
    assert len(key) < 250 and re.fullmatch(r"[\w\-. :/]+", key)


def test_the_name_of_the_set_stands_for_its_parts() -> None:
    assert [ref.collection for ref in parse_refs("beir/cqadupstack/test")] == PARTS
