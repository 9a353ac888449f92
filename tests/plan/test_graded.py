"""A threshold leaves fewer queries: the plan counts those that are scored, and needs one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.plan.cost import collection_size
from ablate.plan.graded import at_least, best_grades
from ablate.plan.power import detectable, smallest_effect
from tests.plan.conftest import Read, plan_of, problems_of

JUDGED = "a\tx\t1\na\ty\t2\nb\tx\t1\nc\tx\t0\nd\tx\t3\n"


@pytest.fixture(autouse=True)
def _graded(tiny: Path) -> None:
    collection_size.cache_clear()
    for split in ("train", "dev", "test"):
        file = tiny / "tiny" / "qrels" / f"{split}.tsv"
        file.write_text("query-id\tcorpus-id\tscore\n" + JUDGED)


def test_queries_are_counted_by_their_best_grade(tmp_path: Path) -> None:
    trec = "".join(f"{q} 0 {p} {g}\n" for q, p, g in map(str.split, JUDGED.splitlines()))
    forms = {"beir": JUDGED, "trec": trec}
    for name, text in forms.items():
        file = tmp_path / name
        file.write_text(text)
        grades = best_grades(file)
        assert [at_least(grades, least) for least in (1, 2, 3, 4)] == [3, 2, 1, 0]


@pytest.mark.parametrize(("written", "queries"), [("tiny/test", 3), ("tiny/test>=2", 2)])
def test_the_smallest_difference_is_of_the_queries_that_are_scored(
    read: Read, written: str, queries: int
) -> None:
    plan = plan_of(read(("evaluate: [tiny/test]", f'evaluate: ["{written}"]')))
    (found,) = detectable(plan, collection_size, {})
    assert found.queries == queries
    assert found.effect == smallest_effect(queries, 3, comparisons=6)


def test_a_threshold_that_leaves_no_query_is_a_mistake(read: Read) -> None:
    found = problems_of(
        read,
        ("evaluate: [tiny/test]", 'evaluate: ["tiny/test>=99"]'),
        ("maximize: tiny/dev/", "maximize: tiny/dev>=4/"),
        ("data.train: tiny", "data.train: tiny>=5"),
    )
    assert len(found) == 3
    for grade, near, line in ((99, "test", 15), (4, "dev", 14), (5, "train", 3)):
        assert any(
            f"study.yaml:{line}:" in said
            and f"graded {grade} or more; the best grade is 3" in said
            and f"did you mean 'tiny/{near}>=3'" in said
            for said in found
        ), (grade, found)
