"""Which cells of a study stand on either side of a contrast, all else equal."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from ablate.learn.claims.values import Contrast, Selector, selects, words
from ablate.learn.scores import split_key
from trainables.data.collections.refs import plain_label
from trainables.errors import InvalidInput, Problem
from trainables.evaluation.means import beir_sets
from trainables.spec import Scalar

Values = Mapping[str, Scalar]
Scored = Mapping[str, NDArray[np.float64]]
"""Metric key -> scores [seeds, queries]. Where some trials lack scores, rows are the same trials in
every key and a row of NaN is one that lacks them."""
Table = Mapping[str, tuple[Values, Scored]]
"""Cell name -> (flat values without tuned keys and seed, its scores)."""


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
    if isinstance(metrics, str):
        return metrics
    whole = {name for cells in found for name in cells if together(table[name][1], metrics)}
    found = [{name: cells[name] for name in cells if name in whole} for cells in found]
    if not all(found):
        return f"a side has no trial with scores on all of {contrast.metric}"
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


def together(scored: Scored, keys: Sequence[str]) -> list[NDArray[np.float64]]:
    """A cell's scores on each of `keys`, of the trials that have them all; empty without any.

    Raises InvalidInput when the rows of the keys cannot be the same trials.
    """
    arrays = [scored[key] for key in keys]
    counts = [len(array) for array in arrays]
    if len(set(counts)) != 1:
        raise InvalidInput([Problem("table", "must have a row a trial in every key", counts)])
    whole = ~np.any([np.isnan(array).all(axis=1) for array in arrays], axis=0)
    return [array[whole] for array in arrays] if whole.any() else []


def matching(pattern: str, keys: Iterable[str]) -> list[str]:
    """Those of `keys` that the metric of a claim means: itself, or what its `*` stands for.

    A pattern without `:` means splits by their own judgements and the threshold 1. A mean over sets
    is matched by its own name alone: beside its sets it would count them twice.
    """
    keys = list(keys)
    means = beir_sets(split_key(key)[0] for key in keys)
    return [key for key in keys if key == pattern or _stands_for(pattern, key, means)]


def _stands_for(pattern: str, key: str, means: Container[str]) -> bool:
    label, _ = split_key(key)
    plain = ":" in pattern or plain_label(label) == label
    return plain and label not in means and fnmatchcase(key, pattern)


def _metrics(pattern: str, table: Table, names: list[str]) -> tuple[str, ...] | str:
    """The metric keys of the pattern that all these cells have; a sentence when there are none, or
    several of one split: their queries are the same, and a mean over them is not one over sets."""
    shared = set.intersection(*(set(table[name][1]) for name in names))
    keys = tuple(sorted(matching(pattern, shared)))
    by_split: dict[str, list[str]] = {}
    for label, _ in map(split_key, keys):
        by_split.setdefault(plain_label(label), []).append(label)
    for split, labels in by_split.items():
        if len(labels) > 1:
            found = " and ".join(labels)
            return f"{pattern} names the queries of {split} more than once, as {found}: name one"
    return keys or f"its cells share no scores on {pattern}"


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
