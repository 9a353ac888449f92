"""The simulation and replay of `tests.bench.stopping`: rates that are kept, and what is saved."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ablate.plan.planner import Plan, PlannedTrial, make_plan
from ablate.plan.stops import Look, Sequential
from ablate.plan.study import load_study
from ablate.plan.written import write_study
from ablate.run.execution import choose
from ablate.run.ledger import Ledger, Record
from ablate.run.tasks import looks_place, watched_key
from tests.bench.calibration import World
from tests.bench.stopping import Course, Runner, false_rate, race, replay, simulated
from tests.plan.test_stops import board_of
from trainables.looks import Looks

STUDIES = 150
LIMIT = 0.05 + 2.33 * (0.05 * 0.95 / STUDIES) ** 0.5
RULE = Sequential("cells", error=0.05)


@pytest.mark.parametrize(("queries", "shape"), [(50, "mrr"), (300, "normal")])
def test_equal_cells_are_stopped_no_more_often_than_stated(queries: int, shape: str) -> None:
    assert false_rate(Course(World(3, queries, shape=shape)), RULE, STUDIES) <= LIMIT


def test_a_test_that_forgets_the_seeds_stops_equal_cells() -> None:
    blind = replace(RULE, seed_sd=0.0)
    assert false_rate(Course(World(3, 2000)), blind, 30) > 0.3, "or the rate would show nothing"


def test_the_rate_is_not_kept_by_never_stopping() -> None:
    course, rng = Course(World(3, 300), gap=0.08), np.random.default_rng(0)
    stopped = [name for _ in range(20) for name in simulated(course, RULE, rng).stopped]
    assert len(stopped) >= 0.9 * 20 * 3 and {name[0] for name in stopped} == {"4"}


def test_trials_wait_for_a_slot_and_a_stopped_one_makes_room() -> None:
    def runner(name: str, score: float) -> Runner:
        looks = {step: Look(score, np.array([score, score + 1e-3])) for step in (10, 20)}
        return Runner(name, 20, looks)

    runners = [runner("0", 0.9), runner("1", 0.1), runner("2", 0.1)]
    found = race(board_of(replace(RULE, seed_sd=0.0), 3), runners, slots=2)
    assert {name: step for name, (step, _) in found.stopped.items()} == {"1": 10, "2": 10}
    assert (found.done, found.planned) == (40, 60) and found.saved == pytest.approx(1 / 3)
    # One after the other, the first ones have nobody to lose to.
    found = race(board_of(replace(RULE, seed_sd=0.0), 3), runners[::-1], slots=1)
    assert not found.stopped and found.saved == 0


STUDY = """
question: What would a rule have done?
fixed:
  data.train: {collection}
  encoder.backbone: {backbone}
  loss.temperature: 0.1
  optim.batch_size: 6
  optim.steps: 8
compare: {{loss.name: [joint_lh, lse_pair]}}
tune: {{optim.lr: [1.0e-3, 2.0e-3, 3.0e-3, 4.0e-3]}}
repeat: {{seed: [0, 1]}}
select: {{maximize: {collection}/dev/ndcg_at_10}}
evaluate: [{collection}/test]
watch: {{split: {collection}/dev, every: 2}}
"""


@pytest.fixture
def plan(tmp_path: Path, tiny_collection: str, tiny_backbone: str) -> Plan:
    path = tmp_path / "replayed.yaml"
    path.write_text(
        STUDY.format(collection=tiny_collection, backbone=tiny_backbone), encoding="utf-8"
    )
    return make_plan(load_study(str(path)))


def write(ledger: Ledger, plan: Plan, trial: PlannedTrial, with_looks: bool) -> None:
    """A trial that ran to its end; the lower the draw, the better."""
    key, scores = str(watched_key(plan)), {2 * i: 0.1 * (i - trial.draw) + 0.3 for i in range(1, 5)}
    output = ledger.store.scratch()
    output.mkdir(parents=True)
    rows = [json.dumps({"step": step, key: score}) for step, score in scores.items()]
    (output / "history.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    ledger.publish(trial.trial_id, output)
    for step, score in scores.items() if with_looks else ():
        place = looks_place(plan, ledger, trial.trial_id)
        Looks(str(place)).write(step, np.full(5, score))
    record = Record(trial.trial_id, trial.flat, {}, state="finished", metrics={key: scores[8]})
    ledger.write(record)


@pytest.mark.parametrize("with_looks", [True, False])
def test_a_rule_is_replayed_over_a_finished_sweep(
    plan: Plan, tmp_path: Path, with_looks: bool
) -> None:
    ledger = Ledger(tmp_path / "runs")
    for trial in plan.choose():
        write(ledger, plan, trial, with_looks)
    choices = choose(plan, ledger)
    for trial in plan.repeat(choices):
        write(ledger, plan, trial, with_looks)
    folder = ledger.study("replayed")
    folder.write("plan.json", plan.to_json())
    folder.write("study.yaml", write_study(plan.study))
    folder.write("choices.json", choices)
    rule = {"rule": "asha", "among": "draws", "grace": 2, "reduction": 2}
    said = list(replay(tmp_path / "runs", "replayed", rule, slots=8))
    # Draw 0 of each cell is the best and the first at the rung; the others lose to it there.
    assert said[0] == "choosing: 8 of 8 trials have looks, 6 stop"
    assert said[1] == "training: 2 of 2 trials have looks, 0 stop"
    assert sum("seed 0: asha: " in line and "at step 2 of 8" in line for line in said) == 6
    assert said[-3:] == [
        "steps: 44 of 80 done, 45.0% saved",
        "best cell 01 joint_lh: survives",
        "choices: 2 of 2 cells keep their draw",
    ]
