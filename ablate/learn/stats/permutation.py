"""Permutation tests over queries: a second opinion on the checkpoints, not on the methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ablate.learn.stats.cells import Floats, Scores, positions, reduce
from ablate.learn.stats.family import holm
from ablate.learn.stats.tables import Table
from trainables.errors import InvalidInput, Problem

_BLOCK = 4_000_000


@dataclass(frozen=True)
class Permutation:
    """A pair's p-values over sign flips of its per-query differences (means over the seeds)."""

    a: str
    b: str
    effect: float
    p: float
    p_adjusted: float


def sign_flip(
    scores: Scores, pairs: Sequence[tuple[str, str]], draws: int = 10_000, seed: int = 0
) -> Table[Permutation]:
    """Fisher's randomisation test of every pair, and step-down max-T over the pairs.

    Asks whether these checkpoints, averaged over their seeds, differ on this query population;
    that training again would move them is left out, so it finds more than `compare` does and says
    less. A query's signs flip in all pairs together, which keeps the pairs' correlation. The
    differences are measured in units of their standard error before they are compared.

    Raises InvalidInput as `compare` does, and for fewer than 100 draws.
    """
    if draws < 100:
        raise InvalidInput([Problem("draws", "must be at least 100", draws)])
    cells = reduce(scores)
    rows = positions(cells, pairs)
    differences = cells.profile[rows[:, 0]] - cells.profile[rows[:, 1]]
    p, adjusted = _flipped(differences, draws, np.random.default_rng(seed))
    effects = differences.mean(axis=1)
    return Table(
        Permutation,
        [
            Permutation(a, b, float(effects[i]), float(p[i]), float(adjusted[i]))
            for i, (a, b) in enumerate(pairs)
        ],
    )


def _flipped(differences: Floats, draws: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """p-values of each row of `differences` [P, queries], alone and corrected together."""
    scale = np.sqrt((differences**2).sum(axis=1))
    units = (differences / np.where(scale > 0, scale, 1.0)[:, None]).T
    # Rounding must not make the observed arrangement beat itself.
    observed = np.abs(units.sum(axis=0)) * (1 - 1e-12)
    order = np.argsort(observed, kind="stable")
    alone, together = np.zeros(len(order)), np.zeros(len(order))
    size = max(1, _BLOCK // max(units.shape))
    for start in range(0, draws, size):
        shape = (min(size, draws - start), len(units))
        signs = 1.0 - 2.0 * rng.integers(0, 2, shape, dtype=np.int8)
        flipped = np.abs(signs @ units)
        alone += (flipped >= observed).sum(axis=0)
        rising = np.maximum.accumulate(flipped[:, order], axis=1)
        together[order] += (rising >= observed[order]).sum(axis=0)
    p = (1 + alone) / (1 + draws)
    adjusted = np.empty(len(order))
    from_top = order[::-1]
    adjusted[from_top] = np.maximum.accumulate((1 + together[from_top]) / (1 + draws))
    return p, np.maximum(p, np.minimum(adjusted, holm(p)))
