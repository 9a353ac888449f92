"""Trials that failed or were stopped and are run again: MLflow holds what the ledger does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablate.learn.results import collect
from ablate.learn.tracking.sync import sync
from ablate.learn.tracking.tracked import DIGEST, FILES, KEY, PLAN
from ablate.plan.planner import Plan
from ablate.run.ledger import Ledger, Record
from ablate.run.upkeep import put_back
from tests.learn import fake
from tests.learn.tracked import SMALL, content, filled, runs_of

pytest.importorskip("mlflow")

STOPPING = SMALL + (
    "watch: {split: pydocs/dev, every: 10}\n"
    "stop: {rule: asha, among: cells, grace: 10, reduction: 2}\n"
)
REASON = "asha: behind 1 of 2 at step 20"
DEV, PRIMARY = "pydocs/dev/ndcg_at_10", "pydocs/test/ndcg_at_10"
OWN = {KEY, PLAN, DIGEST, FILES, "mlflow.source.name"}
"""Tags that name the study, or hash what does."""
REFS = ["pydocs/dev", "pydocs/test"]

End = Callable[[Record], Record]


def stopped(record: Record) -> Record:
    metrics = {"stop/step": 20.0, f"stop/{DEV}": 0.4, "stop/train/loss": 1.9}
    return replace(record, state="stopped", reason=REASON, metrics=metrics, evaluated={})


def failed(record: Record) -> Record:
    return replace(record, state="failed", reason="out of memory", metrics={}, evaluated={})


def swept(root: Path, end: End) -> tuple[Plan, Ledger, Record]:
    """A swept study one of whose trials came to another end; that trial's record."""
    plan, ledger = fake.plan_of(STOPPING, f"study-{root.name}"), Ledger(root)
    fake.fill(plan, ledger)
    record = ledger.record(next(plan.repeat()).trial_id)
    assert record is not None and record.state == "finished"
    ledger.write(end(record))
    return plan, ledger, end(record)


@pytest.mark.parametrize("end", [stopped, failed])
def test_a_trial_run_again_is_as_one_that_ran_once(
    end: End, tmp_path: Path, store: str, client: Any
) -> None:
    plan, ledger, record = swept(tmp_path / end.__name__, end)
    key = f"trial/{record.trial_id}"
    experiment = sync(collect(plan, ledger), ledger, store).experiment_id
    first = runs_of(client, experiment)[key]
    assert first.info.status == ("KILLED" if end is stopped else "FAILED")
    assert first.data.tags["reason"] == record.reason
    assert set(first.data.metrics) >= set(record.metrics)

    put_back(ledger, [record])
    sync(collect(plan, ledger), ledger, store)
    assert key not in runs_of(client, experiment)
    began = replace(record, state="running", reason=None, metrics={}, finished=None)
    ledger.write(began)
    sync(collect(plan, ledger), ledger, store)
    running = runs_of(client, experiment)[key]
    assert (running.info.status, running.data.tags["state"]) == ("RUNNING", "running")
    assert "reason" not in running.data.tags
    assert not any(name.startswith(("stop/", "train/")) for name in running.data.metrics)

    fake.write_trial(ledger, next(plan.repeat()), REFS, {})
    sync(collect(plan, ledger), ledger, store)
    again = sync(collect(plan, ledger), ledger, store)
    assert (again.created, again.updated) == (0, 0)
    twin, undisturbed, _ = swept(tmp_path / f"{end.__name__}-not", lambda done: done)
    whole = sync(collect(twin, undisturbed), undisturbed, store)
    found, expected = content(client, experiment), content(client, whole.experiment_id)
    assert shown(found, tmp_path / end.__name__) == shown(
        expected, tmp_path / f"{end.__name__}-not"
    )
    assert found[key]["points"] == expected[key]["points"]


def shown(found: dict[str, Any], root: Path) -> dict[str, Any]:
    """What each cell's and each trial's run shows, by its name."""
    parts = ("params", "metrics", "status", "inputs", "files")
    runs = {
        run["status"][-1]: [
            *(run[part] for part in parts),
            {k: v.replace(str(root), "") for k, v in run["tags"].items() if k not in OWN},
        ]
        for run in found.values()
        if run["tags"]["level"] != "execution"
    }
    assert len(runs) == 8
    return runs


def test_an_end_that_no_pass_saw_undone_leaves_nothing(
    tmp_path: Path, store: str, client: Any
) -> None:
    """Stopped, then finished between two passes; and a store that holds both, of before."""
    plan, ledger, record = swept(tmp_path / "unseen", stopped)
    key = f"trial/{record.trial_id}"
    experiment = sync(collect(plan, ledger), ledger, store).experiment_id
    fake.write_trial(ledger, next(plan.repeat()), REFS, {})
    for _ in range(2):
        done = sync(collect(plan, ledger), ledger, store)
        run = runs_of(client, experiment)[key]
        assert run.info.status == "FINISHED" and "reason" not in run.data.tags
        assert not any(name.startswith("stop/") for name in run.data.metrics)
        client.set_tag(run.info.run_id, "reason", REASON)
        client.log_metric(run.info.run_id, "stop/step", 20.0)
    assert (done.created, done.updated, done.unchanged) == (1, 0, 8)


def test_another_failure_than_before_is_another_attempt(
    tmp_path: Path, store: str, client: Any
) -> None:
    plan, ledger, record = swept(tmp_path / "twice", stopped)
    key = f"trial/{record.trial_id}"
    experiment = sync(collect(plan, ledger), ledger, store).experiment_id
    ledger.write(failed(record))
    sync(collect(plan, ledger), ledger, store)
    run = runs_of(client, experiment)[key]
    assert (run.info.status, run.data.tags["reason"]) == ("FAILED", "out of memory")
    assert not any(name.startswith("stop/") for name in run.data.metrics)


def test_a_cell_that_has_lost_seeds_has_no_spread_of_before(
    tmp_path: Path, store: str, client: Any
) -> None:
    """A metric never goes in MLflow: the cell gets another run."""
    plan, ledger = filled(tmp_path, "fewer-seeds")
    sync(collect(plan, ledger), ledger, store)
    fewer = fake.plan_of(SMALL.replace("seed: [0, 1, 2]", "seed: [0]"), "fewer-seeds")
    experiment = sync(collect(fewer, ledger), ledger, store).experiment_id
    cells = [run for key, run in runs_of(client, experiment).items() if key.startswith("cell/")]
    assert len(cells) == 2
    for run in cells:
        assert run.data.metrics["n/seeds"] == 1
        assert not [name for name in run.data.metrics if name.endswith(".sd")]
    again = sync(collect(fewer, ledger), ledger, store)
    assert (again.created, again.updated) == (0, 0)
