"""How much each factor matters: the variance over a full grid, split by factors and seed noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations, product

import numpy as np

from ablate.learn.stats.cells import Cells, Floats, Scores, reduce
from ablate.learn.stats.design import Design, Grid, grid_of
from ablate.learn.stats.errors import Contrasts, Errors
from ablate.learn.stats.family import holm
from ablate.learn.stats.tables import Table
from trainables.errors import InvalidInput, Problem


@dataclass(frozen=True)
class Effect:
    """The part of the grid's variance that belongs to one set of factors.

    One factor is a main effect, several are an interaction, none is the seed noise of a trial: what
    all queries share of it, without what single queries add and other queries would not. `sd` is
    in units of the metric: how far cells lie apart through these factors. `share` is of the
    variance of a trial's expected score over the whole grid; the shares sum to 1. `p` tests that
    the effect is 0 (1 for seed noise, which is not tested); `p_adjusted` is Holm's over all.
    """

    factors: tuple[str, ...]
    sd: float
    share: float
    p: float
    p_adjusted: float


def importance(scores: Scores, design: Design, seed: int = 0) -> Table[Effect]:
    """The functional analysis of variance of a full factorial grid, largest share first.

    The expected scores of the cells are the sum of a main effect per factor and an interaction
    per set of factors; each row's variance is the mean square of its effect over the grid, less
    what the errors of the cells' means would put there, and at least 0.

    Raises InvalidInput naming the combinations that the grid lacks.
    """
    cells = reduce(scores)
    grid = grid_of(cells, design)
    order = _full_order(cells, grid)
    shape = tuple(len(grid.levels[factor]) for factor in grid.factors)
    sets = list(
        chain.from_iterable(combinations(range(len(shape)), k + 1) for k in range(len(shape)))
    )
    means = _split(cells.means[order].reshape(1, *shape), sets)
    profiles = _split(cells.centred()[order].T.reshape(-1, *shape), sets)
    freedom = cells.freedom
    excess = cells.seed_variance - cells.interaction / cells.queries
    lone = float((freedom * excess).sum() / max(int(freedom.sum()), 1))
    extra = (np.where(freedom > 0, excess, lone) / cells.seeds).mean()
    degrees = [int(np.prod([shape[i] - 1 for i in subset])) for subset in sets]
    noise = profiles @ cells.query_weights
    noise += np.array(degrees) / len(order) * extra
    variances = np.maximum(means[:, 0] - noise, 0.0)
    p = _p_values(cells, order, shape, sets, means[:, 0], seed)
    return _table(grid, sets, variances, max(lone, 0.0), p)


def _table(
    grid: Grid, sets: Sequence[tuple[int, ...]], variances: Floats, lone: float, p: Floats
) -> Table[Effect]:
    total = max(float(variances.sum()) + lone, 1e-300)
    adjusted = holm(p)
    rows = [
        Effect(
            factors=tuple(grid.factors[i] for i in subset),
            sd=float(np.sqrt(variances[place])),
            share=float(variances[place]) / total,
            p=float(p[place]),
            p_adjusted=float(adjusted[place]),
        )
        for place, subset in enumerate(sets)
    ]
    rows.append(Effect((), float(np.sqrt(lone)), lone / total, 1.0, 1.0))
    return Table(Effect, sorted(rows, key=lambda row: -row.share))


def _p_values(
    cells: Cells,
    order: Sequence[int],
    shape: tuple[int, ...],
    sets: Sequence[tuple[int, ...]],
    observed: Floats,
    seed: int,
) -> Floats:
    """Chance of effects at least as large from the errors of the cells' means alone."""
    count = len(order)
    spread = np.eye(count)[order] - 1 / count
    errors = Errors(cells, Contrasts.of(spread), seed)
    above, draws = np.zeros(len(sets)), 0
    for block in errors.joint():
        squares = _split(block.reshape(-1, *shape), sets)
        above += (squares >= observed[:, None]).sum(axis=1)
        draws += len(block)
    return np.asarray((1 + above) / (1 + draws))


def _split(values: Floats, sets: Sequence[tuple[int, ...]]) -> Floats:
    """[sets, B] mean square over the grid of each set's effect, for `values` [B, *grid]."""
    axes = range(1, values.ndim)
    squares = []
    for subset in sets:
        effect = values
        for axis in axes:
            mean = effect.mean(axis=axis, keepdims=True)
            effect = effect - mean if axis - 1 in subset else mean
        squares.append((effect**2).mean(axis=tuple(axes)))
    return np.stack(squares)


def _full_order(cells: Cells, grid: Grid) -> list[int]:
    """The cells in the grid's row-major order, or InvalidInput with the missing combinations."""
    if not grid.factors:
        raise InvalidInput([Problem("design", "has no factor that varies over the cells")])
    row = {point: index for index, point in enumerate(grid.points)}
    full = list(product(*(grid.levels[factor] for factor in grid.factors)))
    missing = [point for point in full if point not in row]
    if missing:
        rule = f"lacks {len(missing)} of {len(full)} combinations of {', '.join(grid.factors)}"
        seen = "; ".join(str(point) for point in missing[:5])
        raise InvalidInput([Problem("design", rule, seen)])
    return [row[point] for point in full]
