"""Sweeps on a cluster whose nodes come and go, with stand-in trials: only the engine is shown."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fake_cluster import FakeCluster, running, wait_for
from ray import cloudpickle

from ablate.run import sweep
from ablate.run.capacity import Capacity, ClusterCannot, parse_nodes, slots
from ablate.run.cluster import nodes
from ablate.run.cluster.check import check_nodes
from ablate.run.events import Watcher
from ablate.run.lease import Leases
from ablate.run.ledger import Ledger, Record, StudyFolder
from ablate.run.trial import Job, Resources

pytestmark = pytest.mark.cluster
cloudpickle.register_pickle_by_value(sys.modules[__name__])

STEPS = 60
SECONDS_A_STEP = 0.5


def stand_in(config: Mapping[str, Any], resources: Mapping[str, Any], mark: str) -> None:
    """A trial that counts, keeps what it has counted in the ledger, and goes on from there."""
    import os

    from ray import tune

    job = config["job"].job
    ledger = Ledger(resources["runs"])
    kept = f"trials/{job.trial_id}/resume/step"
    first = int(ledger.store.read(kept) or b"0")
    for step in range(first, STEPS):
        time.sleep(SECONDS_A_STEP)
        ledger.store.write(kept, str(step + 1).encode())
        tune.report({"step": step + 1, "steps": STEPS})
    metrics = {"first": float(first), "pid": float(os.getpid())}
    ledger.write(Record(job.trial_id, {}, {}, state="finished", metrics=metrics))
    tune.report({"state": "finished"})


def stand_in_group(config: Mapping[str, Any], resources: Mapping[str, Any], mark: str) -> None:
    """A driver that waits for a worker on each of its nodes, and works when it has them all."""
    import ray
    from ray import tune
    from ray.util import placement_group, remove_placement_group

    job = config["job"].job
    workers = placement_group([{"CPU": resources["cpus"]}] * resources["workers"])
    ray.get(workers.ready())
    for step in range(5):
        time.sleep(1)
        tune.report({"step": step + 1, "steps": 5})
    remove_placement_group(workers)
    Ledger(resources["runs"]).write(Record(job.trial_id, {}, {}, state="finished"))
    tune.report({"state": "finished"})


class Seen:
    """A watcher that keeps what it sees."""

    def __init__(self, jobs: list[Job]) -> None:
        self.expected = sorted(job.trial_id for job in jobs)
        self.notes: list[str] = []
        self.begun: list[str] = []
        self.steps: dict[str, float] = {}
        self.records: list[Record] = []

    def started(self, trial_id: str) -> None:
        self.begun.append(trial_id)

    def lost(self, trial_id: str) -> None:
        """It begins again, or ends."""

    def progress(self, trial_id: str, metrics: Mapping[str, float]) -> None:
        self.steps[trial_id] = metrics["step"]

    def ended(self, record: Record) -> None:
        self.records.append(record)


def say(text: str) -> None:
    """Print past what silences a running sweep."""
    print(text, file=sys.__stdout__, flush=True)


def run_jobs(
    jobs: list[Job], resources: Resources, concurrent: int, watcher: Watcher
) -> list[Record]:
    with Leases(Ledger(resources.runs).store) as leases:
        return sweep.run_jobs(jobs, resources, concurrent, watcher, leases)


def some_jobs(count: int) -> list[Job]:
    return [Job(f"t{i}", "cell", i, {}, {}, {}, ()) for i in range(count)]


def recorded(folder: StudyFolder, seen: Seen, resources: Resources, growth: Capacity) -> Any:
    trials = nodes.Recorder(seen, groups=resources.workers > 1)
    trials.expect(len(seen.expected))
    fallback = nodes.Fallback.of(resources, growth, None)
    return nodes.Recording(folder, trials, seen.notes.append, nodes.look, fallback)


@pytest.fixture
def runs(tmp_path: Path) -> str:
    return str(tmp_path / "runs")


def test_nodes_come_for_trials_survive_a_loss_and_go(
    runs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_tune_trial", stand_in)
    resources = Resources(runs=runs, cache=runs, cpus=2)
    growth = parse_nodes(["3xCPU=2"])
    jobs = some_jobs(5)
    seen, folder = Seen(jobs), Ledger(runs).study("s")
    types = {"cpu": {"resources": {"CPU": 2}, "max_workers": 3}}
    with running(FakeCluster(types, 3)) as fake, sweep.cluster("auto", dashboard=True) as present:
        with pytest.raises(ClusterCannot, match="largest node has 0"):
            slots(resources, present, None)
        count = slots(resources, growth, None).count
        assert count == 3
        began = time.time()

        def disturb() -> None:
            wait_for(lambda: len(seen.steps) == 3, 180, "three trials to make a step")
            time.sleep(5)
            fake.kill(fake.nodes()[0])
            say(f"a node killed after {time.time() - began:.1f} s")

        killer = threading.Thread(target=disturb)
        killer.start()
        with recorded(folder, seen, resources, growth) as watcher:
            records = run_jobs(jobs, resources, count, watcher)
        killer.join()
        ended = time.time()
        wait_for(lambda: not fake.nodes(), 60, "the nodes to go")
        for row in nodes.read(folder):
            say(f"{row['time'] - began:6.1f} s {row}")
        say(f"done after {ended - began:.1f} s, nodes gone {time.time() - ended:.1f} s later")
    assert sorted(record.trial_id for record in records) == seen.expected
    assert {record.state for record in records} == {"finished"}
    assert [record.metrics["first"] > 0 for record in records].count(True) == 1
    assert len(seen.begun) == 6
    assert max(row["nodes"] for row in nodes.read(folder)) == 4
    assert nodes.read(folder)[-1]["pending"] == nodes.read(folder)[-1]["running"] == 0


def test_where_spot_is_refused_nodes_come_on_demand(
    runs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_tune_trial", stand_in)
    monkeypatch.setattr(nodes, "PATIENCE_SECONDS", 5.0)
    resources = Resources(runs=runs, cache=runs, cpus=2)
    growth = parse_nodes(["2xCPU=2"])
    jobs = some_jobs(2)
    seen, folder = Seen(jobs), Ledger(runs).study("s")
    on_demand = {"CPU": 2, "cpu-on-demand": 1}
    types = {
        "cpu-spot": {"resources": {"CPU": 2}, "max_workers": 2, "priority": 2},
        "cpu-on-demand": {"resources": on_demand, "max_workers": 2, "priority": 1},
    }
    fake = FakeCluster(types, 4, module="fake_providers.RefusingProvider")
    with (
        running(fake),
        sweep.cluster("auto", dashboard=True),
        recorded(folder, seen, resources, growth) as watcher,
    ):
        records = run_jobs(jobs, resources, 2, watcher)
    assert {record.state for record in records} == {"finished"}
    assert seen.notes == ["cpu-spot is refused while 2 trials wait: asking for 2 cpu-on-demand"]
    assert max(row["types"].get("cpu-on-demand", 0) for row in nodes.read(folder)) == 2


def test_groups_get_their_nodes_and_drivers_take_none(
    runs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_tune_trial", stand_in_group)
    resources = Resources(runs=runs, cache=runs, workers=3, cpus=1)
    growth = parse_nodes(["3xCPU=2"])
    jobs = some_jobs(4)
    seen = Seen(jobs)
    types = {"cpu": {"resources": {"CPU": 2}, "max_workers": 3}}
    with running(FakeCluster(types, 3)) as fake, sweep.cluster("auto", dashboard=True):
        count = slots(resources, growth, None).count
        assert count == 2
        records = run_jobs(jobs, resources, count, seen)
        assert {record.state for record in records} == {"finished"}
        assert check_nodes(resources, {}) == 1 + len(fake.nodes())
        with pytest.raises(ClusterCannot, match="nowhere: ") as caught:
            check_nodes(resources, {"nowhere": "fingerprint"})
        assert str(caught.value).count("nowhere: ") == 1 + len(fake.nodes())
        wait_for(lambda: not fake.nodes(), 60, "the nodes to go")
