"""Which cells differ: paired effects with intervals, corrected together; and which are equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ablate.learn.stats.cells import Floats, Scores, reduce
from ablate.learn.stats.errors import Errors, Scope
from ablate.learn.stats.family import check_level, family, holm
from ablate.learn.stats.tables import Table
from trainables.errors import InvalidInput, Problem


@dataclass(frozen=True)
class Comparison:
    """One pair of cells. The effect is mean(a) - mean(b), in units of the metric.

    `low` and `high` bound it with confidence 1 - alpha for this pair alone, and go with `p`;
    `low_family` and `high_family` hold for all pairs of the family at once, and go with
    `p_adjusted`, on which `different` is decided. "Not different" does not mean equal.
    """

    a: str
    b: str
    effect: float
    low: float
    high: float
    p: float
    p_adjusted: float
    different: bool
    low_family: float
    high_family: float
    seed_share: float
    """Share of the error's variance that more seeds would lower and more queries would not."""
    seeds_a: int
    seeds_b: int
    queries: int
    scope: Scope

    def reversed(self) -> Comparison:
        """The same comparison as b against a."""
        return replace(
            self,
            a=self.b,
            b=self.a,
            effect=-self.effect,
            low=-self.high,
            high=-self.low,
            low_family=-self.high_family,
            high_family=-self.low_family,
            seeds_a=self.seeds_b,
            seeds_b=self.seeds_a,
        )


@dataclass(frozen=True)
class Equivalence:
    """Whether two cells are equal within `margin`, by two one-sided tests.

    `low` and `high` bound the effect with confidence 1 - 2 alpha, as those tests do. `equivalent`
    is decided on `p_adjusted` (Holm over the pairs).
    """

    a: str
    b: str
    effect: float
    margin: float
    low: float
    high: float
    p: float
    p_adjusted: float
    equivalent: bool
    scope: Scope


def compare(
    scores: Scores, pairs: Sequence[tuple[str, str]], alpha: float = 0.05, seed: int = 0
) -> Table[Comparison]:
    """The paired effect of every pair, with the variance of seeds and of queries in each interval.

    `scores` maps a cell's name to per-query scores [seeds, queries]: queries aligned over cells,
    seeds not, and their number may differ. `pairs` is the declared family: a false `different`
    anywhere in it happens in at most `alpha` of studies. All cells of `scores` lend each other
    their seed variance, also those in no pair. `seed` fixes the draws.

    The null hypothesis of a pair: both cells have the same expected score, over training seeds
    and over the population of queries. `p` comes from the Behrens-Fisher distribution of
    `errors.py`; `p_adjusted` from step-down max-T over joint draws of all errors (Westfall and
    Young 1993), and from Holm where that is smaller.

    Raises InvalidInput for unknown cells, misshapen or non-finite scores, or a bad alpha.
    """
    check_level(alpha)
    errors = Errors.of_pairs(reduce(scores), pairs, seed)
    return Table(Comparison, comparisons(errors, pairs, alpha))


def comparisons(errors: Errors, pairs: Sequence[tuple[str, str]], alpha: float) -> list[Comparison]:
    """The rows of `compare` for pairs whose errors are known."""
    found = family(errors, alpha)
    effects, cells, rows = errors.effects, errors.cells, errors.contrasts.cells
    return [
        Comparison(
            a=a,
            b=b,
            effect=float(effects[i]),
            low=float(effects[i] - found.reach[i]),
            high=float(effects[i] + found.reach[i]),
            p=float(found.p[i]),
            p_adjusted=float(found.p_adjusted[i]),
            different=bool(found.p_adjusted[i] <= alpha),
            low_family=float(effects[i] - found.reach_family[i]),
            high_family=float(effects[i] + found.reach_family[i]),
            seed_share=float(errors.seed_shares[i]),
            seeds_a=int(cells.seeds[rows[i, 0]]),
            seeds_b=int(cells.seeds[rows[i, 1]]),
            queries=cells.queries,
            scope=errors.scopes[i],
        )
        for i, (a, b) in enumerate(pairs)
    ]


def equivalent(
    scores: Scores,
    pairs: Sequence[tuple[str, str]],
    margin: float,
    alpha: float = 0.05,
    seed: int = 0,
) -> Table[Equivalence]:
    """Which pairs are equal within `margin`, a difference in the metric that would not matter.

    Two one-sided tests (Schuirmann 1987) with the errors of `compare`, which takes the same
    `scores`, `pairs` and `seed`. Declare the margin before looking at the scores.

    Raises InvalidInput as `compare` does, and for a margin that is not positive.
    """
    check_level(alpha)
    if not margin > 0:
        raise InvalidInput([Problem("margin", "must be above 0", margin)])
    errors = Errors.of_pairs(reduce(scores), pairs, seed)
    effects, reach = errors.effects, errors.reaches(2 * alpha)
    p = within(errors, margin)
    adjusted = holm(p)
    rows = [
        Equivalence(
            a=a,
            b=b,
            effect=float(effects[i]),
            margin=margin,
            low=float(effects[i] - reach[i]),
            high=float(effects[i] + reach[i]),
            p=float(p[i]),
            p_adjusted=float(adjusted[i]),
            equivalent=bool(adjusted[i] <= alpha),
            scope=errors.scopes[i],
        )
        for i, (a, b) in enumerate(pairs)
    ]
    return Table(Equivalence, rows)


def within(errors: Errors, margin: float) -> Floats:
    """[P] p-values of "the contrast is at least `margin` away from 0"."""
    above, below = errors.tails(margin - errors.effects), errors.tails(margin + errors.effects)
    return np.minimum(np.maximum(above, below), 1.0)
