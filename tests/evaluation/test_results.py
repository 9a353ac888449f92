"""The files of an evaluation: equal bytes, and a run that the field's tools score alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from trainables.data.cache import Cache
from trainables.data.collections import Collection, open_collection
from trainables.errors import InvalidInput
from trainables.evaluation.metrics import parse_metrics
from trainables.evaluation.results import (
    Run,
    Scores,
    falling,
    rejudge,
    score,
    write_scores,
)
from trainables.evaluation.scoring import judged

NAMES = ("ndcg_at_10", "map", "recall_at_10", "success_at_5")
IN_TREC = ("ndcg_cut_10", "map", "recall_10", "success_5")


@pytest.fixture
def collection(tiny_collection: str, tmp_path: Path) -> Collection:
    return open_collection(tiny_collection, Cache(tmp_path))


def tied_scores(collection: Collection) -> Scores:
    """Scores of a run in which most passages are tied."""
    truth = judged(collection.judgements("test"), collection.passages.rows, 1)
    generator = np.random.default_rng(0)
    queries = len(truth.query_ids)
    rows = np.stack([generator.permutation(60)[:40] for _ in range(queries)])
    values = -np.sort(-generator.integers(0, 4, rows.shape).astype(np.float32) / 3, axis=1)
    rows[2, 5:], values[2, 5:] = -1, -np.inf
    run = Run(truth.query_ids, rows, values, collection.passages)
    return score(run, truth, parse_metrics(NAMES, 40), "tiny/test")


def test_trec_eval_finds_the_same_values_in_the_written_run(
    collection: Collection, tmp_path: Path
) -> None:
    scores = tied_scores(collection)
    write_scores(scores, tmp_path / "out")
    lines = (tmp_path / "out" / "run.trec").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 40 * 6 + 5
    run: dict[str, dict[str, float]] = {}
    for line in lines:
        query, q0, passage, rank, value, tag = line.split(" ")
        assert (q0, tag) == ("Q0", "ablate")
        run.setdefault(query, {})[passage] = float(value)
        assert len(run[query]) == int(rank)
    qrels = collection.judgements("test").by_query()
    theirs = pytrec_eval.RelevanceEvaluator(qrels, set(IN_TREC)).evaluate(run)
    for ours, name in zip(NAMES, IN_TREC, strict=True):
        expected = [theirs[query][name] for query in scores.query_ids]
        np.testing.assert_allclose(scores.per_query[ours], expected, rtol=0, atol=1e-9)


def test_files_hold_means_and_values_per_query(collection: Collection, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    scores = tied_scores(collection)
    write_scores(scores, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert written == scores.metrics
    assert set(written) == {f"tiny/test/{name}" for name in NAMES}
    table = pq.read_table(tmp_path / "out" / "per_query.parquet")
    assert table.column_names == ["query_id", *NAMES]
    assert table["query_id"].to_pylist() == list(scores.query_ids)
    np.testing.assert_array_equal(table["map"].to_numpy(), scores.per_query["map"])
    assert written["tiny/test/map"] == scores.per_query["map"].mean()


def test_equal_scores_are_equal_bytes(collection: Collection, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_scores(tied_scores(collection), tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["metrics.json", "per_query.parquet", "run.trec"]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_run_is_judged_by_any_label_source(collection: Collection) -> None:
    scores = tied_scores(collection)
    other = rejudge(scores, collection.labels("weak"), NAMES, 1, "tiny/weak")
    assert other.query_ids == scores.query_ids
    assert set(other.metrics) == {f"tiny/weak/{name}" for name in NAMES}
    same = rejudge(scores, collection.judgements("test"), NAMES, 1, "tiny/test")
    assert same.metrics == scores.metrics != other.metrics
    for i, query in enumerate(other.query_ids):
        positives = {p for p, g in collection.labels("weak").by_query()[query].items() if g}
        found = positives & set(scores.run.passage_ids(i)[:10])
        assert other.per_query["recall_at_10"][i] == len(found) / 2
    with pytest.raises(InvalidInput, match="end of the run"):
        rejudge(scores, collection.labels("weak"), ["recall_at_100"], 1, "tiny/weak")


def test_a_query_that_the_run_lacks_scores_zero(collection: Collection) -> None:
    run = tied_scores(collection).run
    truth = judged(collection.labels("weak"), collection.passages.rows, 1)
    scores = score(run, truth, parse_metrics(NAMES, 40), "tiny/weak")
    assert len(scores.query_ids) == 30
    there = [query in run.query_ids for query in scores.query_ids]
    assert sum(there) == 7
    assert not scores.per_query["recall_at_10"][~np.array(there)].any()
    assert scores.run.passage_ids(there.index(True)) == run.passage_ids(0)
    assert scores.run.passage_ids(there.index(False)) == []


def test_nothing_scored_has_no_means(collection: Collection) -> None:
    truth = judged(collection.judgements("test"), collection.passages.rows, 9)
    scores = score(tied_scores(collection).run, truth, parse_metrics(NAMES, 40), "tiny/test")
    assert scores.metrics == {}
    assert scores.left_out == 7


@given(
    arrays.arrays(np.float32, (2, 8), elements=st.floats(-2, 2, width=32, allow_subnormal=False))
)
def test_spread_ties_keep_the_order_and_nearly_the_score(values: np.ndarray) -> None:
    values = -np.sort(-values, axis=1)
    spread = falling(values)
    assert (np.diff(spread, axis=1) < 0).all()
    np.testing.assert_allclose(spread, values, rtol=1e-5, atol=1e-28)
