"""Hard negatives: what is mined, what never is, in which order, and that it is done once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.data.cache import Cache
from trainables.data.collections import Collection, open_collection, parse_ref
from trainables.data.duplicates import overlap, shingles
from trainables.data.negatives import Negatives
from trainables.data.sources import load_sources
from trainables.errors import InvalidInput
from trainables.evaluation import lexical
from trainables.evaluation.lexical import Bm25, bm25
from trainables.model.encoder import Encoder
from trainables.prepare import negatives as room
from trainables.prepare.negatives import ensure_negatives, miner_name
from trainables.spec import DataSpec, EncoderSpec


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def mined(collection: Collection, data: DataSpec, cache: Cache, **given: Encoder) -> Negatives:
    negatives = ensure_negatives(collection, data, cache, **given)
    assert negatives is not None
    assert negatives.offsets[0] == 0
    assert negatives.offsets[-1] == len(negatives.rows) == len(negatives.scores)
    assert (np.diff(negatives.query_rows) > 0).all()
    return negatives


def by_query(negatives: Negatives) -> dict[int, list[int]]:
    parts = np.split(negatives.rows, negatives.offsets[1:-1])
    return dict(zip(negatives.query_rows.tolist(), [part.tolist() for part in parts], strict=True))


def write(folder: Path, passages: dict[str, str], queries: dict[str, str], qrels: str) -> str:
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", passages), ("queries", queries)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "qrels" / "train.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + qrels, encoding="utf-8"
    )
    return str(folder)


@pytest.mark.parametrize("margin", [None, 0.95, 0.6])
def test_bm25_negatives_are_its_ranking_without_positives(
    tiny_collection: str, cache: Cache, margin: float | None
) -> None:
    data = DataSpec(
        train=tiny_collection, hard_negatives=2, negative_depth=12, negative_margin=margin
    )
    collection = open_collection(tiny_collection, cache)
    sources = load_sources(collection, data, cache)
    found = by_query(mined(collection, data, cache))
    index = Bm25(collection.passages)
    texts = collection.passages.text(range(60))
    assert sorted(found) == sources.query_rows.tolist()
    for query, rows in found.items():
        scores = index.scores(collection.queries.text([query])[0])
        known = set(sources.known.passage_rows[sources.known.query_rows == query].tolist())
        assert len(known) == 3
        best = max(scores[row] for row in known)
        top = sorted((row for row in range(60) if scores[row] > 0), key=lambda r: (-scores[r], r))
        expected = [
            row
            for row in top[:12]
            if row not in known
            and all(overlap(shingles(texts[row]), shingles(texts[other])) < 0.7 for other in known)
            and (margin is None or scores[row] <= np.float32(margin) * best)
        ]
        assert rows == expected


def test_dense_negatives_are_the_encoders_ranking_without_positives(
    tiny_collection: str, tiny_backbone: str, cache: Cache
) -> None:
    data = DataSpec(train=tiny_collection, negatives="dense", group_size=4, negative_depth=15)
    collection = open_collection(tiny_collection, cache)
    encoder = Encoder.load(EncoderSpec(backbone=tiny_backbone), seed=0)
    negatives = mined(collection, data, cache, miner=encoder)
    sources = load_sources(collection, data, cache)
    from trainables.data.tokenize import tokenize_texts

    with torch.inference_mode():
        passages = encoder.encode(
            tokenize_texts(collection.passages.text(range(60)), tiny_backbone, "", 128), "passage"
        )
        queries = encoder.encode(
            tokenize_texts(collection.queries.text(range(30)), tiny_backbone, "", 32), "query"
        )
        scores = (queries @ passages.T).numpy()
    margin = np.float32(0.95)
    for query, rows in by_query(negatives).items():
        known = sources.known.passage_rows[sources.known.query_rows == query].tolist()
        best = max(scores[query, known])
        limit = best - (1 - margin) * abs(best)
        top = np.lexsort((np.arange(60), -scores[query]))[:15].tolist()
        allowed = [row for row in top if row not in known and scores[query, row] <= limit + 1e-6]
        assert [row for row in allowed if row in rows] == rows
        assert all(scores[query, row] > limit - 1e-6 for row in set(allowed) - set(rows))
    taken = np.concatenate([scores[q, rows] for q, rows in by_query(negatives).items()])
    np.testing.assert_allclose(negatives.scores, taken, atol=1e-5)


def test_known_positives_of_any_source_are_never_mined(tiny_collection: str, cache: Cache) -> None:
    data = DataSpec(train=f"{tiny_collection}>=2", hard_negatives=1, negative_margin=None)
    collection = open_collection(tiny_collection, cache)
    negatives = mined(collection, data, cache)
    owner = np.repeat(negatives.query_rows, np.diff(negatives.offsets))
    known = load_sources(collection, data, cache).known
    assert not set(zip(owner.tolist(), negatives.rows.tolist(), strict=True)) & set(
        zip(known.query_rows.tolist(), known.passage_rows.tolist(), strict=True)
    )
    graded_low = collection.judgements("train").by_query()["q3"]
    assert graded_low == {"p6": 2, "p7": 1}
    assert len(negatives.rows) > 50


def test_a_passage_that_says_the_same_as_a_positive_is_never_mined(
    tmp_path: Path, cache: Cache
) -> None:
    text = "the sum of all the values along one axis of an array is returned as a scalar"
    passages = {
        "a": text,
        "b": text.upper() + "!",
        "c": f"{text} here",
        "d": "the sum of something else",
        "e": "unlike",
    }
    folder = write(tmp_path / "same", passages, {"q": "sum of values", "d": "sum"}, "q\ta\t1\n")
    data = DataSpec(train=folder, hard_negatives=1, negative_margin=None)
    collection = open_collection(folder, cache)
    negatives = mined(collection, data, cache)
    assert collection.passages.ids(negatives.rows) == ["d"]


def test_with_many_texts_equal_words_still_count(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "COMPARED_TEXTS", 2)
    passages = {
        "a": "Sum, of values",
        "b": "sum of  values!",
        "c": "sum of",
        "d": "sum of values x",
    }
    folder = write(tmp_path / "many", passages, {"q": "sum of values"}, "q\ta\t1\n")
    data = DataSpec(train=folder, hard_negatives=1, negative_margin=None)
    collection = open_collection(folder, cache)
    assert sorted(collection.passages.ids(mined(collection, data, cache).rows)) == ["c", "d"]


def test_a_query_does_not_mine_itself_and_may_have_no_positive(
    tmp_path: Path, cache: Cache
) -> None:
    passages = {"q": "sum of values", "a": "sum", "r": "mean of a row"}
    folder = write(
        tmp_path / "self", passages, {"q": "sum of values", "r": "sum"}, "q\ta\t1\nr\tr\t0\n"
    )
    data = DataSpec(train=folder, hard_negatives=1)
    collection = open_collection(folder, cache)
    found = by_query(mined(collection, data, cache))
    names = {
        collection.queries.ids([query])[0]: collection.passages.ids(rows)
        for query, rows in found.items()
    }
    assert "q" not in names["q"]
    assert names["r"] == ["a", "q"]


def test_nothing_is_mined_when_nothing_reads_it(tiny_collection: str, cache: Cache) -> None:
    collection = open_collection(tiny_collection, cache)
    assert ensure_negatives(collection, DataSpec(train=tiny_collection), cache) is None
    assert not (cache.root / "negatives").exists()


def test_mining_is_done_once_per_content(
    tiny_collection: str, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = room.lexical_pool
    monkeypatch.setattr(room, "lexical_pool", lambda *given: calls.append(1) or real(*given))
    collection = open_collection(tiny_collection, cache)
    few = DataSpec(train=tiny_collection, hard_negatives=1)
    many = DataSpec(train=tiny_collection, hard_negatives=7)
    deep = DataSpec(train=tiny_collection, hard_negatives=1, negative_depth=3)
    for data in (few, many, few, deep, deep):
        mined(collection, data, cache)
    assert len(calls) == 2


def test_mining_searches_the_kept_index(
    tiny_collection: str, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index that the baseline left is mapped: none is built, and none lies in memory."""
    collection = open_collection(tiny_collection, cache)
    data = DataSpec(train=tiny_collection, hard_negatives=2)
    fresh = mined(collection, data, Cache(cache.root / "other"))
    bm25([parse_ref(f"{tiny_collection}/dev")], cache)
    monkeypatch.setattr(lexical, "_indexed", lambda *_: pytest.fail("it builds an index"))
    kept = mined(collection, data, cache)
    np.testing.assert_array_equal(kept.rows, fresh.rows)
    np.testing.assert_array_equal(kept.scores, fresh.scores)


def test_a_missing_source_is_told(tiny_collection: str, cache: Cache) -> None:
    data = DataSpec(train=tiny_collection, machine_labels="nobody", hard_negatives=1)
    with pytest.raises(InvalidInput, match="nobody"):
        ensure_negatives(open_collection(tiny_collection, cache), data, cache)


def test_a_dense_miner_has_a_name_of_its_own(tiny_backbone: str) -> None:
    dense = DataSpec(train="x", negatives="dense", hard_negatives=1)
    encoder = Encoder.load(EncoderSpec(backbone=tiny_backbone), seed=0)
    names = {
        miner_name(DataSpec(train="x")),
        miner_name(dense),
        miner_name(dense, encoder),
    }
    assert len(names) == 3
    assert miner_name(DataSpec(train="x")) == ""


def tevatron(folder: Path) -> str:
    """Two queries with supplied negatives, some of which answer the query."""
    text = "the sum of all the values along one axis of an array is returned as a scalar"

    def passage(number: int, words: str) -> dict[str, str]:
        return {"docid": f"p{number}", "title": "", "text": words}

    other = [passage(10 + i, f"nothing to do with it, part {i}") for i in range(4)]
    records = [
        {
            "query_id": "1",
            "query": "sum of values",
            "positive_passages": [passage(1, text), passage(2, "sums")],
            "negative_passages": [
                other[2],
                passage(3, text.upper() + "!"),
                passage(2, "sums"),
                other[0],
                other[1],
            ],
        },
        {
            "query_id": "2",
            "query": "mean of values",
            "positive_passages": [passage(4, "means")],
            "negative_passages": [],
        },
    ]
    folder.mkdir()
    lines = [json.dumps(record) for record in records]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize(("depth", "expected"), [(100, [12, 10, 11]), (3, [12, 10])])
def test_supplied_negatives_keep_their_order_and_lose_what_answers(
    tmp_path: Path, cache: Cache, depth: int, expected: list[int]
) -> None:
    folder = tevatron(tmp_path / "set")
    data = DataSpec(train=folder, negatives="supplied", hard_negatives=2, negative_depth=depth)
    collection = open_collection(folder, cache)
    negatives = mined(collection, data, cache)
    one, two = by_query(negatives).values()
    assert collection.passages.ids(one) == [f"p{number}" for number in expected]
    assert two == []
    assert (np.diff(negatives.scores) < 0).all()
    assert miner_name(data) == ""


def test_supplied_negatives_need_no_margin_and_may_stand_in_a_folder(
    tiny_collection: str, tmp_path: Path, cache: Cache
) -> None:
    folder = Path(shutil.copytree(tiny_collection, tmp_path / "own"))
    data = DataSpec(train=str(folder), negatives="supplied", hard_negatives=1)
    with pytest.raises(InvalidInput, match="brings no negatives"):
        ensure_negatives(open_collection(str(folder), cache), data, cache)
    lines = ["query-id\tcorpus-id\tscore", "q1\tp9\t0", "q1\tp2\t0", "q1\tp30\t0", "q20\tp1\t0"]
    (folder / "labels" / "negatives.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    collection = open_collection(str(folder), cache)
    found = by_query(mined(collection, data, cache))
    assert len(found) == 18
    assert {q: rows for q, rows in found.items() if rows} == {1: [9, 30]}
    strict = data.model_copy(update={"negative_margin": 0.1})
    assert by_query(mined(collection, strict, cache)) == found
    assert len(list((cache.root / "negatives").glob("[0-9a-f]*"))) == 1
