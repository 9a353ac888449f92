"""A grid of cells: which cells share which levels of which factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ablate.learn.stats.cells import Cells
from trainables.errors import InvalidInput, Problem, nearest

Level = str | int | float | bool | None
Design = Mapping[str, Mapping[str, Level]]
"""Cell name -> flat values of the trial, such as {"loss.name": "joint_lh", ...}."""


@dataclass(frozen=True)
class Grid:
    """The factors in which cells differ, and every cell's levels of them."""

    factors: tuple[str, ...]
    levels: Mapping[str, tuple[Level, ...]]
    """Per factor, its levels in order of appearance."""
    points: tuple[tuple[Level, ...], ...]
    """Per cell, its level of each factor."""

    def level(self, cell: int, factor: str) -> Level:
        return self.points[cell][self.factors.index(factor)]

    def strata(self, wanted: Mapping[str, Level]) -> dict[tuple[Level, ...], int]:
        """Cells with the wanted levels, by their levels of all other factors."""
        rest = [i for i, factor in enumerate(self.factors) if factor not in wanted]
        return {
            tuple(point[i] for i in rest): cell
            for cell, point in enumerate(self.points)
            if all(point[self.factors.index(f)] == level for f, level in wanted.items())
        }


def grid_of(cells: Cells, design: Design, needed: Sequence[str] = ()) -> Grid:
    """The grid of the cells by the factors that vary in `design`.

    Raises InvalidInput for cells without values, for needed factors that do not vary, and for
    cells that no factor tells apart.
    """
    problems = [
        Problem("design", "has no values for the cell", name)
        for name in cells.names
        if name not in design
    ]
    if problems:
        raise InvalidInput(problems)
    keys = dict.fromkeys(key for name in cells.names for key in design[name])
    values = {key: [design[name].get(key) for name in cells.names] for key in keys}
    factors = tuple(key for key in keys if len(dict.fromkeys(values[key])) > 1)
    for key in needed:
        if key not in factors:
            rule = f"does not vary over the cells; factors: {', '.join(factors) or 'none'}"
            problems.append(Problem("design", rule, key, nearest(key, factors)))
    points = tuple(zip(*(values[key] for key in factors), strict=True)) if factors else ()
    if len(set(points)) < len(cells.names):
        problems.append(Problem("design", "must tell every cell from every other"))
    if problems:
        raise InvalidInput(problems)
    levels = {key: tuple(dict.fromkeys(values[key])) for key in factors}
    return Grid(factors, levels, points)
