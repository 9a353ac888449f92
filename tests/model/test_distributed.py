"""k workers are one process on the union batch, for every loss, plain and chunked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

Outcomes = dict[tuple[int, int], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def outcomes(
    workers: ModuleType, tiny_backbone: str, tmp_path_factory: pytest.TempPathFactory
) -> Outcomes:
    """By (workers, rank): what each case left behind, from one group of processes."""
    folder = tmp_path_factory.mktemp("gloo")
    root = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    group = [
        subprocess.Popen(
            [sys.executable, workers.__file__, str(rank), tiny_backbone, str(folder)], env=env
        )
        for rank in range(workers.LARGEST)
    ]
    try:
        assert [process.wait(timeout=240) for process in group] == [0] * workers.LARGEST
    finally:
        for process in group:
            process.kill()
            process.wait()
    return {
        (world, rank): torch.load(folder / f"outcomes-{world}-{rank}.pt", weights_only=False)
        for world in workers.WORLDS
        for rank in range(world)
    }


@pytest.fixture(scope="module")
def alone(workers: ModuleType, tiny_backbone: str) -> list[Any]:
    """What each case leaves behind in one process on the union batch."""
    return [workers.train(tiny_backbone, case, 1, 0) for case in workers.cases()]


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("world", [2, 3])
def test_parameters_and_gradients_are_those_of_one_process(
    world: int, workers: ModuleType, outcomes: Outcomes, alone: list[Any]
) -> None:
    cases = list(workers.cases())
    assert len(cases) == len(alone) == len(outcomes[world, 0]) > 20
    for case, found, wanted in zip(cases, outcomes[world, 0], alone, strict=True):
        exact = case.dtype == torch.float64
        assert distance(found["first_gradient"], wanted.first_gradient) < (1e-12 if exact else 3e-6)
        assert distance(found["parameters"], wanted.parameters) < (1e-12 if exact else 1e-6), case
        assert distance(found["moved"], wanted.moved) < (1e-9 if exact else 1e-3), case


@pytest.mark.parametrize("world", [2, 3])
def test_all_workers_hold_the_same_bits(world: int, outcomes: Outcomes) -> None:
    for rank in range(1, world):
        for found, wanted in zip(outcomes[world, rank], outcomes[world, 0], strict=True):
            assert torch.equal(found["parameters"], wanted["parameters"])
            assert found["results"] == wanted["results"]


@pytest.mark.parametrize("world", [2, 3])
def test_losses_counts_and_shares_are_those_of_one_process(
    world: int, outcomes: Outcomes, alone: list[Any]
) -> None:
    checked = 0
    for found, wanted in zip(outcomes[world, 0], alone, strict=True):
        for here, there in zip(found["results"], wanted.results, strict=True):
            assert here.loss == pytest.approx(there.loss, rel=1e-5, abs=1e-9)
            assert (here.queries, here.without_positive) == (there.queries, 1)
            assert here.shares == pytest.approx(there.shares, rel=1e-3, abs=1e-5)
            checked += len(here.shares)
    assert checked > 500
