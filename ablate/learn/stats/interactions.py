"""Does the better level of one factor depend on another, and where does the winner change?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ablate.learn.stats.cells import Floats, Scores, reduce
from ablate.learn.stats.design import Design, Grid, Level, grid_of
from ablate.learn.stats.errors import Contrasts, Errors, Scope
from ablate.learn.stats.family import Family, check_level, family
from ablate.learn.stats.tables import Table
from trainables.errors import InvalidInput, Problem


@dataclass(frozen=True)
class Interaction:
    """A difference of differences: (row_a - row_b at column_a) - (row_a - row_b at column_b).

    `effect_a` and `effect_b` are the two differences. `crossover`: both differ from 0, family-wise
    over all differences of the table, and point in opposite directions.
    """

    row_a: Level
    row_b: Level
    column_a: Level
    column_b: Level
    effect: float
    low: float
    high: float
    p: float
    p_adjusted: float
    different: bool
    effect_a: float
    effect_b: float
    crossover: bool
    scope: Scope


@dataclass(frozen=True)
class Winner:
    """The row that scores best at one column. `lead` is over the runner-up, with its interval.

    `clear`: the winner differs from every other row at this column, family-wise over the table.
    `chance`: share of the draws of all errors in which this row is the best one; it does not
    allow for having looked at several columns.
    """

    column: Level
    winner: Level
    runner_up: Level
    lead: float
    low: float
    high: float
    clear: bool
    chance: float


@dataclass(frozen=True)
class Profile:
    """The mean of `row` at `column`, and how far it lies from the mean of all rows there."""

    row: Level
    column: Level
    mean: float
    effect: float
    low: float
    high: float


def interaction(
    scores: Scores, design: Design, row: str, column: str, alpha: float = 0.05, seed: int = 0
) -> Table[Interaction]:
    """Every difference of differences of two factors, corrected together.

    `design` gives each cell's values; `row` and `column` are two keys in which cells differ, such
    as `loss.name` and `loss.temperature`. Where further factors vary, the difference is the mean
    over those of their combinations that all four corners have.

    Raises InvalidInput for unknown keys, and when no four cells form a rectangle.
    """
    check_level(alpha)
    cells = reduce(scores)
    grid = grid_of(cells, design, (row, column))
    corners = _rectangles(grid, row, column)
    top = np.stack([corner.first for corner in corners])
    bottom = np.stack([corner.second for corner in corners])
    errors = Errors(cells, Contrasts.of(top - bottom), seed)
    found = family(errors, alpha)
    simple = Errors(cells, Contrasts.of(np.concatenate([top, bottom])), seed)
    signs = np.sign(simple.effects) * (family(simple, alpha).p_adjusted <= alpha)
    size = len(corners)
    rows = [
        Interaction(
            *corner.levels,
            effect=float(errors.effects[i]),
            low=float(errors.effects[i] - found.reach[i]),
            high=float(errors.effects[i] + found.reach[i]),
            p=float(found.p[i]),
            p_adjusted=float(found.p_adjusted[i]),
            different=bool(found.p_adjusted[i] <= alpha),
            effect_a=float(simple.effects[i]),
            effect_b=float(simple.effects[size + i]),
            crossover=bool(signs[i] * signs[size + i] < 0),
            scope=errors.scopes[i],
        )
        for i, corner in enumerate(corners)
    ]
    return Table(Interaction, rows)


def profiles(
    scores: Scores, design: Design, row: str, column: str, alpha: float = 0.05, seed: int = 0
) -> Table[Profile]:
    """Every row's mean at every column, against the mean of the rows there, interval 1 - alpha.

    That difference is free of how hard the queries are, which moves all rows alike. Further
    factors are averaged over, and columns left out, as in `winners`. Raises InvalidInput as
    `interaction` does.
    """
    check_level(alpha)
    cells = reduce(scores)
    columns = _columns(grid_of(cells, design, (row, column)), row, column)
    places = [(level, name) for level, means in columns.items() for name in means]
    weights = np.stack([columns[level][name] for level, name in places])
    centre = np.stack([np.mean(list(columns[level].values()), axis=0) for level, _ in places])
    errors = Errors(cells, Contrasts.of(weights - centre), seed)
    reach = errors.reaches(alpha)
    rows = [
        Profile(
            row=name,
            column=level,
            mean=float(weights[i] @ cells.means),
            effect=float(errors.effects[i]),
            low=float(errors.effects[i] - reach[i]),
            high=float(errors.effects[i] + reach[i]),
        )
        for i, (level, name) in enumerate(places)
    ]
    return Table(Profile, rows)


def winners(
    scores: Scores, design: Design, row: str, column: str, alpha: float = 0.05, seed: int = 0
) -> Table[Winner]:
    """The best level of `row` at every level of `column`, and how sure that is.

    Further factors are averaged over, at each column, over the combinations that all its rows
    have. Columns with fewer than two rows are left out. Raises InvalidInput as `interaction` does.
    """
    check_level(alpha)
    cells = reduce(scores)
    grid = grid_of(cells, design, (row, column))
    columns = _columns(grid, row, column)
    labels, weights = [], []
    for level, means in columns.items():
        for a, b in combinations(means, 2):
            labels.append((level, a, b))
            weights.append(means[a] - means[b])
    errors = Errors(cells, Contrasts.of(np.stack(weights)), seed)
    found = family(errors, alpha)
    drawn = np.concatenate(list(errors.joint()))
    rows = [
        _winner(level, list(means), labels, errors.effects, found, drawn, alpha)
        for level, means in columns.items()
    ]
    return Table(Winner, rows)


def _winner(
    column: Level,
    rows: Sequence[Level],
    labels: Sequence[tuple[Level, Level, Level]],
    effects: Floats,
    found: Family,
    drawn: Floats,
    alpha: float,
) -> Winner:
    """The winner of one column among pairwise differences of its rows."""
    place = {label[1:]: i for i, label in enumerate(labels) if label[0] == column}
    sides = {
        (a, b): (place[a, b], 1) if (a, b) in place else (place[b, a], -1)
        for a in rows
        for b in rows
        if a != b
    }
    best = max(rows, key=lambda a: min(_signed(effects, sides[a, b]) for b in rows if b != a))
    others = [b for b in rows if b != best]
    second = min(others, key=lambda b: _signed(effects, sides[best, b]))
    at, sign = sides[best, second]
    lead = float(sign * effects[at])
    wins = np.ones(len(drawn), bool)
    for other in others:
        index, way = sides[best, other]
        wins &= way * (effects[index] - drawn[:, index]) > 0
    return Winner(
        column=column,
        winner=best,
        runner_up=second,
        lead=lead,
        low=lead - float(found.reach[at]),
        high=lead + float(found.reach[at]),
        clear=all(found.p_adjusted[sides[best, other][0]] <= alpha for other in others),
        chance=float(wins.mean()),
    )


def _signed(effects: Floats, side: tuple[int, int]) -> float:
    return side[1] * float(effects[side[0]])


@dataclass(frozen=True)
class _Rectangle:
    """Two rows at two columns, and the weights of the rows' difference at either column."""

    levels: tuple[Level, Level, Level, Level]
    first: Floats
    second: Floats


def _rectangles(grid: Grid, row: str, column: str) -> list[_Rectangle]:
    """Every two rows at every two columns of which all four corners share a stratum."""
    found = []
    for a, b in combinations(grid.levels[row], 2):
        for c, d in combinations(grid.levels[column], 2):
            corners = [grid.strata({row: r, column: k}) for k in (c, d) for r in (a, b)]
            shared = set(corners[0]).intersection(*corners[1:])
            if shared:
                means = [_mean_of(grid, [corner[s] for s in shared]) for corner in corners]
                first, second = means[0] - means[1], means[2] - means[3]
                found.append(_Rectangle((a, b, c, d), first, second))
    if not found:
        rule = "must have two levels of each key with all four combinations present"
        raise InvalidInput([Problem("design", rule, f"{row} x {column}")])
    return found


def _columns(grid: Grid, row: str, column: str) -> dict[Level, dict[Level, Floats]]:
    """Per column with two rows or more, the weights of each row's mean there."""
    columns = {level: _row_means(grid, row, column, level) for level in grid.levels[column]}
    columns = {level: means for level, means in columns.items() if len(means) > 1}
    if not columns:
        rule = "must have two rows with the same other values at some column"
        raise InvalidInput([Problem("design", rule, f"{row} x {column}")])
    return columns


def _row_means(grid: Grid, row: str, column: str, level: Level) -> dict[Level, Floats]:
    """Per row level, the weights of its mean at a column, over what all present rows share."""
    strata = {r: grid.strata({row: r, column: level}) for r in grid.levels[row]}
    strata = {r: found for r, found in strata.items() if found}
    if not strata:
        return {}
    shared = set.intersection(*(set(found) for found in strata.values()))
    if not shared:
        return {}
    return {r: _mean_of(grid, [found[s] for s in shared]) for r, found in strata.items()}


def _mean_of(grid: Grid, cells: Sequence[int]) -> Floats:
    weights: NDArray[np.float64] = np.zeros(len(grid.points))
    weights[list(cells)] = 1 / len(cells)
    return weights
