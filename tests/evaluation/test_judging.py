"""Judges side by side: a plain loop over dictionaries, and a kept run that is read back."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from trainables.data.cache import Cache
from trainables.data.collections import Collection, JudgeRef, Ref, open_collection, parse_refs
from trainables.errors import InvalidInput
from trainables.evaluation.evaluate import bm25
from trainables.evaluation.judging import (
    from_folder,
    holds,
    side_by_side,
    union,
    write_side_by_side,
)
from trainables.evaluation.results import Scores

LABELS = ("tiny/test", "tiny/test:machine:weak", "tiny/test:union:weak")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def ref(tiny_collection: str) -> Ref:
    (found,) = parse_refs(f"{tiny_collection}/test:weak")
    return found


@pytest.fixture
def collection(tiny_collection: str, cache: Cache) -> Collection:
    return open_collection(tiny_collection, cache)


def ndcg(ranking: list[str], grades: dict[str, int], k: int) -> float:
    def gain(found: list[int]) -> float:
        return sum(grade / math.log2(rank + 2) for rank, grade in enumerate(found[:k]))

    return gain([grades.get(name, 0) for name in ranking]) / gain(sorted(grades.values())[::-1])


def test_every_judge_scores_the_same_run(ref: Ref, collection: Collection, cache: Cache) -> None:
    (human,) = bm25([ref], cache)
    both = {scores.ref: scores for scores in (human, *side_by_side(human, ref, collection, cache))}
    assert tuple(both) == LABELS == tuple(ref.marks(""))
    by_human, by_machine = collection.judgements("test").by_query(), collection.labels("weak")
    tables = {
        LABELS[0]: by_human,
        LABELS[1]: by_machine.by_query(),
        LABELS[2]: {
            query: {
                name: int(grades.get(name, 0) > 0 or machine.get(name, 0) > 0)
                for name in grades.keys() | machine.keys()
            }
            for query, grades in by_human.items()
            for machine in [by_machine.by_query()[query]]
        },
    }
    assert len(human.query_ids) == 7
    for label, table in tables.items():
        scores = both[label]
        assert scores.query_ids == human.query_ids
        for line, query in enumerate(scores.query_ids):
            ranking, grades = human.run.passage_ids(line), table[query]
            condensed = [name for name in ranking if name in grades]
            unjudged = sum(name not in grades for name in ranking[:10]) / len(ranking[:10])
            expected = (ndcg(ranking, grades, 10), ndcg(condensed, grades, 10), unjudged)
            names = ("ndcg_at_10", "condensed_ndcg_at_10", "unjudged_at_10")
            values = [scores.per_query[name][line] for name in names]
            np.testing.assert_allclose(values, expected, atol=1e-12)
    assert both[LABELS[2]].metrics.keys().isdisjoint(human.metrics)


def test_thresholds_are_each_sources_own(collection: Collection) -> None:
    human, machine = collection.judgements("test"), collection.labels("weak")
    strict = union(human, 2, machine, 2).by_query()
    wanted = {q for q, p in [(q, p) for q, g in strict.items() for p, v in g.items() if v]}
    assert wanted == set(human.query_ids)
    for query, grades in human.by_query().items():
        positives = {name for name, grade in strict[query].items() if grade}
        assert positives == {name for name, grade in grades.items() if grade >= 2}
        assert strict[query].keys() >= grades.keys()


def test_a_kept_run_is_judged_as_the_fresh_one(ref: Ref, cache: Cache, tmp_path: Path) -> None:
    (fresh,) = bm25([ref], cache)
    metrics = write_side_by_side(fresh, ref, cache, tmp_path / "fresh")
    assert {key.rpartition("/")[0] for key in metrics} == set(LABELS)
    kept = from_folder(tmp_path / "fresh" / fresh.slug, ref, cache)
    assert kept.metrics == fresh.metrics and kept.query_ids == fresh.query_ids
    np.testing.assert_array_equal(kept.run.rows, fresh.run.rows)
    assert write_side_by_side(kept, ref, cache, tmp_path / "again") == metrics
    folders = sorted(path.name for path in (tmp_path / "again").iterdir())
    assert folders == ["tiny__test", "tiny__test:machine:weak", "tiny__test:union:weak"]
    for name in folders:
        files = sorted(path.name for path in (tmp_path / "again" / name).iterdir())
        own = ["run.trec"] if name == fresh.slug else []
        assert files == ["metrics.json", "per_query.parquet", *own]
        for file in files:
            other = tmp_path / "fresh" / name / file
            assert (tmp_path / "again" / name / file).read_bytes() == other.read_bytes()


def test_a_threshold_is_judged_from_the_run_of_another(
    tiny_collection: str, cache: Cache, tmp_path: Path
) -> None:
    """The run of a lower threshold holds every query of a higher one, not the other way round."""
    folder = tmp_path / "graded"
    shutil.copytree(tiny_collection, folder)
    qrels = folder / "qrels" / "test.tsv"
    qrels.write_text(qrels.read_text().replace("q29\tp58\t2", "q29\tp58\t1"), encoding="utf-8")
    low, high = (parse_refs(f"{folder}/test{grade}")[0] for grade in ("", ">=2"))
    runs = dict(zip((low, high), bm25([low, high], cache), strict=True))
    for ref, scores in runs.items():
        write_side_by_side(scores, ref, cache, tmp_path)
    assert 0 < len(runs[high].query_ids) < len(runs[low].query_ids)
    folders = {ref: tmp_path / scores.slug for ref, scores in runs.items()}
    assert len(set(folders.values())) == 2
    assert all(holds(folders[ref], ref, cache) for ref in runs)
    assert holds(folders[low], high, cache) and not holds(folders[high], low, cache)
    again = from_folder(folders[low], high, cache)
    assert again.metrics == runs[high].metrics
    assert again.metrics.keys().isdisjoint(runs[low].metrics)
    (folders[low] / "run.trec").unlink()
    assert not holds(folders[low], high, cache)


def test_ids_that_look_encoded_come_back(tmp_path: Path, cache: Cache) -> None:
    folder = tmp_path / "encoded"
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", ["a", "c%20d", "e"]), ("queries", ["q1", "q2"])):
        lines = [json.dumps({"_id": row, "text": "sum of it"}) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    table = "query-id\tcorpus-id\tscore\nq1\ta\t1\nq2\tc%20d\t1\nlost\te\t1\n"
    (folder / "qrels" / "test.tsv").write_text(table, encoding="utf-8")
    (ref,) = parse_refs(f"{folder}/test")
    (fresh,) = bm25([ref], cache)
    write_side_by_side(fresh, ref, cache, tmp_path / "out")
    kept = from_folder(tmp_path / "out" / fresh.slug, ref, cache)
    assert kept.query_ids == fresh.query_ids == ("q1", "q2", "lost")
    np.testing.assert_array_equal(kept.run.rows, fresh.run.rows)
    assert kept.metrics == fresh.metrics


def test_a_run_of_another_collection_is_refused(ref: Ref, cache: Cache, tmp_path: Path) -> None:
    (fresh,) = bm25([ref], cache)
    write_side_by_side(fresh, ref, cache, tmp_path)
    path = tmp_path / fresh.slug / "run.trec"
    path.write_text(path.read_text().replace(" p1 ", " other "), encoding="utf-8")
    with pytest.raises(ValueError, match="the collection lacks"):
        from_folder(path.parent, ref, cache)


def test_references_with_judges_are_written_and_read(tiny_collection: str) -> None:
    text = f"{tiny_collection}/test>=2:weak:other>=3"
    (ref,) = parse_refs(text)
    assert str(ref) == text and ref.label == "tiny/test:grade-2"
    assert ref.judges == (JudgeRef("weak"), JudgeRef("other", 3))
    assert list(ref.marks("print")) == [
        "tiny/test:grade-2",
        "tiny/test:grade-2:machine:weak",
        "tiny/test:grade-2:union:weak",
        "tiny/test:grade-2:machine:other:grade-3",
        "tiny/test:grade-2:union:other:grade-3",
    ]
    assert set(ref.marks("print").values()) == {"print"}
    parts = parse_refs("beir/cqadupstack/test:weak")
    assert len({part.collection for part in parts}) == 12
    assert {part.judges for part in parts} == {(JudgeRef("weak"),)}
    for wrong in (f"{tiny_collection}/test:", f"{tiny_collection}/test:weak:weak>=2"):
        with pytest.raises(InvalidInput, match="each judge once"):
            parse_refs(wrong)


def test_an_unknown_judge_is_named(tiny_collection: str, cache: Cache) -> None:
    (ref,) = parse_refs(f"{tiny_collection}/test:waek")
    scores: list[Scores] = bm25([ref], cache)
    with pytest.raises(InvalidInput, match="did you mean 'weak'"):
        side_by_side(scores[0], ref, open_collection(tiny_collection, cache), cache)
