"""BM25: the equation, golden values, and the figures of real collections."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from trainables.data.cache import Cache
from trainables.data.collections import open_collection, parse_ref
from trainables.evaluation.lexical import K1, B, Bm25, bm25


def test_scores_follow_the_equation(tiny_collection: str, tmp_path: Path) -> None:
    collection = open_collection(tiny_collection, Cache(tmp_path))
    rows = list(range(len(collection.passages)))
    passages = [re.findall(r"\w+", text.lower()) for text in collection.passages.text(rows)]
    mean = sum(map(len, passages)) / len(passages)
    index = Bm25(collection.passages)
    for query in ("array matrix", "rank rank score", "nothing of it"):
        expected = np.zeros(len(passages))
        for word in Counter(re.findall(r"\w+", query)).elements():
            having = sum(word in passage for passage in passages)
            rarity = math.log(1 + (len(passages) - having + 0.5) / (having + 0.5))
            for row, passage in enumerate(passages):
                count = passage.count(word)
                norm = count + K1 * (1 - B + B * len(passage) / mean)
                expected[row] += rarity * count / norm if count else 0.0
        np.testing.assert_allclose(index.scores(query), expected, rtol=1e-5, atol=1e-6)


def test_a_kept_index_scores_alike_and_is_mapped(tiny_collection: str, tmp_path: Path) -> None:
    collection = open_collection(tiny_collection, Cache(tmp_path))
    in_memory = Bm25(collection.passages)
    for _ in range(2):
        kept = Bm25(collection.passages, Cache(tmp_path))
        assert isinstance(kept._index.scores["data"], np.memmap)
        for query in ("array matrix", "rank rank score", "nothing of it"):
            np.testing.assert_array_equal(kept.scores(query), in_memory.scores(query))
    assert len(list((tmp_path / "bm25").glob("*/data.csc.index.npy"))) == 1


def test_golden_values_per_query(tiny_collection: str, tmp_path: Path) -> None:
    (scores,) = bm25([parse_ref(f"{tiny_collection}/test")], Cache(tmp_path))
    assert scores.per_query["mrr_at_10"].tolist() == [
        1 / 2,
        1 / 2,
        1 / 2,
        1 / 2,
        1 / 3,
        1 / 2,
        1 / 3,
    ]
    expected = [1 / 4, 21 / 68, 1 / 4, 21 / 76, 7 / 30, 11 / 40, 3 / 14]
    np.testing.assert_allclose(scores.per_query["map"], expected, atol=1e-12)
    assert scores.per_query["recall_at_100"].tolist() == [0.5, 1, 0.5, 1, 1, 1, 1]


@pytest.mark.parametrize(("name", "expected"), [("scifact", 0.661), ("nfcorpus", 0.306)])
def test_real_collections_give_the_known_figures(
    name: str, expected: float, shared_data: Path, tmp_path: Path
) -> None:
    (scores,) = bm25([parse_ref(f"{shared_data / name}/test")], Cache(tmp_path), depth=1000)
    assert scores.metrics[f"{name}/test/ndcg_at_10"] == pytest.approx(expected, abs=0.005)
