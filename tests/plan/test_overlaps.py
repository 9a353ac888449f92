"""What a plan says of its data: shared texts, conflicts, dangling ids, and what it did not read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablate.plan import overlaps as room
from ablate.plan.overlaps import data_warnings
from ablate.plan.planner import Plan, make_plan
from ablate.plan.study import read_study
from tests.plan.conftest import STUDY
from trainables.data.cache import Cache

HEADER = "query-id\tcorpus-id\tscore\n"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "mine"))
    monkeypatch.chdir(tmp_path)
    return Cache(tmp_path / "mine")


def write(
    folder: Path, passages: list[str], queries: list[str], qrels: dict[str, list[str]]
) -> None:
    (folder / "qrels").mkdir(parents=True)
    for name, letter, texts in (("corpus", "p", passages), ("queries", "q", queries)):
        rows = [json.dumps({"_id": f"{letter}{i}", "text": text}) for i, text in enumerate(texts)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for split, rows in qrels.items():
        judged = "".join(row.replace(" ", "\t") + "\n" for row in rows)
        (folder / "qrels" / f"{split}.tsv").write_text(HEADER + judged, encoding="utf-8")


def planned(evaluate: str) -> Plan:
    text = STUDY.replace("evaluate: [tiny/test]", f"evaluate: [{evaluate}]")
    return make_plan(read_study(text, "study", "study.yaml"))


def found(plan: Plan, *caches: Cache) -> dict[str, str]:
    return {note.code: note.text for note in data_warnings(plan, caches)}


@pytest.fixture
def tiny(tmp_path: Path) -> None:
    write(
        tmp_path / "tiny",
        ["one", "Two.", "three", "four", "five"],
        ["What is it?", "where", "who", "what is it"],
        {
            "train": ["q0 p0 1", "q0 p3 0", "q1 p1 1"],
            "dev": ["q2 p2 1"],
            "test": ["q3 p4 1", "q9 p0 1"],
        },
    )
    write(tmp_path / "other", ["two", "six", "one"], ["where"], {"test": ["q0 p0 1", "q0 p2 1"]})


def test_what_is_shared_is_counted_by_split(tiny: None, own_cache: Cache) -> None:
    notes = found(planned("tiny/test, other/test"), own_cache)
    assert notes["shared-queries"].startswith(
        "Test queries are trained on: 1 of 1 (0 letter by letter) of tiny/test in tiny/train, "
        "1 of 1 of other/test in tiny/train."
    )
    assert notes["shared-positives"].startswith(
        "Positives of the test are positives of the training too, of any query: 2 of 2 (1 letter "
        "by letter) of other/test in tiny/train."
    )
    assert notes["dangling-ids"].startswith(
        "Judgements name texts that the collection lacks: 1 of 2 of tiny/test."
    )
    assert set(notes) == {"shared-queries", "shared-positives", "dangling-ids"}


def test_conflicts_within_a_file_and_between_splits(tmp_path: Path, own_cache: Cache) -> None:
    write(
        tmp_path / "tiny",
        ["one", "two", "three"],
        ["a", "b", "c"],
        {
            "train": ["q0 p0 1", "q0 p0 2", "q1 p1 1"],
            "dev": ["q2 p2 1"],
            "test": ["q1 p1 0", "q1 p2 1"],
        },
    )
    assert found(planned("tiny/test"), own_cache)["conflicting-labels"] == (
        "Pairs are judged relevant and not relevant: 1 between tiny/train and tiny/test, 1 within "
        "a file of tiny, where the first grade counts."
    )


def test_counts_are_made_once(
    tiny: None, own_cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainables.data import overlap

    plan = planned("tiny/test, other/test")
    first = found(plan, own_cache)
    monkeypatch.setattr(overlap._Texts, "of", lambda *given: pytest.fail("counted again"))
    assert found(plan, own_cache) == first


def test_what_is_large_and_unread_is_not_read_for_a_plan(
    tiny: None, tmp_path: Path, own_cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MOST_READ", 0)
    plan, runs = planned("tiny/test, other/test"), Cache(tmp_path / "runs")
    assert set(found(plan, runs, own_cache)) == {"data-unread"}
    assert "tiny, other" in found(plan, runs, own_cache)["data-unread"]
    assert own_cache.finished("collections") == []
    from trainables.data.collections import open_collection

    for name in ("tiny", "other"):
        open_collection(name, runs)
    assert set(found(plan, runs, own_cache)) >= {"shared-queries", "dangling-ids"}
    assert own_cache.finished("collections") == []
