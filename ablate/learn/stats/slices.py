"""Effects within groups of queries: where a mean hides a loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ablate.learn.stats.cells import Floats, Scores, check, positions, reduce
from ablate.learn.stats.errors import Errors, Scope
from ablate.learn.stats.family import check_level, holm
from ablate.learn.stats.tables import Table
from trainables.errors import InvalidInput, Problem

FEWEST = 10
"""Queries below which a slice is shown without a test."""


@dataclass(frozen=True)
class Slice:
    """The effect mean(a) - mean(b) on the queries of one group.

    `different` is family-wise over all pairs and slices (Holm). `hidden_loss`: this slice's effect
    is different from 0 and points against the effect over all queries. A slice with fewer than
    FEWEST queries has an infinite interval and p = 1.
    """

    a: str
    b: str
    slice: str
    queries: int
    effect: float
    low: float
    high: float
    p: float
    p_adjusted: float
    different: bool
    hidden_loss: bool
    scope: Scope


def slices(
    scores: Scores,
    pairs: Sequence[tuple[str, str]],
    groups: ArrayLike | Mapping[str, ArrayLike],
    alpha: float = 0.05,
    seed: int = 0,
) -> Table[Slice]:
    """The effect of every pair within every group of queries, groups in order of appearance.

    `groups` [queries] labels each query, for instance by lexical overlap, number of positives or
    length; several such groupings by name are corrected together, and `NAME: LABEL` are their
    slices. Raises InvalidInput as `compare` does, and for labels that do not fit the queries.
    """
    check_level(alpha)
    arrays = check(scores)
    whole = reduce(arrays)
    rows = positions(whole, pairs)
    overall = whole.means[rows[:, 0]] - whole.means[rows[:, 1]]
    found = []
    for label, chosen in _labelled(groups, whole.queries):
        inside = {name: array[:, chosen] for name, array in arrays.items()}
        found += _slice(label, inside, pairs, alpha, seed)
    adjusted = holm(np.array([row.p for row in found]))
    return Table(
        Slice,
        [
            replace(
                row,
                p_adjusted=float(p),
                different=bool(p <= alpha),
                hidden_loss=bool(p <= alpha and row.effect * overall[index % len(pairs)] < 0),
            )
            for index, (row, p) in enumerate(zip(found, adjusted, strict=True))
        ],
    )


def _labelled(
    groups: ArrayLike | Mapping[str, ArrayLike], queries: int
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Every slice's name and which queries [queries] are in it."""
    named = groups if isinstance(groups, Mapping) else {"": groups}
    for name, column in named.items():
        labels = np.asarray(column).astype(str)
        if labels.shape != (queries,):
            rule = f"must label each of the {queries} queries"
            raise InvalidInput([Problem("groups", rule, labels.shape)])
        for label in dict.fromkeys(labels.tolist()):
            yield f"{name}: {label}" if name else label, labels == label


def _slice(
    label: str,
    scores: Mapping[str, Floats],
    pairs: Sequence[tuple[str, str]],
    alpha: float,
    seed: int,
) -> list[Slice]:
    """The rows of one slice, before correction."""
    means = {name: float(array.mean()) for name, array in scores.items()}
    queries = next(iter(scores.values())).shape[1]
    effects = np.array([means[a] - means[b] for a, b in pairs])
    reach, p = np.full(len(pairs), np.inf), np.ones(len(pairs))
    scopes: Sequence[Scope] = ["checkpoints"] * len(pairs)
    if queries >= FEWEST:
        errors = Errors.of_pairs(reduce(scores), pairs, seed)
        reach, scopes = errors.reaches(alpha), errors.scopes
        p = errors.p_values(effects)
    return [
        Slice(
            a=a,
            b=b,
            slice=label,
            queries=queries,
            effect=float(effects[i]),
            low=float(effects[i] - reach[i]),
            high=float(effects[i] + reach[i]),
            p=float(p[i]),
            p_adjusted=1.0,
            different=False,
            hidden_loss=False,
            scope=scopes[i],
        )
        for i, (a, b) in enumerate(pairs)
    ]
