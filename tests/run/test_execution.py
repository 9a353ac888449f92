"""A whole study through Ray on the tiny collection: undisturbed, killed, run again, failing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ablate.learn.results import collect
from ablate.plan.planner import Plan, make_plan
from ablate.plan.study import load_study
from ablate.run.execution import best_cell, choose
from ablate.run.lease import CLAIMS, DRIVERS
from ablate.run.ledger import Ledger
from ablate.run.store import TEMPORARY

RUNNER = Path(__file__).with_name("study_in_process.py")
STUDY = """
question: Does the machinery hold?
fixed:
  data.train: {collection}
  data.machine_labels: weak
  data.human_fraction: 0.5
  encoder.backbone: {backbone}
  encoder.query_length: 8
  encoder.passage_length: 16
  encoder.dropout: 0.0
  loss.temperature: 0.1
  optim.batch_size: 6
  optim.steps: 6
compare: {{loss.name: [joint_lh, lse_pair]}}
tune: {{optim.lr: [1.0e-3, {second_lr}]}}
repeat: {{seed: [0, 1]}}
select: {{maximize: {collection}/dev/ndcg_at_10}}
evaluate: [{collection}/test:weak]
watch: {{split: {collection}/dev, every: 2, passages: 40}}
resources: {{max_concurrent_trials: 2}}
"""


def written(folder: Path, collection: str, backbone: str, second_lr: str = "3.0e-3") -> Path:
    path = folder / "machinery.yaml"
    path.write_text(
        STUDY.format(collection=collection, backbone=backbone, second_lr=second_lr),
        encoding="utf-8",
    )
    return path


def start(study: Path, runs: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(RUNNER), str(study), str(runs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(study: Path, runs: Path) -> list[list[str]]:
    process = start(study, runs)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return [line.split() for line in out.splitlines()]


@pytest.fixture(scope="module")
def study(
    tmp_path_factory: pytest.TempPathFactory, tiny_collection: str, tiny_backbone: str
) -> Path:
    return written(tmp_path_factory.mktemp("study"), tiny_collection, tiny_backbone)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, study: Path) -> Path:
    runs = tmp_path_factory.mktemp("undisturbed") / "runs"
    lines = finish(study, runs)
    # Four to choose from; the two chosen are scored on test; each is trained under a second seed.
    assert lines[-1] == ["done", "8", "0", "0"], lines
    return runs


def plan_of(study: Path) -> Plan:
    return make_plan(load_study(str(study)))


def findings(runs: Path | str) -> dict[str, object]:
    """What must not depend on how a study was run: no times, no attempts, no hosts."""
    records = {}
    for record in Ledger(runs).records():
        assert record.state == "finished", record
        records[record.trial_id] = (dict(record.spec), dict(record.metrics), dict(record.evaluated))
    assert records
    return {"records": records, "choices": Ledger(runs).study("machinery").choices()}


def test_a_study_chooses_on_dev_and_opens_test_for_the_chosen_alone(
    study: Path, undisturbed: Path
) -> None:
    plan, ledger = plan_of(study), Ledger(undisturbed)
    folder = ledger.study("machinery")
    choices = folder.choices()
    assert choices == choose(plan, ledger) and set(choices) == {cell.name for cell in plan.cells}
    chosen = {trial.trial_id for trial in plan.repeat(choices)}
    everyone = {record.trial_id for record in ledger.records()}
    assert len(everyone) == 6 and chosen < everyone
    for record in ledger.records():
        opened = any(key.startswith("tiny/test/") for key in record.metrics)
        assert opened == (record.trial_id in chosen)
        assert opened == ("tiny/test:union:weak/ndcg_at_10" in record.metrics)
        assert "tiny/dev/ndcg_at_10" in record.metrics
        part = "tiny/dev:40-passages/ndcg_at_10"
        assert [row["step"] for row in ledger.history(record.trial_id) if part in row] == [2, 4, 6]
        assert record.metrics[part] >= record.metrics["tiny/dev/ndcg_at_10"]
    (opening,) = folder.openings()
    assert opening["references"] == ["tiny/test"] and set(opening["trials"]) == chosen
    assert set(folder.baselines()) == {"bm25", "untrained"}
    labels = {"tiny/dev", "tiny/test", "tiny/test:machine:weak", "tiny/test:union:weak"}
    assert set(folder.baselines()["bm25"]) == labels
    assert "tiny/test:machine:weak/bpref" in collect(plan, ledger).metric_keys
    (summary,) = folder.read("data.json")
    assert [o["test"] for o in summary["audit"]["overlaps"]] == ["tiny/dev", "tiny/test"]
    assert best_cell(plan, ledger, choices) in choices


def test_running_again_trains_nothing_and_starts_no_cluster(study: Path, undisturbed: Path) -> None:
    before = findings(undisturbed)
    lines = finish(study, undisturbed)
    assert lines == [["done", "0", "0", "8"]]
    assert findings(undisturbed) == before


def test_a_killed_driver_is_resumed_without_repeating_what_was_finished(
    study: Path, undisturbed: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    process = start(study, runs)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("ended"):
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = {r.trial_id: r.attempts for r in Ledger(runs).records() if r.state == "finished"}
    assert finished
    lines = finish(study, runs)
    # What was prepared for the choice is still there; the test split comes to it.
    assert [words[1] for words in lines if words[0] == "working"].count("Preparing") == 1
    again = {words[1] for words in lines if words[0] == "started"}
    plan = plan_of(study)
    chosen = {trial.trial_id for trial in plan.repeat(Ledger(runs).study("machinery").choices())}
    assert not again & (set(finished) - chosen)
    assert findings(runs) == findings(undisturbed)
    assert list((runs / TEMPORARY).iterdir()) == []
    assert not (runs / ".tune").exists()


@pytest.mark.cluster
def test_two_drivers_on_one_run_folder_run_each_trial_once(
    study: Path, undisturbed: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    processes = [start(study, runs) for _ in range(2)]
    ends = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        ends.append(out.splitlines()[-1].split())
    assert sum(int(end[1]) for end in ends) == 8, ends
    assert findings(runs) == findings(undisturbed)
    chosen = Ledger(runs).study("machinery").openings()[0]["trials"]
    once = {r.trial_id: r.attempts for r in Ledger(runs).records()}
    # A chosen trial of the first seed comes back for its test scores.
    first = {t.trial_id for t in plan_of(study).choose()}
    assert once == {trial: 1 + (trial in chosen and trial in first) for trial in once}
    left = [p for place in (CLAIMS, DRIVERS, TEMPORARY) for p in (runs / place).iterdir()]
    assert left == []


def test_a_trial_that_fails_is_a_row_with_its_reason(
    tmp_path: Path, tiny_collection: str, tiny_backbone: str
) -> None:
    study = written(tmp_path, tiny_collection, tiny_backbone, second_lr="1.0e+30")
    text = study.read_text().replace("seed: [0, 1]", "seed: [0]")
    # Nothing to choose: both learning rates are compared, in one phase.
    text = text.replace("[joint_lh, lse_pair]}\ntune: {", "[joint_lh], ")
    text = text.replace("encoder.dropout: 0.0", "encoder.dropout: 0.0\n  optim.clip_norm: null")
    study.write_text(text.replace("encoder.query", "encoder.normalize: false\n  encoder.query", 1))
    lines = finish(study, tmp_path / "runs")
    states = {record.state for record in Ledger(tmp_path / "runs").records()}
    assert states == {"finished", "failed"}, lines
    (failed,) = (r for r in Ledger(tmp_path / "runs").records() if r.state == "failed")
    assert failed.reason is not None and "not finite at step" in failed.reason
    assert failed.log_tail and json.loads(failed.to_json())["attempts"] == 1
    # It would fail again, so that running the study again leaves it as it is.
    assert failed.own_fault
    assert finish(study, tmp_path / "runs")[-1] == ["done", "0", "0", "1"]
    assert Ledger(tmp_path / "runs").record(failed.trial_id) == failed
