"""Many questions at once: p-values and intervals that hold for a whole family of contrasts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ablate.learn.stats.cells import Floats
from ablate.learn.stats.errors import Errors
from trainables.errors import InvalidInput, Problem

_TINY = 1e-300


@dataclass(frozen=True)
class Family:
    """Per contrast [P]: p-values, and half-widths of the intervals, alone and for the family."""

    p: Floats
    p_adjusted: Floats
    reach: Floats
    reach_family: Floats


def family(errors: Errors, alpha: float) -> Family:
    """Two-sided tests of every contrast against 0, with the family-wise rate held at `alpha`.

    Step-down max-T (Westfall and Young, "Resampling-based multiple testing", 1993, algorithm 2.8)
    over joint draws of the errors. Each contrast is measured in units of its own reach at
    alpha / P, so that one with a heavier tail does not use up the family's error. Where Holm's
    bound is smaller than what the draws resolve, it is taken.
    """
    size = len(errors.contrasts)
    p = errors.p_values()
    reach = errors.reaches(alpha)
    if size < 2:
        return Family(p, p, reach, reach)
    scale = np.maximum(errors.reaches(alpha / size), _TINY)
    observed = np.abs(errors.effects) / scale
    order = np.argsort(observed, kind="stable")
    counts = np.zeros(size)
    largest = []
    for block in errors.joint():
        block = np.abs(block, out=block)
        block /= scale
        rising = np.maximum.accumulate(block[:, order], axis=1)
        counts[order] += (rising >= observed[order]).sum(axis=0)
        largest.append(rising[:, -1])
    maxima = np.concatenate(largest)
    drawn = np.empty(size)
    from_top = order[::-1]
    drawn[from_top] = np.maximum.accumulate((1 + counts[from_top]) / (1 + len(maxima)))
    adjusted = np.maximum(p, np.minimum(drawn, holm(p)))
    together = scale * np.quantile(maxima, 1 - alpha)
    return Family(p, adjusted, reach, np.maximum(together, reach))


def holm(p: Floats) -> Floats:
    """Holm's step-down adjustment of p-values (Scandinavian Journal of Statistics, 1979)."""
    order = np.argsort(p, kind="stable")
    factors = len(p) - np.arange(len(p))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1.0)
    return adjusted


def check_level(alpha: float) -> None:
    """InvalidInput unless `alpha` is an error rate that a table can hold."""
    if not 0.0 < alpha < 0.5:
        raise InvalidInput([Problem("alpha", "must lie between 0 and 0.5", alpha)])
