"""What is prepared beside the trials: the summary that the report reads, and is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ablate.run.preparing import KIND, Preparation, preparations, prepare
from ablate.run.trial import Job
from trainables.data.cache import Cache


@pytest.fixture
def wanted(tiny_collection: str, tiny_backbone: str) -> Preparation:
    spec = {
        "data.train": tiny_collection,
        "encoder.backbone": tiny_backbone,
        "loss.name": "lse_pair",
        "loss.temperature": 0.1,
        "optim.lr": 1e-3,
        "optim.batch_size": 4,
        "optim.steps": 2,
    }
    refs = (f"{tiny_collection}/dev", f"{tiny_collection}/test:weak>=2", f"{tiny_collection}/test")
    job = Job("a" * 16, "01 lse_pair", 0, spec, spec, {}, refs)
    return Preparation(job, {tiny_collection: "0123"})


def test_the_summary_audits_what_is_evaluated_on(wanted: Preparation, tmp_path: Path) -> None:
    summary = json.loads(json.dumps(prepare(wanted, str(tmp_path))))
    overlaps = summary["audit"]["overlaps"]
    assert [(o["train"], o["test"]) for o in overlaps] == [
        ("tiny/train", "tiny/dev"),
        ("tiny/train", "tiny/test"),
    ]
    assert [o["test_queries_of"] for o in overlaps] == [5, 7]
    assert {f["ref"]: f["judgements"] for f in summary["audit"]["flaws"]} == {
        "tiny/train": 36,
        "tiny/dev": 10,
        "tiny/test": 14,
    }
    assert summary["lines"]


def test_what_was_prepared_is_known_until_something_of_it_differs(
    wanted: Preparation, tmp_path: Path
) -> None:
    cache = str(tmp_path)
    assert wanted.summary(cache) is None
    made = json.loads(json.dumps(prepare(wanted, cache)))
    assert wanted.summary(cache) == made
    job = wanted.job
    same = replace(job, trial_id="b" * 16, spec={**job.spec, "loss.name": "joint_lh"})
    assert replace(wanted, job=same).summary(cache) == made
    for other in (
        replace(job, spec={**job.spec, "data.human_fraction": 0.5}),
        replace(job, spec={**job.spec, "encoder.query_length": 9}),
        replace(job, refs=job.refs[:1]),
        replace(job, fingerprints={"data.machine_labels": "89ab"}),
        replace(job, watch={"split": job.refs[0], "every": 2, "passages": 40, "metrics": []}),
    ):
        assert replace(wanted, job=other).summary(cache) is None
    changed = dict.fromkeys(wanted.contents, "4567")
    assert replace(wanted, contents=changed).summary(cache) is None


@pytest.mark.parametrize("damage", ["cut", "scrambled"])
def test_a_damaged_summary_counts_as_none_and_hinders_nobody(
    wanted: Preparation, tmp_path: Path, damage: str
) -> None:
    made = prepare(wanted, str(tmp_path))
    (file,) = Cache(tmp_path).finished(KIND)[0].glob("summary.json")
    size = file.stat().st_size
    file.write_bytes(b"?" * (size // 2 if damage == "cut" else size))
    assert wanted.summary(str(tmp_path)) is None
    assert prepare(wanted, str(tmp_path)) == made


def test_jobs_that_share_data_and_texts_are_prepared_once(wanted: Preparation) -> None:
    job = wanted.job
    jobs = [
        job,
        replace(job, seed=1),
        replace(job, spec={**job.spec, "loss.temperature": 0.2}),
        replace(job, spec={**job.spec, "encoder.passage_length": 9}),
    ]
    found = preparations(jobs, wanted.contents)
    assert [each.job for each in found] == [jobs[0], jobs[3]]
