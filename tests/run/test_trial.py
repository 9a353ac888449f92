"""A trial against the ledger, in this process: what it lacks is done, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ablate.run.ledger import Ledger, Record
from ablate.run.tasks import watched
from ablate.run.trial import Job, Resources, TakenOver, execute, is_done
from trainables import worker
from trainables.data.collections import fingerprint, parse_refs
from trainables.model.encoder import Encoder
from trainables.spec import TrialSpec


@pytest.fixture
def job(tiny_backbone: str, tiny_collection: str) -> Job:
    flat: dict[str, Any] = {
        "data.train": tiny_collection, "encoder.backbone": tiny_backbone,
        "encoder.query_length": 8, "encoder.passage_length": 16, "loss.name": "joint_lh",
        "loss.temperature": 0.1, "optim.lr": 1e-3, "optim.batch_size": 6, "optim.steps": 4,
    }  # fmt: skip
    spec = TrialSpec.from_flat(flat).to_flat()
    return Job("a" * 16, "01 joint_lh", 0, spec, spec, {"data.train": "f"}, ())


def test_a_finished_trial_is_judged_anew_from_its_kept_run(
    job: Job, tiny_collection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = Resources(str(tmp_path / "runs"), str(tmp_path / "cache"))
    ledger, quiet = Ledger(resources.runs), lambda metrics: None
    job = dataclasses.replace(job, refs=(f"{tiny_collection}/dev",))
    first = execute(job, resources, quiet)
    assert first.state == "finished", first
    run = tmp_path / "runs" / "trials" / job.trial_id / "evaluations" / "tiny__dev" / "run.trec"
    before = run.read_bytes()
    monkeypatch.setattr(Encoder, "encode", lambda *_: pytest.fail("it encodes"))
    judged = dataclasses.replace(job, refs=(f"{tiny_collection}/dev:weak",))
    (ref,) = parse_refs(judged.refs[0])
    wanted = ref.marks(fingerprint(ref.collection))
    assert not is_done(first, wanted)
    second = execute(judged, resources, quiet)
    assert second.state == "finished" and is_done(second, wanted)
    assert run.read_bytes() == before
    assert second.metrics.items() >= first.metrics.items()
    ids, values = ledger.per_query(job.trial_id, "tiny/dev:union:weak")
    human_ids, _ = ledger.per_query(job.trial_id, "tiny/dev")
    assert ids == human_ids
    for name in ("ndcg_at_10", "condensed_ndcg_at_10", "bpref", "unjudged_at_10"):
        assert second.metrics[f"tiny/dev:union:weak/{name}"] == values[name].mean()
        assert f"tiny/dev:machine:weak/{name}" in second.metrics


def test_a_changed_threshold_is_judged_from_the_kept_run(
    job: Job, tiny_collection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two studies that share a trial and differ in the threshold both have their scores."""
    resources = Resources(str(tmp_path / "runs"), str(tmp_path / "cache"))
    jobs = [
        dataclasses.replace(job, refs=(f"{tiny_collection}/dev{grade}",)) for grade in ("", ">=2")
    ]
    wanted = [
        ref.marks(fingerprint(ref.collection)) for one in jobs for ref in parse_refs(one.refs[0])
    ]
    first = execute(jobs[0], resources, lambda metrics: None)
    assert is_done(first, wanted[0]) and not is_done(first, wanted[1])
    monkeypatch.setattr(Encoder, "encode", lambda *_: pytest.fail("it encodes"))
    second = execute(jobs[1], resources, lambda metrics: None)
    assert is_done(second, wanted[0]) and is_done(second, wanted[1])
    assert second.metrics.items() >= first.metrics.items()
    keys = ("tiny/dev/recall_at_1000", "tiny/dev:grade-2/mrr_at_10")
    assert all(key in second.metrics for key in keys)
    folder = tmp_path / "runs" / "trials" / job.trial_id / "evaluations"
    assert sorted(path.name for path in folder.iterdir()) == ["tiny__dev", "tiny__dev:grade-2"]


def test_scores_of_an_older_form_are_found_and_stay_apart(
    job: Job, tiny_collection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the marks of judges alone told the threshold, and folders had no place for it."""
    resources = Resources(str(tmp_path / "runs"), str(tmp_path / "cache"))
    ledger, home = Ledger(resources.runs), tmp_path / "runs" / "trials" / job.trial_id
    strict = dataclasses.replace(job, refs=(f"{tiny_collection}/dev>=2:weak>=1",))
    (ref,) = parse_refs(strict.refs[0])
    print_ = fingerprint(ref.collection)
    today = execute(strict, resources, lambda metrics: None)
    older = json.loads((home / "record.json").read_text())
    older["metrics"] = {k.replace(":grade-2", ""): v for k, v in today.metrics.items()}
    older["evaluated"] = {"tiny/dev": print_} | {
        f"tiny/dev:{kind}:weak": f"{print_} 2 weak" for kind in ("machine", "union")
    }
    (home / "record.json").write_text(json.dumps(older), encoding="utf-8")
    for folder in (home / "evaluations").iterdir():
        folder.rename(folder.with_name(folder.name.replace(":grade-2", "")))

    read = ledger.record(job.trial_id)
    assert read == today and is_done(read, ref.marks(print_))
    before = {label: ledger.per_query(job.trial_id, label) for label in today.evaluated}
    assert len(before) == 3
    monkeypatch.setattr(Encoder, "encode", lambda *_: pytest.fail("it encodes"))
    loose = dataclasses.replace(job, refs=(f"{tiny_collection}/dev",))
    both = execute(loose, resources, lambda metrics: None)
    assert both.state == "finished" and both.metrics.items() >= today.metrics.items()
    assert set(both.evaluated) == {*today.evaluated, "tiny/dev"}
    assert both.seconds["train"] == today.seconds["train"]
    assert both.seconds["evaluate"] > today.seconds["evaluate"]
    for label, (ids, columns) in before.items():
        again = ledger.per_query(job.trial_id, label)
        assert again[0] == ids
        assert all((again[1][name] == column).all() for name, column in columns.items())
    assert both.metrics["tiny/dev/map"] != both.metrics["tiny/dev:grade-2/map"]


def test_a_trial_that_is_watched_tells_every_score(
    job: Job, tiny_collection: str, tmp_path: Path
) -> None:
    from ablate.plan.study import read_study

    study = read_study(
        f"question: Q\nfixed: {{data.train: {tiny_collection}, encoder.backbone: "
        "packaged/all-MiniLM-L6-v2, loss.temperature: 0.1, optim.lr: 0.001, optim.batch_size: 6, "
        "optim.steps: 4}\ncompare: {loss.name: [joint_lh]}\nrepeat: {seed: [0]}\n"
        f"evaluate: [{tiny_collection}/dev]\n"
        f"watch: {{split: {tiny_collection}/dev, every: 1, passages: 30}}\n",
        "watched",
    )
    heard: list[dict[str, float]] = []
    resources = Resources(str(tmp_path / "runs"), str(tmp_path / "cache"))
    job = dataclasses.replace(job, refs=(f"{tiny_collection}/dev",), watch=watched(study))
    record = execute(job, resources, lambda metrics: heard.append(dict(metrics)))
    key = "tiny/dev:30-passages/ndcg_at_10"
    assert [row["step"] for row in heard if key in row] == [1, 2, 3, 4]
    history = Ledger(resources.runs).history(job.trial_id)
    assert set(record.seconds) == {"prepare", "train", "watch", "evaluate"}
    assert record.seconds["watch"] > 0 and record.seconds["train"] > 0
    assert record.metrics[key] == history[-1][key] >= record.metrics["tiny/dev/ndcg_at_10"]


CLAIM = ".leases/claims/a@host.1.x"


def test_a_trial_that_was_taken_over_while_it_waited_leaves_all_as_it_is(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = Resources(str(tmp_path / "runs"), str(tmp_path / "cache"))
    ledger = Ledger(resources.runs)
    ledger.write(Record(job.trial_id, {}, {}, state="finished", metrics={"m": 1.0}))
    before = ledger.store.read(f"trials/{job.trial_id}/record.json")
    monkeypatch.setattr(worker, "run_here", lambda *_, **__: pytest.fail("it trains"))
    with pytest.raises(TakenOver):
        execute(dataclasses.replace(job, claim=CLAIM), resources, lambda metrics: None)
    assert ledger.store.read(f"trials/{job.trial_id}/record.json") == before is not None
    assert list(ledger.store.children(f"trials/{job.trial_id}")) == ["record.json"]


def test_a_trial_that_is_taken_over_keeps_no_training_state_any_more(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stand in place of the state of the one who has it now."""
    resources = Resources(str(tmp_path / "runs"), str(tmp_path / "cache"))
    ledger = Ledger(resources.runs)
    ledger.store.write(CLAIM, b"")

    def train(task: Any, reporter: worker.HereReporter, threads: int) -> Any:
        for step, name in enumerate(("own", "late")):
            (tmp_path / name).mkdir()
            (tmp_path / name / name).write_bytes(b"x")
            reporter.save(tmp_path / name, step)
            ledger.store.delete(CLAIM)
        pytest.fail("it goes on")

    monkeypatch.setattr(worker, "run_here", train)
    with pytest.raises(TakenOver):
        execute(dataclasses.replace(job, claim=CLAIM), resources, lambda metrics: None)
    assert list(ledger.store.children(f"trials/{job.trial_id}/resume")) == ["own"]
    record = ledger.record(job.trial_id)
    assert record is not None and record.state == "running"
