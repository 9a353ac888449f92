"""Fixtures of the planning room: studies as text, on a collection that is nothing but names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ablate.plan.planner import Plan, make_plan
from ablate.plan.study import Study, read_study
from trainables.errors import InvalidInput

STUDY = """\
question: Which loss ranks best?
fixed:
  data.train: tiny
  encoder.backbone: packaged/all-MiniLM-L6-v2
  optim.batch_size: 8
  optim.steps: 20
compare:
  loss.name: [joint_lh, sum_marg_lh]
  loss.temperature: [0.02, 0.1]
tune:
  optim.lr: {log_uniform: [1.0e-6, 1.0e-4]}
repeat: {seed: [0, 1, 2]}
budget: {draws_per_cell: 4}
select: {maximize: tiny/dev/mrr_at_10}
evaluate: [tiny/test]
"""
"""A complete study with 4 cells of 4 draws and 3 seeds."""
BUNDLE = """
  loss:
    - {loss.name: joint_lh, loss.params.normalize: false}
    - {loss.name: lse_pair, loss.params.positives: min}
"""
"""Two losses, each with a parameter of its own."""

Read = Callable[..., Study]


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working folder with a collection `tiny`: three splits, a label source `weak`, three texts."""
    root = tmp_path / "tiny"
    for part in ("qrels", "labels"):
        (root / part).mkdir(parents=True)
    text = '{"_id": "a", "title": "", "text": "words"}\n'
    (root / "corpus.jsonl").write_text(text * 3, encoding="utf-8")
    (root / "queries.jsonl").write_text(text, encoding="utf-8")
    for file in ("qrels/train", "qrels/dev", "qrels/test", "labels/weak"):
        judged = "query-id\tcorpus-id\tscore\na\ta\t9\nb\ta\t9\n"
        (root / f"{file}.tsv").write_text(judged, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def read(tiny: Path) -> Read:
    """Reads STUDY, or a given text, with replacements (old, new) and `--set` values."""

    def reader(
        *replaced: tuple[str, str], text: str = STUDY, sets: Mapping[str, str] | None = None
    ) -> Study:
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        return read_study(text, "study", "study.yaml", sets)

    return reader


def plan_of(study: Study) -> Plan:
    """The plan of a study with made-up fingerprints."""
    return make_plan(study, lambda name: f"content of {name}")


def problems_of(read: Read, *replaced: tuple[str, str], **options: object) -> list[str]:
    """What is wrong with STUDY, with replacements and options as `read` takes them."""
    with pytest.raises(InvalidInput) as caught:
        read(*replaced, **options)
    return [str(problem) for problem in caught.value.problems]
