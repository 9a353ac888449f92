"""Trials that a study's rule stops: through Ray, in the ledger, in what people read, and again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ablate.learn.export import export_trials
from ablate.learn.report import write_report
from ablate.learn.results import collect
from ablate.learn.tracking.tracked import tracked_runs
from ablate.plan.planner import Plan, PlannedTrial, make_plan
from ablate.plan.study import load_study
from ablate.run.execution import choose
from ablate.run.ledger import Ledger, Record
from ablate.run.stops import Judge, Stopping, judge
from ablate.run.tasks import looks_place, watched_key
from ablate.run.trial import is_settled
from ablate.run.upkeep import put_back
from trainables.looks import Looks

RUNNER = Path(__file__).with_name("stopping_in_process.py")
STUDY = """
question: Which trials are stopped?
fixed:
  data.train: {collection}
  encoder.backbone: {backbone}
  encoder.query_length: 8
  encoder.passage_length: 16
  encoder.dropout: 0.0
  loss.name: joint_lh
  loss.temperature: 0.1
  optim.batch_size: 6
  optim.steps: 8
compare: {{optim.lr: [1.0e-3, 100.0]}}
repeat: {{seed: [0, 1]}}
select: {{maximize: {collection}/dev/ndcg_at_10}}
evaluate: [{collection}/test]
watch: {{split: {collection}/dev, every: 2}}
stop: {{rule: asha, among: cells, grace: 2, reduction: 2}}
resources: {{max_concurrent_trials: 1}}
"""


def written(folder: Path, text: str, collection: str, backbone: str) -> Path:
    path = folder / "stopping.yaml"
    path.write_text(text.format(collection=collection, backbone=backbone), encoding="utf-8")
    return path


def finish(study: Path, runs: Path) -> list[list[str]]:
    command = [sys.executable, str(RUNNER), str(study), str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def study(
    tmp_path_factory: pytest.TempPathFactory, tiny_collection: str, tiny_backbone: str
) -> Path:
    return written(tmp_path_factory.mktemp("study"), STUDY, tiny_collection, tiny_backbone)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, study: Path) -> Path:
    """A run folder in which the cell of the huge learning rate was stopped, by `ablate run`.

    One trial at a time: a bad one that looks before its rival has nobody to be worse than.
    """
    runs = tmp_path_factory.mktemp("swept") / "runs"
    command = [sys.executable, "-m", "ablate.cli", "run", str(study), "--runs", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 trials were stopped early and count in no mean" in done.stdout
    return runs


def plan_of(study: Path) -> Plan:
    return make_plan(load_study(str(study)))


def by_state(runs: Path) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in Ledger(runs).records():
        found.setdefault(record.state, []).append(record)
    return found


def test_a_bad_cell_is_stopped_and_kept_as_rows_without_a_result(study: Path, swept: Path) -> None:
    states, plan, ledger = by_state(swept), plan_of(study), Ledger(swept)
    assert {state: len(records) for state, records in states.items()} == {
        "finished": 2, "stopped": 2,
    }  # fmt: skip
    for record in states["stopped"]:
        assert record.spec["optim.lr"] == 100.0 and not record.evaluated
        # A trial in its Tune actor waits for the word on its look.
        assert record.metrics["stop/step"] == 2.0 and record.attempts == 1
        score = record.metrics["stop/tiny/dev/ndcg_at_10"]
        assert record.reason is not None
        assert record.reason.startswith(f"asha: {score:.4f} at step 2 of 8, not among the best of")
        assert all(key.startswith("stop/") for key in record.metrics)
        assert [row["step"] for row in ledger.history(record.trial_id)] == [1, 2]
        looks = Looks(str(looks_place(plan, ledger, record.trial_id)))
        assert looks.steps() == [2] and looks.told(2) == record.reason and looks.told(1) is None
        scores = looks.read(2)
        assert scores is not None and scores.shape == (5,) and scores.mean() == pytest.approx(score)
    for record in states["finished"]:
        looks = Looks(str(looks_place(plan, ledger, record.trial_id)))
        rows = {row["step"]: row.get(watched_key(plan) or "") for row in
                ledger.history(record.trial_id)}  # fmt: skip
        assert looks.steps() == [2, 4, 6, 8]
        for step in looks.steps():
            scores = looks.read(step)
            assert scores is not None and scores.mean() == pytest.approx(rows[step])


def test_what_people_read_says_how_many_were_stopped_and_why(
    study: Path, swept: Path, tmp_path: Path
) -> None:
    plan, ledger = plan_of(study), Ledger(swept)
    results = collect(plan, ledger)
    bad = next(cell for cell in results.cells if cell.name.endswith("100"))
    assert (bad.stopped, bad.failed, bad.lost) == (2, 0, 2) and not bad.metrics
    _, markdown = write_report(results, tmp_path)
    text = markdown.read_text(encoding="utf-8")
    for said in ("2 stopped early", "**2 trials stopped early.**", "no rank, not last rank"):
        assert said in text
    assert export_trials(results, tmp_path / "all.csv") == 4
    rows = (tmp_path / "all.csv").read_text(encoding="utf-8").splitlines()
    assert sum(",stopped," in row for row in rows) == 2
    runs = {run.key: run for run in tracked_runs(results, {})}
    ended = [run for run in runs.values() if run.status == "KILLED"]
    killed = [run for run in ended if run.tags["level"] == "trial"]
    assert [run.name for run in ended if run not in killed] == [bad.name]
    assert len(killed) == 2 and all("asha" in run.tags["reason"] for run in killed)
    cells = [run for run in runs.values() if run.tags["level"] == "cell"]
    assert sorted(run.metrics["n/stopped"] for run in cells) == [0.0, 2.0]


def test_a_stopped_trial_stays_so_until_it_is_asked_for(
    study: Path, swept: Path, tmp_path: Path
) -> None:
    before = by_state(swept)
    assert finish(study, swept) == [["done", "0", "0", "0", "2"]]
    assert by_state(swept) == before
    stopped = before["stopped"][0]
    assert is_settled(stopped, {}, stops=True) and not is_settled(stopped, {}, stops=False)
    # Put back, it goes to its end whatever the rule says; the other one stays stopped.
    put_back(Ledger(swept), [stopped])
    lines = finish(study, swept)
    assert lines[-1] == ["done", "1", "0", "0", "1"] and ["free"] in lines
    again = Ledger(swept).record(stopped.trial_id)
    assert again is not None and again.state == "finished" and again.attempts == 2
    assert not any(key.startswith("stop/") for key in again.metrics)
    text = write_report(collect(plan_of(study), Ledger(swept)), tmp_path)[1].read_text("utf-8")
    assert "over the seeds that were not stopped" in text


CELLS = """
question: Who is judged by what?
fixed:
  data.train: {collection}
  encoder.backbone: {backbone}
  loss.temperature: 0.1
  optim.batch_size: 6
  optim.steps: 8
compare: {{loss.name: [joint_lh, lse_pair, sum_marg_lh, single_lh]}}
tune: {{optim.lr: [1.0e-3, 1.0e-2]}}
repeat: {{seed: [0, 1]}}
select: {{maximize: {collection}/dev/ndcg_at_10, equal_within: 0.01}}
evaluate: [{collection}/test]
watch: {{split: {collection}/dev, every: 2}}
stop: {{rule: asha, among: cells, grace: 2, reduction: 2}}
"""


class Silent:
    """A watcher that says nothing."""

    def started(self, trial_id: str) -> None: ...

    def lost(self, trial_id: str) -> None: ...

    def progress(self, trial_id: str, metrics: Mapping[str, float]) -> None: ...

    def ended(self, record: Record) -> None: ...


@pytest.fixture
def planned(tmp_path: Path, tiny_collection: str, tiny_backbone: str) -> Plan:
    return plan_of(written(tmp_path, CELLS, tiny_collection, tiny_backbone))


def at_draw(plan: Plan, draw: int) -> list[PlannedTrial]:
    return [trial for trial in plan.choose() if trial.draw == draw]


def look(plan: Plan, ledger: Ledger, trial: PlannedTrial, step: int, score: float) -> None:
    """What a trial leaves at a look, before it reports it."""
    Looks(str(looks_place(plan, ledger, trial.trial_id))).write(step, np.full(5, score))


def report(plan: Plan, step: int, score: float) -> dict[str, float]:
    return {"step": float(step), "steps": 8.0, str(watched_key(plan)): score}


def fresh(plan: Plan, ledger: Ledger) -> Judge:
    found = judge(plan, ledger, None)
    assert found is not None
    return found


def test_a_sweep_that_starts_again_judges_by_the_looks_of_before(
    planned: Plan, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "runs")
    trials, scores = at_draw(planned, 0), (0.5, 0.7, 0.6, 0.4)
    kept, forgetful = fresh(planned, ledger), []
    said = []
    for trial, score in zip(trials, scores, strict=True):
        look(planned, ledger, trial, 2, score)
        said.append(kept.reason(trial.trial_id, report(planned, 2, score)))
        # A driver for each look, which knows the others from the run folder alone.
        judge_anew = fresh(planned, ledger)
        forgetful.append(judge_anew.reason(trial.trial_id, report(planned, 2, score)))
    assert said == forgetful
    assert [reason is None for reason in said] == [True, True, False, False]
    # The other draw's trials are no rivals: the first one there goes on.
    other = at_draw(planned, 1)[0]
    look(planned, ledger, other, 2, 0.1)
    assert fresh(planned, ledger).reason(other.trial_id, report(planned, 2, 0.1)) is None


def test_trials_of_before_without_looks_are_known_by_their_history(
    planned: Plan, tmp_path: Path
) -> None:
    ledger, (old, new, *_) = Ledger(tmp_path / "runs"), at_draw(planned, 0)
    rows = [{"step": 1, "train/loss": 2.0}, {"step": 2, str(watched_key(planned)): 0.8}]
    output = ledger.store.scratch()
    output.mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (output / "history.jsonl").write_text(text, encoding="utf-8")
    ledger.publish(old.trial_id, output)
    look(planned, ledger, new, 2, 0.3)
    reason = fresh(planned, ledger).reason(new.trial_id, report(planned, 2, 0.3))
    assert reason == "asha: 0.3000 at step 2 of 8, not among the best of 2 there (0.8000)"


def test_a_stop_is_told_once_and_a_spared_trial_is_not(planned: Plan, tmp_path: Path) -> None:
    ledger, (good, bad, *_) = Ledger(tmp_path / "runs"), at_draw(planned, 0)
    stopping = Stopping(Silent(), fresh(planned, ledger))
    looks = Looks(str(looks_place(planned, ledger, bad.trial_id)))
    for trial, score in ((good, 0.8), (bad, 0.3)):
        look(planned, ledger, trial, 2, score)
        stopping.progress(trial.trial_id, {"step": 1.0, "steps": 8.0})
        stopping.progress(trial.trial_id, report(planned, 2, score))
    assert looks.told(1) is None and str(looks.told(4)).startswith("asha")
    looks.spare()
    assert looks.told(4) is None
    stopping.progress(bad.trial_id, report(planned, 2, 0.3))
    assert looks.told(4) is None and looks.steps() == [2]


def test_looks_that_another_driver_added_count_once_its_trial_ends(
    planned: Plan, tmp_path: Path
) -> None:
    ledger, (one, other, *_) = Ledger(tmp_path / "runs"), at_draw(planned, 0)
    stopping = Stopping(Silent(), fresh(planned, ledger))
    look(planned, ledger, one, 2, 0.3)
    assert stopping.judge.reason(one.trial_id, report(planned, 2, 0.3)) is None
    look(planned, ledger, other, 2, 0.8)
    stopping.ended(Record(other.trial_id, {}, {}, state="finished"))
    assert stopping.judge.reason(one.trial_id, report(planned, 2, 0.3)) is not None


def test_a_stopped_draw_is_not_chosen(planned: Plan, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs")
    select = planned.study.select
    assert select is not None
    for trial in planned.choose():
        record = Record(trial.trial_id, trial.flat, {})
        if trial.draw == 0:
            metrics = {f"stop/{select.key}": 0.9, "stop/step": 2.0}
            ledger.write(replace(record, state="stopped", metrics=metrics))
        else:
            ledger.write(replace(record, state="finished", metrics={select.key: 0.5}))
    assert choose(planned, ledger) == {cell.name: 1 for cell in planned.cells}


@pytest.mark.cluster
def test_worker_groups_that_are_stopped_at_full_occupancy_leave_nothing(
    tmp_path: Path, tiny_collection: str, tiny_backbone: str
) -> None:
    text = STUDY.replace("[1.0e-3, 100.0]", "[1.0e-3, 100.0, 200.0]").replace("[0, 1]", "[0]")
    text = text.replace("max_concurrent_trials: 1", "workers: 2").replace("steps: 8", "steps: 60")
    study = written(tmp_path, text, tiny_collection, tiny_backbone)
    lines = finish(study, tmp_path / "runs")
    assert lines[-1] == ["done", "1", "0", "2", "0"] and ["free"] in lines
    for record in by_state(tmp_path / "runs")["stopped"]:
        assert 2 <= record.metrics["stop/step"] < 60
    assert list((tmp_path / "runs" / ".train").iterdir()) == []
