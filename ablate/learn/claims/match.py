"""Which cells of a study stand on either side of a contrast, all else equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from ablate.learn.claims.values import Contrast, Selector, selects, words
from trainables.spec import Scalar

Values = Mapping[str, Scalar]
Table = Mapping[str, tuple[Values, Mapping[str, NDArray[np.float64]]]]
"""Cell name -> (flat values without tuned keys and seed, metric key -> scores [seeds, queries])."""


@dataclass(frozen=True)
class Sides:
    """Weight of every cell in the contrast, and the metric keys it is the mean over."""

    weights: Mapping[str, float]
    metrics: tuple[str, ...]


def match(contrast: Contrast, table: Table) -> Sides | str:
    """The sides of a contrast in a study, or a sentence that says what the study lacks."""
    conditions = [contrast.where] if contrast.versus is None else [contrast.where, contrast.versus]
    signs = (1.0, -1.0)
    corners: list[tuple[Selector, float]] = [
        ({**condition, **side}, sign * way)
        for condition, sign in zip(conditions, signs, strict=False)
        for side, way in ((contrast.left, 1.0), (contrast.right, -1.0))
    ]
    found = [
        {name: values for name, (values, _) in table.items() if selects(selector, values)}
        for selector, _ in corners
    ]
    for (selector, _), cells in zip(corners, found, strict=True):
        if not cells:
            return f"no cell has {words(selector)}"
    metrics = _metrics(contrast.metric, table, [name for cells in found for name in cells])
    if not metrics:
        return f"its cells share no scores on {contrast.metric}"
    strata = _strata(contrast, found)
    shared = [stratum for stratum in strata[0] if all(stratum in other for other in strata)]
    if not shared:
        return (
            f"no two cells differ in {words(contrast.left)} against {words(contrast.right)} alone"
        )
    weights: dict[str, float] = {}
    for (_, sign), cells_by_stratum in zip(corners, strata, strict=True):
        for stratum in shared:
            cells_here = cells_by_stratum[stratum]
            for name in cells_here:
                part = sign / len(shared) / len(cells_here)
                weights[name] = weights.get(name, 0.0) + part
    if not any(weights.values()):
        return "both sides are the same cells"
    return Sides({name: weights[name] for name in table if name in weights}, metrics)


def _metrics(pattern: str, table: Table, names: list[str]) -> tuple[str, ...]:
    """The metric keys of the pattern that all these cells have."""
    shared = set.intersection(*(set(table[name][1]) for name in names))
    return tuple(sorted(key for key in shared if fnmatchcase(key, pattern)))


def _strata(
    contrast: Contrast, corners: list[dict[str, Values]]
) -> list[dict[tuple[Scalar, ...], list[str]]]:
    """Per corner, its cells by their values of all keys that must be equal."""
    everyone = [values for cells in corners for values in cells.values()]
    shared = set.intersection(*(set(values) for values in everyone))
    named = {*contrast.left, *contrast.right}
    if contrast.versus is not None:
        named |= {*contrast.where, *contrast.versus}
    matched = sorted(shared - named - {"seed"})
    strata: list[dict[tuple[Scalar, ...], list[str]]] = []
    for cells in corners:
        groups: dict[tuple[Scalar, ...], list[str]] = {}
        for name, values in cells.items():
            groups.setdefault(tuple(values[key] for key in matched), []).append(name)
        strata.append(groups)
    return strata
