"""The smallest difference of two cells that a plan can show, from earlier trials or a prior."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any

from ablate.plan.cost import Sizes
from ablate.plan.planner import Plan
from ablate.plan.prior import Prior

ALPHA, POWER = 0.05, 0.8


@dataclass(frozen=True)
class Detectable:
    """The smallest true difference of two cells that the plan finds on a test split."""

    label: str
    queries: int
    effect: float
    prior: Prior

    def __str__(self) -> str:
        plural = "query" if self.queries == 1 else "queries"
        return f"{self.effect:.3f} on {self.label} ({self.queries:,} {plural})"

    def to_json(self) -> dict[str, Any]:
        """The value and what it rests on, as JSON values."""
        return {**asdict(self), "alpha": ALPHA, "power": POWER}


def detectable(plan: Plan, sizes: Sizes, priors: Mapping[str, Prior]) -> Iterator[Detectable]:
    """The smallest difference on every test split whose queries are counted: those that
    have a positive at the split's threshold.

    `priors` has the spreads by a split's label, where they were measured.
    """
    for ref in plan.test_refs:
        size = sizes(ref.collection)
        queries = None if size is None else size.scored(ref.split, ref.min_grade)
        if queries:
            prior = priors.get(ref.label, Prior())
            effect = smallest_effect(queries, len(plan.seeds), comparisons(plan), prior)
            yield Detectable(ref.label, queries, effect, prior)


def comparisons(plan: Plan) -> int:
    """All pairs of cells."""
    return max(1, len(plan.cells) * (len(plan.cells) - 1) // 2)


def smallest_effect(
    queries: int,
    seeds: int,
    comparisons: int = 1,
    prior: Prior | None = None,
    alpha: float = ALPHA,
    power: float = POWER,
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
