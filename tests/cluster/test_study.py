"""A real study on an autoscaling cluster: launched from elsewhere, disturbed, the same ledger."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
import yaml
from fake_cluster import FakeCluster, running, wait_for

from ablate.learn.report.ramps import ramps, told
from ablate.run.cluster.nodes import read
from ablate.run.ledger import Ledger, Record

pytestmark = pytest.mark.cluster

STEPS = 1000


@pytest.fixture
def study(tmp_path: Path, tiny_backbone: str, tiny_collection: str) -> Path:
    """Trials that take long enough to be disturbed between two checkpoints.

    There are three for two nodes, so that one node is idle to the end of the third.
    """
    content = {
        "question": "Which loss ranks best on a tiny collection?",
        "fixed": {
            "data.train": tiny_collection,
            "data.hard_negatives": 1,
            "encoder.backbone": tiny_backbone,
            "encoder.query_length": 16,
            "encoder.passage_length": 32,
            "loss.temperature": 0.05,
            "optim.lr": 1.0e-3,
            "optim.batch_size": 8,
            "optim.steps": STEPS,
        },
        "compare": {"loss.name": ["joint_lh", "lse_pair", "sum_marg_lh"]},
        "repeat": {"seed": [0]},
        "select": {"maximize": f"{tiny_collection}/dev/mrr_at_10"},
        "evaluate": [f"{tiny_collection}/test"],
        "resources": {"cpus_per_worker": 1},
    }
    path = tmp_path / "disturbed.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def ablate(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ablate.cli", *arguments]


def records(runs: Path) -> dict[str, Record]:
    return {record.trial_id: record for record in Ledger(runs).records()}


def test_a_disturbed_launch_ends_like_a_run_on_one_machine(tmp_path: Path, study: Path) -> None:
    runs, alone = tmp_path / "runs", tmp_path / "alone"
    types = {"cpu": {"resources": {"CPU": 1}, "max_workers": 2}}
    began = time.time()
    with running(FakeCluster(types, 2), seconds=590) as fake:
        ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
        place = ("--address", fake.dashboard, "--runs", str(runs), "--nodes", "2xCPU=1")
        laptop = subprocess.Popen(ablate("launch", str(study), *place), stdout=subprocess.PIPE)
        took = wait_for(lambda: list(runs.glob("trials/*/resume/state.json")), 300, "a checkpoint")
        laptop.kill()
        laptop.communicate()
        fake.kill(fake.nodes()[0])
        print(f"laptop closed and a node killed after {took:.1f} s")
        followed = subprocess.run(
            ablate("launch", str(study), *place, "--attach"), capture_output=True, text=True
        )
        print(followed.stdout[-2000:], followed.stderr[-2000:])
        print(f"followed to the end after {time.time() - began:.1f} s")
        took = wait_for(lambda: not fake.nodes(), 60, "the nodes to go")
        print(f"the last node went {took:.1f} s after the end of the job")
    rows = read(Ledger(runs).study("disturbed"))
    for row in rows:
        print({**row, "time": round(row["time"] - began, 1)})
    delays = ramps([rows])
    print(told(delays))
    assert len(delays.came) == 2 and (delays.lost, len(delays.replaced)) == (1, 1) and delays.went
    assert followed.returncode == 0
    assert "Following job ablate-disturbed-" in followed.stdout
    assert subprocess.run(ablate("run", str(study), "--runs", str(alone))).returncode == 0
    ours, theirs = records(runs), records(alone)
    assert ours.keys() == theirs.keys() and len(ours) == 3
    assert {record.state for record in ours.values()} == {"finished"}
    assert sorted(record.attempts for record in ours.values()) == [1, 1, 2]
    for trial, record in ours.items():
        assert record.metrics == theirs[trial].metrics
    histories = [
        [Ledger(folder).history(trial) for trial in sorted(ours)] for folder in (runs, alone)
    ]
    assert histories[0] == histories[1]
