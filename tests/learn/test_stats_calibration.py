"""Law 6: two equal configurations are called different no more often than the stated rate.

The quick part of `tests/bench/calibration.py`, whose whole table is printed by command.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ablate.learn.stats import confidence_sequence, sign_flip

STUDIES = 1000
LIMIT = 0.05 + 2.33 * (0.05 * 0.95 / STUDIES) ** 0.5
"""The stated rate plus binomial error at 99 %."""


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = Path(__file__).parents[1] / "bench" / "calibration.py"
    spec = importlib.util.spec_from_file_location("calibration", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["calibration"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("seeds", "queries", "noise", "shape"),
    [
        (2, 50, (1, 1, 1), "mrr"),
        (3, 300, (1, 1, 2), "normal"),
        (3, 1500, (1, 1, 1), "mrr"),
        (3, 7000, (1, 1, 1, 1, 3), "normal"),
    ],
)
def test_false_differences_stay_within_the_stated_rate(
    bench: ModuleType, seeds: int, queries: int, noise: tuple[float, ...], shape: str
) -> None:
    world = bench.World(seeds=seeds, queries=queries, noise=noise, shape=shape)
    assert bench.false_rate(world, STUDIES) <= LIMIT


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_rate_is_not_kept_by_never_deciding(bench: ModuleType, seeds: int) -> None:
    world = bench.World(seeds=seeds, queries=300, noise=(1, 1, 1))
    _, ours = bench.power(world, 200, oracle=0.8)
    assert ours >= 0.8 * 0.8


def test_a_test_over_queries_alone_forgets_the_seeds(bench: ModuleType) -> None:
    world = replace(bench.World(seeds=2, queries=3000), noise=(1, 1))
    rng = np.random.default_rng(0)
    wrong = [
        sign_flip(world.study(rng), [("cell 0", "cell 1")], draws=200)[0].p <= 0.05
        for _ in range(100)
    ]
    assert np.mean(wrong) > 0.15, "or the calibration would show nothing"


def test_a_confidence_sequence_holds_after_every_query_at_once() -> None:
    rng = np.random.default_rng(1)
    left = 0
    for _ in range(1000):
        differences = rng.choice([-1.0, -0.5, 0.0, 0.0, 0.0, 0.0, 0.5, 0.8], size=400)
        low, high = confidence_sequence(differences)
        left += bool(((low > -0.025) | (high < -0.025)).any())
    assert left / 1000 <= LIMIT
    low, high = confidence_sequence(rng.normal(0.2, 0.1, 1000).clip(-1, 1))
    assert 0 < low[-1] < 0.2 < high[-1] < 0.25
