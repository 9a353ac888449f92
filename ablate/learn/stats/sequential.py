"""Looking before the end without paying for it in false alarms.

`confidence_sequence` looks after every query, while the queries come in random order. It speaks of
the checkpoints at hand, not of their training methods: two equal methods with different seeds do
differ. Looks at one trial again and again while it trains are `ablate.plan.stops.Sequential`'s.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ablate.learn.stats.cells import Floats
from trainables.errors import InvalidInput, Problem

_MOST = 0.5
"""Largest bet of the confidence sequence, where its bound stays finite."""


def confidence_sequence(
    differences: ArrayLike, alpha: float = 0.05, reach: float = 1.0
) -> tuple[Floats, Floats]:
    """Bounds [n] on the mean difference after each of n queries, all of them right at once.

    With probability 1 - alpha the true mean lies within the bounds after every query, so one may
    stop whenever they decide. The queries must come in random order and every difference must lie
    within -`reach` and `reach`; nothing else is assumed. Predictable plug-in empirical Bernstein
    (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", 2024,
    theorem 2). Raises InvalidInput for a difference out of reach or a bad alpha.
    """
    values = np.asarray(differences, np.float64)
    problems = []
    if values.ndim != 1 or not len(values):
        problems.append(Problem("differences", "must have the shape [queries]", values.shape))
    elif not (np.abs(values) <= reach).all():
        rule = f"must be numbers between -{reach:g} and {reach:g}"
        problems.append(Problem("differences", rule, float(np.abs(values).max())))
    if not 0 < alpha < 1:
        problems.append(Problem("alpha", "must lie between 0 and 1", alpha))
    if problems:
        raise InvalidInput(problems)
    x = (values / reach + 1) / 2
    count = np.arange(1, len(x) + 1)
    mean = (0.5 + np.cumsum(x)) / (count + 1)
    variance = (0.25 + np.cumsum((x - mean) ** 2)) / (count + 1)
    mean_before = np.concatenate([[0.5], mean[:-1]])
    variance_before = np.concatenate([[0.25], variance[:-1]])
    bet = np.sqrt(2 * np.log(2 / alpha) / (variance_before * count * np.log1p(count)))
    bet = np.minimum(bet, _MOST)
    loss = (x - mean_before) ** 2 * (-np.log1p(-bet) - bet)
    total = np.cumsum(bet)
    centre = np.cumsum(bet * x) / total
    width = (np.log(2 / alpha) + np.cumsum(loss)) / total
    low = np.maximum.accumulate(np.maximum(centre - width, 0.0))
    high = np.minimum.accumulate(np.minimum(centre + width, 1.0))
    return reach * (2 * low - 1), reach * (2 * high - 1)
