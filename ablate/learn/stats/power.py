"""What a study can show: smallest detectable effect, and the seeds or queries an effect needs.

The variance of a difference of two cells with K seeds each over n queries is

    2 * (seed + interaction / n) / K  +  difference / n

with the components of `Variances`. The first part is known from cells * (K - 1) degrees of freedom
when the cells are equally noisy, which is what planning assumes; the test that `compare` makes
doubts that, so with two or three seeds it needs a larger effect, most of all with many queries.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import special

from ablate.learn.stats.seeds import Variances
from trainables.errors import InvalidInput, Problem

MOST_SEEDS = 1000
MOST_QUERIES = 10_000_000


def power_of(
    effect: float,
    variances: Variances,
    seeds: int,
    queries: int,
    cells: int = 2,
    pairs: int = 1,
    alpha: float = 0.05,
) -> float:
    """Chance that a true difference `effect` is called different, at alpha / pairs per pair.

    0 with one seed: then nothing can be said of training methods.
    """
    if seeds < 2:
        return 0.0
    variance, freedom = _error(variances, seeds, queries, cells)
    if variance <= 0:
        return float(effect != 0)
    return _chance(abs(effect) / float(np.sqrt(variance)), freedom, alpha / pairs)


def smallest_effect(
    variances: Variances,
    seeds: int,
    queries: int,
    cells: int = 2,
    pairs: int = 1,
    alpha: float = 0.05,
    power: float = 0.8,
) -> float:
    """The least true difference, in units of the metric, that is seen with chance `power`.

    Infinite with one seed. Raises InvalidInput when alpha or power is no probability.
    """
    _check(alpha, power)
    if seeds < 2:
        return float("inf")
    variance, freedom = _error(variances, seeds, queries, cells)
    low, high = 0.0, 1.0
    while _chance(high, freedom, alpha / pairs) < power:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        if _chance(middle, freedom, alpha / pairs) < power:
            low = middle
        else:
            high = middle
    return float(high * np.sqrt(variance))


def seeds_needed(
    effect: float,
    variances: Variances,
    queries: int,
    cells: int = 2,
    pairs: int = 1,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int | None:
    """Seeds per cell that show `effect` with chance `power`, or None when no number does."""
    _check(alpha, power)

    def enough(seeds: int) -> bool:
        return power_of(effect, variances, seeds, queries, cells, pairs, alpha) >= power

    return _least(enough, 2, MOST_SEEDS)


def queries_needed(
    effect: float,
    variances: Variances,
    seeds: int,
    cells: int = 2,
    pairs: int = 1,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int | None:
    """Queries that show `effect` with chance `power`, or None when no number does."""
    _check(alpha, power)

    def enough(queries: int) -> bool:
        return power_of(effect, variances, seeds, queries, cells, pairs, alpha) >= power

    return _least(enough, 2, MOST_QUERIES)


def _chance(shift: float, freedom: float, alpha: float) -> float:
    """Chance that an effect of `shift` standard errors is called different at `alpha`."""
    limit = -float(special.stdtrit(freedom, alpha / 2))
    missed = float(special.nctdtr(freedom, shift, limit))
    # Far beyond the limit scipy has no number for a chance that is 0.
    return 1.0 - missed if np.isfinite(missed) else float(shift > limit)


def _error(variances: Variances, seeds: int, queries: int, cells: int) -> tuple[float, float]:
    """Variance of a difference of two cells, and its degrees of freedom by Satterthwaite."""
    first = 2 * (variances.seed + variances.interaction / queries) / seeds
    second = variances.difference / queries
    whole = first + second
    doubt = first**2 / (cells * (seeds - 1)) + second**2 / max(queries - 1, 1)
    return whole, whole**2 / doubt if doubt > 0 else float(queries)


def _least(enough: Callable[[int], bool], low: int, high: int) -> int | None:
    """The least number from low to high that is enough, given that more never hurts."""
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def _check(alpha: float, power: float) -> None:
    problems = [
        Problem(name, "must lie between 0 and 1", value)
        for name, value in (("alpha", alpha), ("power", power))
        if not 0 < value < 1
    ]
    if problems:
        raise InvalidInput(problems)
