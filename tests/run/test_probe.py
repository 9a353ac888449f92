"""A short trial, timed in a process of its own: what it says, what it keeps, what it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from ablate.plan.cost import Size, steps_of
from ablate.plan.estimate import DRIFT, estimate
from ablate.plan.planner import Plan, make_plan
from ablate.plan.probes import Probe, Seconds, passes_of, total
from ablate.plan.study import read_study
from ablate.plan.timing import EarlierTrial, Timing
from ablate.run.ledger import Ledger
from ablate.run.probe import ProbeFailed, kept, measure
from trainables.data.collections import Ref
from trainables.probe import Line, Took

STUDY = """\
question: How long does it take?
fixed: {{data.train: {collection}, encoder.backbone: {backbone}, encoder.query_length: 8,
  encoder.passage_length: 16, loss.temperature: 0.1, optim.lr: 0.001, optim.batch_size: 6,
  optim.steps: 50}}
compare: {{loss.name: [joint_lh, rand1_lh]}}
repeat: {{seed: [0, 1]}}
select: {{maximize: {collection}/dev/ndcg_at_10}}
evaluate: [{collection}/test]
watch: {{split: {collection}/dev, every: 20, passages: 40}}
resources: {{max_concurrent_trials: 2}}
"""
SIZES: Mapping[str, Size] = {}


def plan_of(collection: str, backbone: str, **changes: str) -> Plan:
    text = STUDY.format(collection=collection, backbone=backbone)
    sets = {key.replace("__", "."): value for key, value in changes.items()}
    return make_plan(read_study(text, "study", "study.yaml", sets), lambda name: "content")


def a_probe(plan: Plan) -> Probe:
    measured = {name: Seconds(4.0, 0.3) for name in passes_of(plan.study.references)}
    return Probe(
        flat=next(plan.trials()).flat,
        start=Seconds(1.0),
        step=Seconds(0.1, 0.01),
        evaluations=measured,
        watch={"tiny/dev:40-passages": Seconds(2.0, 0.1)},
        cpus=1.0,
        gpus=0.0,
        machine="1 CPU of here",
    )


@pytest.fixture
def plan(tiny_collection: str, tiny_backbone: str) -> Plan:
    return plan_of(tiny_collection, tiny_backbone)


def test_a_trial_is_the_sum_of_its_parts(plan: Plan) -> None:
    """1 s to start, 50 steps of .1 s, one pass of 4 s, and 3 scores of 2 s."""
    probe, flat = a_probe(plan), next(plan.trials()).flat
    refs, watch = plan.study.references, plan.study.watch
    found = probe.of_trial(flat, refs, watch, SIZES.get)
    assert found.mean == pytest.approx(1 + 5 + 4 + 6)
    assert found.error == pytest.approx((0.5**2 + 0.3**2 + 0.3**2) ** 0.5)
    assert probe.of_trial(flat, refs, watch, SIZES.get, workers=2).mean == pytest.approx(8.5)
    assert probe.of_trial({**flat, "optim.steps": 60}, refs, None, SIZES.get).mean == 11.0
    assert probe.covers(refs, watch) and not probe.covers((*refs, Ref("x", "y")), None)
    assert total([Seconds(1, 3), Seconds(2, 4)]) == Seconds(3, 5)


def test_a_plan_takes_its_time_from_probes_of_its_shapes(plan: Plan) -> None:
    probe = a_probe(plan)
    lacking = Timing(plan, (), [probe], SIZES.get, None).lacking()
    assert [flat["loss.name"] for flat in lacking] == ["rand1_lh"]
    other = replace(probe, flat=lacking[0])
    guess = estimate(plan, probes=[probe, other])
    assert guess.trial_seconds == pytest.approx(16.0)
    assert guess.basis == "from a probe on 1 CPU of here"
    assert guess.error is not None and 2 * DRIFT < guess.error < 3 * DRIFT
    assert f"(± {guess.error:.0%})" in str(guess)
    larger = replace(probe, cpus=4.0)
    assert len(Timing(plan, (), [larger], SIZES.get, None).lacking()) == 2
    whole = [EarlierTrial(trial.flat, {"train": 9.0, "watch": 1.0}) for trial in plan.trials()]
    assert Timing(plan, whole, [], SIZES.get, None).lacking() == []
    assert estimate(plan, whole, probes=[probe, other]).trial_seconds == 10.0


def test_a_line_through_two_sizes() -> None:
    low, high = Took(3.0, 0.1), Took(5.0, 0.2)
    line = Line(100, 200, low, high)
    assert line.at(100) == low and line.at(200) == high
    assert line.at(0).mean == 1.0
    assert line.at(1100).mean == pytest.approx(23.0)
    assert line.at(1100).error == pytest.approx((0.9**2 + 2.0**2) ** 0.5)
    assert Line(100, 100, low, high).at(100) == low


def test_a_probe_is_timed_kept_and_leaves_nothing_else(plan: Plan, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs")
    told: list[tuple[int, int]] = []
    flat = next(plan.trials()).flat
    measure(plan, [flat], ledger, lambda done, of: told.append((done, of)))
    assert told == [(0, 1), (1, 1)]
    (probe,) = kept(ledger)
    assert probe.flat == dict(flat) and (probe.cpus, probe.gpus) == (1.0, 0.0)
    assert 0 < probe.step.mean < 60 and set(probe.evaluations) == {"tiny/dev tiny/test"}
    assert set(probe.watch) == {"tiny/dev:40-passages"}
    assert all(part.mean > 0 for part in (*probe.evaluations.values(), *probe.watch.values()))
    assert steps_of(flat, SIZES.get) == 50
    left = {path.name for path in (tmp_path / "runs").iterdir()}
    assert left <= {"probes", "cache", ".tmp"} and not list((tmp_path / "runs/.tmp").glob("*"))
    measure(plan, [flat], ledger, lambda done, of: None)
    assert len(kept(ledger)) == 1


def test_a_probe_that_cannot_be_says_why(plan: Plan, tmp_path: Path) -> None:
    ledger, flat = Ledger(tmp_path / "runs"), next(plan.trials()).flat
    wrong = {**flat, "data.machine_labels": "nowhere", "data.human_fraction": 0.5}
    with pytest.raises(ProbeFailed, match="nowhere"):
        measure(plan, [wrong], ledger, lambda done, of: None)
    assert kept(ledger) == [] and not list((tmp_path / "runs/.tmp").glob("*"))


def test_the_command_probes_and_the_next_plan_uses_it(
    tiny_collection: str, tiny_backbone: str, tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(
        STUDY.format(collection=tiny_collection, backbone=tiny_backbone), encoding="utf-8"
    )

    def ablate(*words: str) -> str:
        command = [sys.executable, "-m", "ablate.cli", "plan", "study.yaml", *words]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "from a probe on 1 CPU of " in ablate("--probe")
    again = json.loads(ablate("--json"))["estimate"]
    assert again["basis"].startswith("from a probe on 1 CPU of ") and again["error"] > 0
