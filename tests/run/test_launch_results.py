"""What a launch brings back and what it costs."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from ablate.plan.estimate import TRIAL_SECONDS
from ablate.plan.planner import make_plan
from ablate.plan.study import load_study
from ablate.plan.timing import EarlierTrial
from ablate.run.cluster import cost, nodes
from ablate.run.cluster.fetch import fetch
from ablate.run.cluster.file import ClusterFile
from ablate.run.ledger import Ledger, Record
from tests.run.cluster_files import ablate, an_order, changed
from trainables.errors import InvalidInput


def test_fetching_brings_records_and_scores_but_no_checkpoint(tmp_path: Path) -> None:
    there, here = Ledger(tmp_path / "there"), Ledger(tmp_path / "here")
    there.study("s").write("plan.json", {"trials": [{"trial_id": "a"}, {"trial_id": "b"}]})
    there.study("s").open_test({"trials": ["c"]}, "0000")
    for trial in ("a", "c"):
        for part in ("checkpoint", "evaluations/x__test"):
            (tmp_path / "out" / part).mkdir(parents=True)
            (tmp_path / "out" / part / "file").write_text("content")
        there.publish(trial, tmp_path / "out")
        there.write(Record(trial, {}, {}, state="finished"))
    assert fetch("s", there, here) == 2
    assert sorted(here.store.children("trials")) == ["a", "c"]
    assert here.store.exists("trials/c/evaluations/x__test/file")
    assert not here.store.exists("trials/c/checkpoint")
    assert here.study("s").openings() == [{"trials": ["c"]}]
    assert fetch("s", there, here) == 2
    with pytest.raises(InvalidInput, match="known: s"):
        fetch("other", there, here)


def test_hours_of_nodes_become_money() -> None:
    rows = [
        {"time": 0.0, "nodes": 1, "types": {"head": 1}, "running": 0, "pending": 3},
        {"time": 60.0, "nodes": 3, "types": {"head": 1, "gpu-spot": 2}, "running": 2, "pending": 1},
        {"time": 3660.0, "nodes": 1, "types": {"head": 1}, "running": 0, "pending": 0},
        {"time": 9000.0, "nodes": 1, "types": {"head": 1}, "running": 0, "pending": 0},
    ]
    hours = nodes.node_hours(rows)
    assert hours == pytest.approx({"head": 61 / 60, "gpu-spot": 2.0})
    assert cost.spent(hours, {"head": 0.2, "gpu-spot": 0.5}).endswith(": 1.20 USD")
    assert "USD" not in cost.spent(hours, {"head": 0.2})


def test_prices_reach_the_study_with_its_command() -> None:
    prices = {"head": 0.2, "gpu-spot": 1.25}
    words = an_order(prices=cost.written_prices(prices)).entrypoint()
    given = [after for word, after in itertools.pairwise(words) if word == "--price"]
    assert cost.parse_prices(given) == prices
    with pytest.raises(InvalidInput) as caught:
        cost.parse_prices(["gpu", "cpu=-1", "=2", "head=inf", "spot=0.1"])
    assert [problem.value for problem in caught.value.problems] == [
        "gpu",
        "cpu=-1",
        "=2",
        "head=inf",
    ]


def test_the_expected_cost_counts_nodes_by_what_fits_on_them(
    aws: ClusterFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 hours of trials, four to a node of 8 CPUs: 4 hours of nodes; 32 at once, half an hour."""
    monkeypatch.setattr("ablate.plan.estimate.START_SECONDS", 0.0)
    sets = {"resources.cpus_per_worker": "2", "resources.max_concurrent_trials": "32"}
    plan = make_plan(load_study("quickstart", sets))
    seconds = 16 * 3600 / plan.trial_count
    earlier = [EarlierTrial(trial.flat, {"train": seconds}) for trial in plan.trials()]
    prices = {"head": 0.2, "gpu-spot": 0.5, "gpu-on-demand": 1.0}
    assert aws.capacity is not None
    guess, found = cost.foreseen(plan, aws.capacity, prices, earlier)
    assert (guess.slots, guess.core_hours) == (32, pytest.approx(32.0))
    assert found is not None
    assert (found.node_hours, found.nodes) == (pytest.approx(4.0), 8)
    assert found.usd == pytest.approx({"gpu-spot": 2.0, "gpu-on-demand": 4.0})
    assert found.head_usd == pytest.approx(0.2 * (seconds + TRIAL_SECONDS) / 3600)
    assert "2.00 USD on gpu-spot or 4.00 USD on gpu-on-demand, and 0.16 USD for the head" in str(
        found
    )
    _, unpriced = cost.foreseen(plan, aws.capacity, {}, earlier)
    assert "no prices" in str(unpriced)
    _, rest = cost.foreseen(plan, aws.capacity, prices, earlier, finished=plan.trial_count)
    assert rest is not None and rest.node_hours == 0.0


def test_a_plan_and_a_launch_say_the_same_of_a_cluster(tmp_path: Path) -> None:
    def priced(content: dict[str, Any]) -> None:
        content["metadata"]["usd_per_hour"] = {"head": 0.2, "gpu-spot": 0.5, "gpu-on-demand": 1.5}

    file, runs = str(changed(tmp_path, "aws", priced)), str(tmp_path / "runs")
    for number, trial in enumerate(make_plan(load_study("quickstart")).trials()):
        spec, seconds = dict(trial.flat), {"train": 500.0}
        Ledger(runs).write(Record(f"other{number}", spec, {}, "finished", seconds=seconds))
    planned = ablate("plan", "quickstart", "--cluster", file, "--runs", runs)
    launched = ablate("launch", "quickstart", "--cluster", file, "--dry-run", "--into", runs)
    assert planned.returncode == launched.returncode == 0, planned.stderr + launched.stderr
    (time, money) = launched.stderr.splitlines()[:2]
    assert time.startswith("Estimate: about ") and "from 20 earlier trials like these" in time
    assert "USD on gpu-spot" in money and "USD for the head" in money
    assert {time, money} <= set(planned.stdout.splitlines())
    too_large = ablate(
        "plan", "quickstart", "--cluster", file, "--set", "resources.cpus_per_worker=64"
    )
    assert too_large.returncode == 3 and "the largest node has 8" in too_large.stderr
