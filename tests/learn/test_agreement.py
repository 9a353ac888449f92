"""Rank agreement: counted pair by pair."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from ablate.learn.agreement import agreements
from ablate.plan.parts import Watch
from trainables.data.collections import Ref

PART, WHOLE = "pydocs/dev:500-passages/map", "pydocs/dev/map"


@dataclass
class Cell:
    """A cell of trials, of each the metrics alone."""

    trials: list[Any]


@dataclass
class Trial:
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class Found:
    """As much of Results as is read."""

    study: Any
    cells: list[Cell]

    @property
    def trials(self) -> list[Any]:
        return [trial for cell in self.cells for trial in cell.trials]


@dataclass
class Watched:
    watch: Watch | None


def found(values: list[list[tuple[float, float]]], passages: int | None = 500) -> Any:
    cells = [Cell([Trial({PART: a, WHOLE: b}) for a, b in cell] + [Trial()]) for cell in values]
    return Found(Watched(Watch(Ref("pydocs", "dev"), 10, passages)), cells)


def test_tau_is_the_share_of_pairs_in_the_same_order_less_the_others() -> None:
    generator = np.random.default_rng(0)
    values = [[tuple(generator.random(2)) for _ in range(2)] for _ in range(7)]
    (one,) = agreements(found(values))
    means = np.mean(values, axis=1)
    signs = [np.sign((a[0] - b[0]) * (a[1] - b[1])) for a, b in combinations(means, 2)]
    assert one.tau == pytest.approx(np.mean(signs)) and one.cells == 7
    assert str(one).startswith(
        "MAP on pydocs/dev:500-passages ranks 7 cells as on all of pydocs/dev"
    )


def test_nothing_is_said_where_nothing_can_be() -> None:
    few = [[(0.1, 0.2)], [(0.2, 0.3)]]
    assert agreements(found(few)) == ()
    assert agreements(found([[(0.1, 0.2)]] * 4)) == ()
    enough = [[(0.1 * i, 0.2 * i)] for i in range(4)]
    assert agreements(found(enough, passages=None)) == ()
    assert agreements(found(enough))[0].tau == pytest.approx(1.0)
