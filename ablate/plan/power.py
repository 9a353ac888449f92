"""The smallest difference between two cells that a plan can show, from a stated prior."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist


@dataclass(frozen=True)
class Prior:
    """How much two cells of equal quality differ by chance, in units of the metric (0 to 1).

    `query_sd`: standard deviation over queries of the difference of two encoders' scores.
    `seed_sd`: standard deviation over seeds of one cell's mean score. The defaults are guesses for
    MRR@10 and nDCG@10; values measured on earlier trials are better.
    """

    query_sd: float = 0.25
    seed_sd: float = 0.005


def smallest_effect(
    queries: int,
    seeds: int,
    comparisons: int = 1,
    prior: Prior | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
) -> float:
    """Smallest true difference of two cells' means that is found with probability `power`.

    Two-sided, at `alpha` divided by `comparisons` (Bonferroni, the first step of Holm), by the
    normal approximation: the difference of two means over the same `queries`, each averaged over
    `seeds`, has variance query_sd^2 / queries + 2 seed_sd^2 / seeds. With one seed the second term
    is still there, but a study cannot estimate it. Raises ValueError for counts below 1.
    """
    if min(queries, seeds, comparisons) < 1:
        raise ValueError("queries, seeds and comparisons must be at least 1")
    chosen = prior or Prior()
    spread = sqrt(chosen.query_sd**2 / queries + 2 * chosen.seed_sd**2 / seeds)
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha / (2 * comparisons)) + normal.inv_cdf(power)) * spread
