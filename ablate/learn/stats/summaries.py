"""One cell in four numbers: mean, spread over seeds, and an interval over seeds and queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ablate.learn.stats.cells import Cells, Floats, Scores, reduce
from ablate.learn.stats.errors import DRAWS, Contrasts, Errors, Scope, mixture_reach
from ablate.learn.stats.family import check_level

MANY, FEWER_DRAWS = 1000, 1024
"""From so many cells on, fewer draws: half the width of a 95 % interval moves by 1.5 % (rms)."""


@dataclass(frozen=True)
class Summary:
    """Mean of a cell with its interval, in units of the metric.

    `sd` is the standard deviation of the seeds' means, None with one seed. `low` and `high` bound
    the method's expected score over seeds and queries; with one seed they are over queries alone,
    for this checkpoint, unless `scope` says that the seed variance is borrowed.
    """

    mean: float
    sd: float | None
    low: float
    high: float
    seeds: int
    queries: int
    scope: Scope


def cell_summary(scores: ArrayLike, alpha: float = 0.05) -> Summary:
    """The summary of one cell from its own scores [seeds, queries]; interval 1 - alpha.

    With two or three seeds the interval is wide, as their variance is hardly known; beside other
    cells, `cell_summaries` knows more. Raises InvalidInput as `compare` does.
    """
    check_level(alpha)
    cells = reduce({"cell": scores})
    alone = Errors(cells, Contrasts.alone(np.arange(1)), seed=0, draws=1)
    by_query = float(alone.by_query[0])
    # The doubt of the variance over queries, which is slight, widens it to Student's quantile.
    doubt = special.stdtrit(alone.query_freedom()[0], alpha / 2) / special.ndtri(alpha / 2)
    own = by_query - float(cells.interaction[0] / cells.seeds[0] / cells.queries)
    nodes, weights = _chi_squared(int(cells.freedom[0]))
    seeds = cells.freedom[0] * cells.seed_variance[0] / nodes / cells.seeds[0]
    variances = seeds + max(own, 0.0) * doubt**2
    sds = np.sqrt(np.maximum(variances, 1e-300))[:, None]
    return _rows(cells, mixture_reach(sds, weights, alpha))[0]


def cell_summaries(scores: Scores, alpha: float = 0.05, seed: int = 0) -> dict[str, Summary]:
    """The summary of every cell; the cells lend each other their seed variance, as in `compare`."""
    check_level(alpha)
    cells = reduce(scores)
    everyone = Contrasts.alone(np.arange(len(cells.names)))
    errors = Errors(cells, everyone, seed, FEWER_DRAWS if len(everyone) > MANY else DRAWS)
    rows = _rows(cells, errors.reaches(alpha), errors.scopes)
    return dict(zip(cells.names, rows, strict=True))


def _rows(cells: Cells, reach: Floats, scopes: list[Scope] | None = None) -> list[Summary]:
    return [
        Summary(
            mean=float(cells.means[i]),
            sd=float(np.sqrt(cells.seed_variance[i])) if cells.seeds[i] > 1 else None,
            low=float(cells.means[i] - reach[i]),
            high=float(cells.means[i] + reach[i]),
            seeds=int(cells.seeds[i]),
            queries=cells.queries,
            scope=scopes[i] if scopes else ("method" if cells.seeds[i] > 1 else "checkpoints"),
        )
        for i in range(len(cells.names))
    ]


def _chi_squared(freedom: int) -> tuple[Floats, Floats]:
    """Nodes and weights of the chi-squared distribution, close together in its lower tail."""
    if freedom == 0:
        return np.ones(1), np.ones(1)
    edges = np.concatenate([[0.0], np.geomspace(1e-8, 0.1, 80), np.linspace(0.1, 1.0, 61)[1:]])
    weights = np.diff(edges)
    middles = (edges[1:] + edges[:-1]) / 2
    return 2 * special.gammaincinv(freedom / 2, middles), weights
