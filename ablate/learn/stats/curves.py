"""Quality against cost, and two metrics against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from ablate.learn.stats.cells import Floats, Scores, reduce
from ablate.learn.stats.errors import Contrasts, Errors, Scope
from ablate.learn.stats.family import check_level, holm
from ablate.learn.stats.tables import Table
from trainables.errors import InvalidInput, Problem, nearest


@dataclass(frozen=True)
class BreakEven:
    """The least cost at which quality reaches the target; infinite where it never does.

    `low` and `high` bound it with confidence 1 - alpha. `reached` is the share of the draws of
    all errors in which some cost reaches the target.
    """

    cost: float
    low: float
    high: float
    reached: float
    scope: Scope


def break_even(
    scores: Scores,
    costs: Mapping[str, float],
    target: str | float,
    margin: float = 0.0,
    alpha: float = 0.05,
    seed: int = 0,
) -> BreakEven:
    """Where the curve of quality against cost meets the target, less `margin`.

    `costs` maps cells to what they cost (human labels, money, hours); `target` is a cell, such as
    the one with all labels, or a score. Quality is made to rise with cost by isotonic regression
    and read linearly between the costs. The interval is that of the same reading over joint draws
    of the errors of `compare`, so it holds seeds and queries.

    Raises InvalidInput for unknown cells, fewer than two costs, equal or non-finite costs.
    """
    check_level(alpha)
    _check_costs(scores, costs, target, margin)
    names = sorted((name for name in costs if name != target), key=lambda name: costs[name])
    errors, quality = _quality(scores, names, target, seed)
    points = np.array([costs[name] for name in names])
    drawn = quality - np.concatenate(list(errors.joint()))
    if isinstance(target, str) and target in costs:
        # The target reaches itself without error.
        place = int(np.searchsorted(points, costs[target]))
        points = np.insert(points, place, costs[target])
        quality, drawn = np.insert(quality, place, 0.0), np.insert(drawn, place, 0.0, axis=1)
    found = _crossings(points, drawn, -margin)
    low, high = np.quantile(found, [alpha / 2, 1 - alpha / 2], method="inverted_cdf")
    return BreakEven(
        cost=float(_crossings(points, quality[None], -margin)[0]),
        low=float(low),
        high=float(high),
        reached=float(np.isfinite(found).mean()),
        scope=min(errors.scopes),
    )


def _quality(
    scores: Scores, names: Sequence[str], target: str | float, seed: int
) -> tuple[Errors, Floats]:
    """The errors, and how far each named cell's mean lies above the target."""
    cells = reduce(scores)
    if isinstance(target, str):
        errors = Errors.of_pairs(cells, [(name, target) for name in names], seed)
        return errors, errors.effects
    alone = np.array([cells.names.index(name) for name in names])
    errors = Errors(cells, Contrasts.alone(alone), seed)
    return errors, errors.effects - target


@dataclass(frozen=True)
class FrontPoint:
    """A cell in the plane of two metrics, both better when higher.

    `on_front`: no cell's means are at least as good in both and better in one. `beaten_by`: the
    cell that is surely better in both, if any, family-wise over all pairs of cells.
    """

    cell: str
    first: float
    second: float
    on_front: bool
    beaten_by: str | None


def pareto(first: Scores, second: Scores, alpha: float = 0.05, seed: int = 0) -> Table[FrontPoint]:
    """The Pareto front of two metrics of the same cells, best in the first metric first.

    That one cell beats another in both metrics is tested by the larger of the two one-sided
    p-values (an intersection-union test), with Holm over all ordered pairs.

    Raises InvalidInput when the metrics have different cells.
    """
    check_level(alpha)
    if list(first) != list(second):
        rule = "must have the same cells in the same order"
        raise InvalidInput([Problem("second", rule, list(second))])
    pairs = list(permutations(first, 2))
    ones, twos = (_one_sided(scores, pairs, seed) for scores in (first, second))
    adjusted = holm(np.maximum(ones, twos))
    beaten: dict[str, tuple[float, str]] = {}
    for (better, worse), p in zip(pairs, adjusted, strict=True):
        if p <= alpha and (worse not in beaten or p < beaten[worse][0]):
            beaten[worse] = (float(p), better)
    x, y = reduce(first).means, reduce(second).means
    rows = [
        FrontPoint(
            cell=name,
            first=float(x[i]),
            second=float(y[i]),
            on_front=not bool(((x >= x[i]) & (y >= y[i]) & ((x > x[i]) | (y > y[i]))).any()),
            beaten_by=beaten[name][1] if name in beaten else None,
        )
        for i, name in enumerate(first)
    ]
    return Table(FrontPoint, sorted(rows, key=lambda row: -row.first))


def _one_sided(scores: Scores, pairs: list[tuple[str, str]], seed: int) -> Floats:
    errors = Errors.of_pairs(reduce(scores), pairs, seed)
    return errors.tails(errors.effects)


def _crossings(costs: Floats, quality: Floats, level: float) -> Floats:
    """[B] least cost at which the isotonic curve through each row of `quality` is at `level`."""
    curve = isotonic(quality)
    reached = curve >= level
    first = reached.argmax(axis=1)
    rows = np.arange(len(curve))
    before = np.maximum(first - 1, 0)
    low, high = curve[rows, before], curve[rows, first]
    part = (level - low) / np.where(high > low, high - low, 1.0)
    between = costs[before] + np.clip(part, 0.0, 1.0) * (costs[first] - costs[before])
    found = np.where(first == 0, costs[0], between)
    return np.where(reached.any(axis=1), found, np.inf)


def isotonic(values: Floats) -> Floats:
    """[B, X] the rising curve nearest to each row of `values` [B, X] in least squares.

    By the max-min formula: the fit at x is the largest over starts up to x of the smallest over
    ends from x of the mean between them (Barlow and others, 1972).
    """
    width = values.shape[1]
    sums = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)
    fitted = np.full(values.shape, -np.inf)
    for start in range(width):
        lengths = np.arange(1, width - start + 1)
        means = (sums[:, start + 1 :] - sums[:, start, None]) / lengths
        smallest = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]
        fitted[:, start:] = np.maximum(fitted[:, start:], smallest)
    return fitted


def _check_costs(
    scores: Scores, costs: Mapping[str, float], target: str | float, margin: float
) -> None:
    known = list(scores)
    problems = [
        Problem(f"costs[{name!r}]", "names no cell of scores", None, nearest(name, known))
        for name in costs
        if name not in scores
    ]
    if isinstance(target, str) and target not in scores:
        problems.append(Problem("target", "names no cell", target, nearest(target, known)))
    if len(costs) < 2:
        problems.append(Problem("costs", "must price at least two cells", len(costs)))
    if len(set(costs.values())) < len(costs) or not np.isfinite(list(costs.values())).all():
        problems.append(Problem("costs", "must be finite and all different", dict(costs)))
    if not margin >= 0:
        problems.append(Problem("margin", "must not be negative", margin))
    if problems:
        raise InvalidInput(problems)
