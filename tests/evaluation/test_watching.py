"""What is scored in training: the part of the passages, its name, and a brute-force check."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from trainables.data.cache import Cache
from trainables.data.collections import open_collection, parse_ref
from trainables.errors import InvalidInput
from trainables.evaluation import evaluate as room
from trainables.evaluation.evaluate import bm25, evaluate, evaluate_within
from trainables.evaluation.watching import Watch, Watcher, part
from trainables.model.encoder import Encoder
from trainables.spec import EncoderSpec


@pytest.fixture
def encoder(tiny_backbone: str) -> Encoder:
    return Encoder.load(EncoderSpec(backbone=tiny_backbone), seed=0)


def test_a_part_holds_the_judged_the_best_and_random_passages(
    tiny_collection: str, tmp_path: Path
) -> None:
    ref, cache = parse_ref(f"{tiny_collection}/dev"), Cache(tmp_path / "one")
    collection = open_collection(tiny_collection, cache)
    judged = set(collection.passages.rows(collection.judgements("dev").passage_ids).tolist())
    assert len(judged) == 10
    rows = part(ref, 30, cache)
    assert len(rows) == 30 and (np.diff(rows) > 0).all() and judged < set(rows.tolist())
    (scores,) = bm25([ref], cache, depth=100, metrics=("map",))
    first = set(scores.run.rows[:, :3].ravel().tolist()) - judged
    assert first <= set(rows.tolist())
    np.testing.assert_array_equal(part(ref, 30, Cache(tmp_path / "two")), rows)
    other = part(ref, 30, cache, seed=1)
    assert judged < set(other.tolist()) and set(other.tolist()) != set(rows.tolist())
    larger = part(ref, 40, cache)
    assert judged < set(larger.tolist())


def test_a_part_of_no_use_is_refused(tiny_collection: str, tmp_path: Path) -> None:
    for size in (9, 60):
        with pytest.raises(InvalidInput, match=r"must be 10 .* to 59"):
            part(parse_ref(f"{tiny_collection}/dev"), size, Cache(tmp_path))


def test_scores_within_a_part_are_those_of_the_full_ranking_without_the_rest(
    encoder: Encoder, tiny_collection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "SMALLEST_CHUNK", 7)
    ref, cache = parse_ref(f"{tiny_collection}/dev"), Cache(tmp_path)
    rows = part(ref, 30, cache)
    (full,) = evaluate(encoder, [ref], cache)
    within = evaluate_within(encoder, ref, rows, cache)
    assert within.ref == "tiny/dev:30-passages"
    assert within.query_ids == full.query_ids
    for line in range(len(full.query_ids)):
        ranking = [row for row in full.run.rows[line].tolist() if row in set(rows.tolist())]
        assert within.run.rows[line, :30].tolist() == ranking
        assert set(within.run.rows[line, 30:].tolist()) == {-1}


@pytest.mark.parametrize(("passages", "label"), [(None, "tiny/dev"), (30, "tiny/dev:30-passages")])
def test_the_name_says_over_what(
    encoder: Encoder, tiny_collection: str, tmp_path: Path, passages: int | None, label: str
) -> None:
    watch = Watch(f"{tiny_collection}/dev", 5, passages, ("mrr_at_10", "map"))
    watcher = Watcher(watch, Cache(tmp_path), "float32")
    assert watcher.label == label
    metrics = watcher.scores(encoder).metrics
    assert set(metrics) == {f"{label}/mrr_at_10", f"{label}/map"}
    assert watcher.of({"step": 3.0, "train/loss": 1.0, **metrics}) == metrics


def test_a_row_is_due_when_a_stretch_or_the_training_ends(
    tiny_collection: str, tmp_path: Path
) -> None:
    watch = Watch(f"{tiny_collection}/dev", 10, None, ("map",))
    watcher = Watcher(watch, Cache(tmp_path), "float32")
    rows = [0, 4, 8, 12, 16, 20, 24, 25]
    due = [step for before, step in pairwise(rows) if watcher.due(before, step, 25)]
    assert due == [12, 20, 25]
