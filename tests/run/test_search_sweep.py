"""An adaptive study through Ray on the tiny collection, twice; every command sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ablate.learn.report.methods import design, methods
from ablate.learn.report.threats import threats
from ablate.learn.results import collect
from ablate.plan.planner import make_plan
from ablate.plan.study import load_study
from ablate.run.cluster.fetch import fetch
from ablate.run.ledger import Ledger
from ablate.run.upkeep import known_plan, statuses

RUNNER = Path(__file__).with_name("study_in_process.py")
STUDY = """
question: Does the search hold?
fixed:
  data.train: {collection}
  encoder.backbone: {backbone}
  encoder.query_length: 8
  encoder.passage_length: 16
  loss.temperature: 0.1
  optim.batch_size: 6
  optim.steps: 4
compare: {{loss.name: [joint_lh, lse_pair]}}
tune: {{optim.lr: {{log_uniform: [1.0e-4, 1.0e-2]}}}}
repeat: {{seed: [0]}}
budget: {{draws_per_cell: 4, search: adaptive}}
select: {{maximize: {collection}/dev/ndcg_at_10}}
evaluate: [{collection}/test]
resources: {{max_concurrent_trials: 2}}
"""


def finish(study: Path, runs: Path) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, str(RUNNER), str(study), str(runs)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def ablate(*words: str) -> str:
    command = [sys.executable, "-m", "ablate.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def study(
    tmp_path_factory: pytest.TempPathFactory, tiny_collection: str, tiny_backbone: str
) -> Path:
    path = tmp_path_factory.mktemp("study") / "searched.yaml"
    text = STUDY.format(collection=tiny_collection, backbone=tiny_backbone)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_search_through_ray_is_complete_and_is_not_done_again(
    study: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    said = ablate("plan", str(study), "--runs", str(runs))
    assert "4 draws (the first 2 shared)" in said
    assert "8 trials, 4 of them chosen while running, 0 of them finished" in said
    lines = finish(study, runs)
    # Eight to choose from; the two chosen are scored on test.
    assert lines[-1] == ["done", "10", "0", "0"], lines
    assert ["phase", "choosing_on_dev", "8", "2"] in lines
    ledger = Ledger(runs)
    folder = ledger.study("searched")
    plan = make_plan(load_study(str(study))).resumed(folder.search)
    trials = list(plan.choose())
    assert plan.to_come == 0 and len(trials) == len({t.trial_id for t in trials}) == 8
    assert {record.trial_id for record in ledger.records()} == {t.trial_id for t in trials}
    first, second = (list(plan.settings(cell).values()) for cell in plan.cells)
    assert first[:2] == second[:2] and len(first) == len(second) == 4
    assert folder.read("plan.json")["to_come"] == 0
    assert len(folder.searched()) == 4

    before = {path: path.read_bytes() for path in (runs / "studies").rglob("searches/*")}
    assert len(before) == 2
    assert finish(study, runs) == [["done", "0", "0", "10"]]
    assert {path: path.read_bytes() for path in (runs / "studies").rglob("searches/*")} == before

    # Also before the plan is written again, at the end of the choice.
    part = folder.read("plan.json")
    folder.write("plan.json", {**part, "trials": part["trials"][:2]})
    assert fetch("searched", ledger, Ledger(tmp_path / "fetched")) >= 6
    folder.write("plan.json", part)

    states = [each.state for each in statuses(known_plan(ledger, "searched"), ledger)]
    assert states == ["finished"] * 8
    results = collect(make_plan(load_study(str(study))), ledger)
    assert len(results.trials) == 8 and results.chosen and results.shared_draws == 2
    rows = [str(row) for row in design(results).rows]
    assert any("adaptive: 4 draws per cell, of which the first 2 are shared" in row for row in rows)
    assert "The first 2 were the same for all" in methods(results)[1]
    assert any("**Adaptive draws.**" in words for words in threats(results))
    content = json.loads(ablate("plan", str(study), "--runs", str(runs), "--json"))
    assert (content["finished"], content["to_come"], len(content["trials"])) == (8, 0, 8)
