"""Real worker groups of Ray Train whose workers are killed, or raise what is their own fault."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle

from ablate.run import sweep
from ablate.run.ledger import Ledger
from ablate.run.trial import Job, Resources, execute
from tests.chaos import world
from trainables import worker
from trainables.places import free_abandoned
from trainables.spec import TrialSpec

pytestmark = pytest.mark.cluster
cloudpickle.register_pickle_by_value(sys.modules[__name__])

LOOP = worker._group_loop


def starts(config: dict[str, Any]) -> int:
    """How often this rank has started, this time included; counted beside the run folder."""
    from ray import train

    rank = train.get_context().get_world_rank()
    folder = Path(config["cache"]).parent / f"starts-{rank}"
    folder.mkdir(exist_ok=True)
    (folder / str(os.getpid())).touch()
    return len(list(folder.iterdir()))


def killed_once(config: dict[str, Any]) -> None:
    from ray import train

    if starts(config) == 1 and train.get_context().get_world_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    LOOP(config)


def without_memory(config: dict[str, Any]) -> None:
    import torch
    from ray import train

    starts(config)
    if train.get_context().get_world_rank() == 1:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    LOOP(config)


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    with sweep.cluster(None, dashboard=True):
        yield


@pytest.fixture
def job(tiny_backbone: str, tiny_collection: str) -> Job:
    flat: dict[str, Any] = {
        "data.train": tiny_collection, "encoder.backbone": tiny_backbone,
        "encoder.query_length": 8, "encoder.passage_length": 16, "loss.name": "joint_lh",
        "loss.temperature": 0.1, "optim.lr": 1e-3, "optim.batch_size": 6, "optim.steps": 4,
    }  # fmt: skip
    spec = TrialSpec.from_flat(flat).to_flat()
    return Job("a" * 16, "01 joint_lh", 0, spec, spec, {}, (f"{tiny_collection}/dev",))


def resources(folder: Path) -> Resources:
    return Resources(str(folder / "runs"), str(folder / "cache"), workers=2, cpus=0.5)


def counted(folder: Path, rank: int) -> int:
    return len(list((folder / f"starts-{rank}").iterdir()))


def test_a_study_of_worker_groups_runs_by_command(tmp_path: Path) -> None:
    """Its trials keep training checkpoints on the way, whose reports the live view sees too."""
    world.make(tmp_path)
    shape = replace(next(s for s in world.SHAPES if s.workers == 2), steps=250)
    study, runs = world.write_study(tmp_path, "groups", shape), tmp_path / "runs"
    command = [sys.executable, "-m", "ablate.cli", "run", str(study), "--runs", str(runs)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [record.state for record in Ledger(runs).records()] == ["finished"] * shape.cells


@pytest.mark.usefixtures("ray")
def test_a_killed_worker_costs_a_restart(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_group_loop", killed_once)
    record = execute(job, resources(tmp_path), lambda metrics: None)
    assert record.state == "finished", (record.reason, record.log_tail)
    assert counted(tmp_path, 1) == 2


@pytest.mark.usefixtures("ray")
def test_memory_that_is_short_ends_a_group_at_once(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_group_loop", without_memory)
    record = execute(job, resources(tmp_path), lambda metrics: None)
    assert (record.state, record.own_fault) == ("failed", True)
    assert record.reason is not None and record.reason.startswith("out of memory; set optim.chunk")
    assert counted(tmp_path, 1) == 1


@pytest.mark.usefixtures("ray")
def test_a_placement_group_whose_maker_was_killed_is_freed_and_no_other() -> None:
    import ray
    from ray.util import placement_group, placement_group_table
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    @ray.remote(num_cpus=0)
    class Maker:
        def make(self) -> str:
            group = placement_group([{"CPU": 0.5}])
            ray.get(group.ready())
            return str(group.id.hex())

        def die(self) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

    @ray.remote(num_cpus=0.5)
    class Worker:
        def here(self) -> bool:
            return True

    used = placement_group([{"CPU": 0.5}])
    place = PlacementGroupSchedulingStrategy(used)
    held = Worker.options(scheduling_strategy=place).remote()
    assert ray.get(held.here.remote())
    maker = Maker.remote()
    left = ray.get(maker.make.remote())
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(maker.die.remote())
    assert placement_group_table()[left]["state"] == "CREATED", "Ray frees it by itself now"
    assert free_abandoned({"CPU": 0.25}, 0.5) == []
    assert free_abandoned({"CPU": 0.5}, 0.5) == [left]
    assert free_abandoned({"CPU": 0.5}, 0.5) == []
    table = placement_group_table()
    assert table[left]["state"] == "REMOVED"
    assert table[used.id.hex()]["state"] == "CREATED"
    assert ray.get(held.here.remote())
