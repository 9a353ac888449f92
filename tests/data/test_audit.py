"""The audit: counts, overlaps, agreement between sources, and what it says of bad files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trainables.data.agreement import agreement, cohen_kappa
from trainables.data.audit import inspect
from trainables.data.cache import Cache
from trainables.data.collections import Judgements, Ref, write_judgements
from trainables.data.sources import LABELS_FILE, LABELS_KIND, Pairs, annotation_key
from trainables.errors import InvalidInput

Write = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, write_folder: Write) -> Path:
    return write_folder(
        tmp_path / "set",
        {"p1": "One two three.", "p2": "four five", "p3": "six", "p4": "six", "p5": ""},
        {"q1": "What is one?", "q2": "what is ONE", "q3": "three", "q4": "four words are here"},
        {
            "train": [("q1", "p1", 2), ("q1", "p2", 0), ("q3", "p3", 1), ("q9", "p1", 1)],
            "test": [("q2", "p1", 1), ("q4", "p4", 1), ("q4", "p2", 0), ("q1", "p2", 1)],
        },
        {"weak": [("q1", "p1", 1), ("q1", "p2", 3), ("q4", "p4", 0), ("q4", "p5", 1)]},
    )


def test_counts_lengths_and_histograms(folder: Path, cache: Cache) -> None:
    audit = inspect(str(folder), cache)
    assert audit.usable and (audit.passages, audit.queries) == (5, 4)
    train, test = audit.splits
    assert (train.name, train.queries_judged, train.judgements, train.dangling) == (
        "train",
        2,
        4,
        1,
    )
    assert train.positives_per_query == 1.0 and train.most_positives == 1
    assert train.histogram["1"] == 2 and sum(train.histogram.values()) == 2
    assert train.grades == {0: 1, 1: 1, 2: 1}
    assert test.queries_without_positive == 0
    words = audit.passage_words
    assert words is not None and (words.longest, words.empty, words.duplicates) == (3, 1, 1)
    kinds = {fault.kind for fault in audit.problems}
    assert kinds == {"dangling-query", "duplicate-text", "empty-text", "conflicting-judgement"}


def test_overlap_of_train_and_test(folder: Path, cache: Cache, write_folder: Write) -> None:
    other = write_folder(
        folder.parent / "other",
        {"x1": "one, TWO: three", "x2": "four five", "x3": "nothing"},
        {"y1": "What is one?", "y2": "new"},
        {"test": [("y1", "x1", 1), ("y2", "x3", 1)]},
    )
    audit = inspect(str(folder), cache, against=[Ref(str(other), "test")])
    own, foreign = audit.overlaps
    assert (own.train, own.test) == ("set/train", "set/test")
    assert (own.queries, own.queries_normalised) == (1, 1)
    assert (own.passages, own.test_queries, own.corpus) == (2, 2, 5)
    assert (foreign.train, foreign.test) == ("set/train", "other/test")
    assert (foreign.queries, foreign.queries_normalised, foreign.test_queries) == (1, 1, 1)
    assert (foreign.passages, foreign.passages_normalised, foreign.corpus) == (0, 1, 1)
    assert (foreign.test_queries_exact, foreign.test_queries_of) == (1, 2)
    assert (foreign.test_passages, foreign.test_passages_exact, foreign.test_passages_of) == (
        1,
        0,
        2,
    )


def test_agreement_and_conflicts(folder: Path, cache: Cache) -> None:
    audit = inspect(str(folder), cache)
    (found,) = audit.agreements
    assert (found.source, found.pairs, found.only_source, found.only_reference) == (
        "weak",
        3,
        1,
        4 - 1,
    )
    assert found.precision == 0.5 and found.recall == 0.5
    assert found.strict_precision == pytest.approx(1 / 3) and found.strict_recall == 0.5
    first = audit.conflicts[0]
    assert (first.query_id, first.passage_id) == ("q1", "p2")
    assert (first.human_grade, first.machine_grade) == (0, 3)
    assert (first.query, first.passage) == ("What is one?", "four five")
    assert len(audit.conflicts) == 2


def test_kappa_agrees_with_its_definition() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 3, 500), rng.integers(0, 3, 500)
    right[:250] = left[:250]
    table = np.histogram2d(left, right, bins=3)[0] / 500
    expected = float(table.sum(1) @ table.sum(0))
    kappa = (float(np.trace(table)) - expected) / (1 - expected)
    assert cohen_kappa(left, right) == pytest.approx(kappa)
    assert cohen_kappa(left, left) == pytest.approx(1.0)
    assert cohen_kappa(left[:0], right[:0]) is None
    assert cohen_kappa(np.zeros(5), np.zeros(5)) is None


def test_agreement_with_positives_alone_is_strict() -> None:
    def pairs(*rows: tuple[int, int, int]) -> Pairs:
        columns = np.array(rows, dtype=np.int64).reshape(-1, 3).T
        return Pairs(columns[0], columns[1], columns[2].astype(np.int16))

    human = pairs((0, 0, 1), (1, 1, 1), (2, 2, 1))
    machine = pairs((0, 0, 1), (0, 5, 1), (1, 1, 0), (1, 6, 1), (9, 9, 1))
    found = agreement("m", machine, human, 1, 1)
    assert found.precision == 1.0 and found.recall == 0.5
    assert found.strict_precision == pytest.approx(1 / 3)
    assert found.strict_recall == 0.5
    assert agreement("m", pairs(), human, 1, 1).precision is None


def test_annotated_sources_are_audited_too(folder: Path, cache: Cache) -> None:
    mark = inspect(str(folder), cache).fingerprint
    made = Judgements(["q1"], ["p1"], np.array([2], dtype=np.int16))
    cache.folder(
        LABELS_KIND,
        annotation_key(mark, "model"),
        lambda place: write_judgements(place / LABELS_FILE, made),
    )
    audit = inspect(str(folder), cache, annotated=["model>=2"])
    assert [(s.name, s.min_grade, s.positives) for s in audit.sources][1] == ("model", 2, 1)
    assert [a.source for a in audit.agreements] == ["weak", "model"]
    with pytest.raises(InvalidInput, match="is no label source"):
        inspect(str(folder), cache, annotated=["nobody"])


def test_the_json_has_the_promised_shape(folder: Path, cache: Cache) -> None:
    content = json.loads(json.dumps(inspect(str(folder), cache).to_json(), allow_nan=False))
    assert (content["passages"], content["queries"], content["usable"]) == (5, 4, True)
    assert set(content["splits"]) == {"train", "test"}
    promised = {"queries_judged", "judgements", "positives_per_query"}
    assert promised <= set(content["splits"]["train"])
    assert {"kind", "file", "line", "detail"} <= set(content["problems"][0])


def test_an_unusable_collection_is_audited_by_its_faults(folder: Path, cache: Cache) -> None:
    (folder / "queries.jsonl").write_text("broken\n")
    audit = inspect(str(folder), cache)
    assert not audit.usable and audit.passages == 0
    assert ("json", "queries.jsonl", 1) in {(f.kind, f.file, f.line) for f in audit.problems}
    json.dumps(audit.to_json(), allow_nan=False)
    with pytest.raises(InvalidInput):
        inspect(str(folder.parent / "nowhere"), cache)


def test_the_conflicts_of_which_a_source_is_surest_come_first(
    tmp_path: Path, cache: Cache, write_folder: Write
) -> None:
    folder = write_folder(
        tmp_path / "set",
        {f"p{i}": f"passage {i}" for i in range(8)},
        {"q1": "one", "q2": "two"},
        {"train": [("q1", f"p{i}", i % 2) for i in range(4)] + [("q2", "p7", 0)]},
        {
            "one": [
                ("q1", "p2", 1),
                ("q1", "p1", 1),
                ("q1", "p3", 0),
                ("q1", "p0", 1),
                ("q1", "p5", 0),
            ],
            "two": [("q2", "p7", 3), ("q1", "p1", 1)],
        },
    )
    every = inspect(str(folder), cache)
    assert [(c.source, c.passage_id) for c in every.conflicts] == [
        ("one", "p2"),
        ("one", "p3"),
        ("one", "p0"),
        ("two", "p7"),
    ]
    few = inspect(str(folder), cache, conflicts_of="one", limit=2)
    assert [c.passage_id for c in few.conflicts] == ["p2", "p3"]
    assert [a.source for a in few.agreements] == ["one", "two"]
    with pytest.raises(InvalidInput, match="label source"):
        inspect(str(folder), cache, conflicts_of="three")


def test_a_source_that_is_not_there_is_said_of_its_option(folder: Path, cache: Cache) -> None:
    def refused(source: str) -> str:
        with pytest.raises(InvalidInput) as caught:
            inspect(str(folder), cache, annotated=(), conflicts_of=source)
        (problem,) = caught.value.problems
        return str(problem)

    (folder / "labels").mkdir(exist_ok=True)
    for file in (folder / "labels").iterdir():
        file.unlink()
    said = refused("x")
    assert said.startswith("--conflicts: is no label source of")
    assert "which has none; `ablate annotate` makes one" in said
