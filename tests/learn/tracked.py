"""Studies in MLflow: what the tests of tracking fill in and read back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ablate.learn.tracking.tracked import (
    KEY,
    PARENT,
)
from ablate.plan.planner import Plan
from ablate.run.ledger import Ledger
from tests.learn import fake

SMALL = fake.STUDY.replace("[single_lh, rand1_lh, joint_lh, sum_marg_lh, lse_pair]", "[joint_lh]")
FAILED, REASON = "01 joint_lh 0.02", "the loss is not finite at step 31; lower optim.lr"
PRIMARY = "pydocs/test/ndcg_at_10"


def filled(root: Path, name: str, text: str = SMALL, **options: Any) -> tuple[Plan, Ledger]:
    plan, ledger = fake.plan_of(text, name), Ledger(root)
    fake.fill(plan, ledger, **options)
    return plan, ledger


def runs_of(client: Any, experiment: str) -> dict[str, Any]:
    """Key -> run; no key twice."""
    runs = list(client.search_runs([experiment], max_results=1000))
    found = {run.data.tags[KEY]: run for run in runs}
    assert len(found) == len(runs)
    return found


def content(client: Any, experiment: str) -> dict[str, Any]:
    """Everything that a sync should leave alike, by key; ids as keys."""
    runs = runs_of(client, experiment)
    keys = {run.info.run_id: key for key, run in runs.items()}
    found = {}
    for key, run in runs.items():
        tags = {k: v for k, v in run.data.tags.items() if k != PARENT}
        points = Counter(
            (metric, point.step, point.value)
            for metric in run.data.metrics
            for point in client.get_metric_history(run.info.run_id, metric)
        )
        found[key] = {
            "parent": keys.get(run.data.tags.get(PARENT, "")),
            "tags": tags,
            "params": run.data.params,
            "metrics": run.data.metrics,
            "points": points,
            "status": (run.info.status, run.info.start_time, run.info.end_time, run.info.run_name),
            "inputs": sorted(one.dataset.name for one in run.inputs.dataset_inputs),
            "files": files_of(client, run.info.run_id),
        }
    return found


def files_of(client: Any, run_id: str, path: str | None = None) -> list[str]:
    found: list[str] = []
    for file in client.list_artifacts(run_id, path):
        found += files_of(client, run_id, file.path) if file.is_dir else [file.path]
    return sorted(found)


def by_level(runs: dict[str, Any], level: str) -> list[Any]:
    found = [run for run in runs.values() if run.data.tags["level"] == level]
    return sorted(found, key=lambda run: str(run.info.run_name))
