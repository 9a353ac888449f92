"""The error of a contrast between cells: its distribution, its quantiles, its joint behaviour.

For a contrast sum_c w[c] * mean[c] over cells with K[c] seeds and n queries, the variance of the
estimate is

    sum_c w[c]^2 * seed variance[c] / K[c]  +  query variance / n

The first part is known from few degrees of freedom, through draws of `seeds.py`; the second, the
variance over queries of the true contrast, is what the per-query contrast varies by, less the
interaction that it holds too and that the seed variance counts already. Given both, the error is
normal; mixed over what is unknown of them, it has the heavy tails that few seeds deserve. With one
component this is Student's t; with two, the Behrens-Fisher distribution, whose tests are exact
where one component rules and err on the safe side between (Robinson, "Properties of Student's t
and of the Behrens-Fisher solution to the two means problem", 1976).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy import special

from ablate.learn.stats.cells import Cells, Floats, Integers, positions
from ablate.learn.stats.seeds import draw_seed_variances

Scope = Literal["method", "borrowed", "checkpoints"]
"""What a verdict is about. `method`: the training methods; every cell has several seeds.
`borrowed`: the methods, but a cell has one seed and the other cells' seed variance stands in.
`checkpoints`: these very checkpoints; no cell has two seeds, so nothing is known of training them
again, and a difference is not one between methods."""

DRAWS = 4096
"""Draws of the variances."""
JOINT = 5
"""Joint errors per draw of the variances, in families of up to MANY contrasts; else one."""
MANY = 10_000
_BLOCK = 4_000_000
"""Numbers held at once in a work array."""
_TINY = 1e-300


@dataclass(frozen=True)
class Contrasts:
    """P weighted sums of the means of C cells, kept sparse for pairs and dense otherwise."""

    cells: Integers
    """[P, M] rows of the cells in each sum; empty when `dense` is given."""
    weights: Floats
    """[M] their weights, the same in every sum."""
    dense: Floats | None = None
    """[P, C] weights of all cells."""

    @classmethod
    def pairs(cls, rows: Integers) -> Contrasts:
        """mean[a] - mean[b] for every row (a, b) of `rows` [P, 2]."""
        return cls(rows, np.array([1.0, -1.0]))

    @classmethod
    def alone(cls, rows: Integers) -> Contrasts:
        """mean[c] for every c of `rows` [P]."""
        return cls(rows[:, None], np.ones(1))

    @classmethod
    def of(cls, weights: Floats) -> Contrasts:
        """The sums with a matrix of weights [P, C]."""
        return cls(np.empty((0, 0), np.int64), np.empty(0), weights)

    def __len__(self) -> int:
        return len(self.cells) if self.dense is None else len(self.dense)

    def part(self, rows: slice) -> Contrasts:
        """Some of the contrasts."""
        if self.dense is not None:
            return Contrasts.of(self.dense[rows])
        return Contrasts(self.cells[rows], self.weights)

    def apply(self, values: Floats, power: int = 1) -> Floats:
        """[..., P] sum over cells of weight**power times `values` [..., C]."""
        if self.dense is not None:
            return np.asarray(values @ (self.dense**power).T)
        total = self.weights[0] ** power * values[..., self.cells[:, 0]]
        for place in range(1, self.cells.shape[1]):
            total += self.weights[place] ** power * values[..., self.cells[:, place]]
        return np.asarray(total)


@dataclass(frozen=True)
class Parts:
    """[P] parts of an error's variance: what more seeds, either, or more queries would lower."""

    seeds: Floats
    interaction: Floats
    queries: Floats


class Errors:
    """What is known of the errors of a family's contrasts; everything random comes from `seed`."""

    def __init__(
        self, cells: Cells, contrasts: Contrasts, seed: int, draws: int = DRAWS, joint: int = JOINT
    ) -> None:
        self.cells, self.contrasts = cells, contrasts
        self._rng = np.random.default_rng(seed)
        self._joint = joint if len(contrasts) <= MANY else 1
        self._seeds = draw_seed_variances(cells, draws, self._rng) / cells.seeds
        self._shrink = self._query_draws(draws)
        self.effects = contrasts.apply(cells.means)
        self._by_set = self._query_variances()
        self.by_query = self._by_set.sum(axis=0)
        self._lent = contrasts.apply(cells.interaction / cells.seeds / cells.queries, power=2)

    @classmethod
    def of_pairs(cls, cells: Cells, pairs: Sequence[tuple[str, str]], seed: int) -> Errors:
        """The errors of mean(a) - mean(b) for every pair; InvalidInput for an unknown name."""
        return cls(cells, Contrasts.pairs(positions(cells, pairs)), seed)

    @property
    def repeated(self) -> bool:
        """Whether any cell has two seeds; if none has, errors are over queries only."""
        return bool((self.cells.freedom > 0).any())

    @cached_property
    def scopes(self) -> list[Scope]:
        """Per contrast, what its verdict is about."""
        if not self.repeated:
            return ["checkpoints"] * len(self.contrasts)
        alone = self.contrasts.apply((self.cells.freedom == 0).astype(np.float64), power=2)
        return ["borrowed" if single else "method" for single in alone > 0]

    @cached_property
    def seed_shares(self) -> Floats:
        """[P] share of each error's variance that more seeds would lower and more queries not."""
        parts = self.parts()
        whole = parts.seeds + parts.interaction + parts.queries
        return np.asarray(parts.seeds / np.maximum(whole, _TINY))

    def parts(self) -> Parts:
        """The variance of each contrast's error by its origin, the seeds' at its median draw."""
        lone = self.cells.interaction / self.cells.seeds / self.cells.queries
        seeds = np.maximum(np.median(self._seeds, axis=0) - lone, 0.0)
        return Parts(
            seeds=self.contrasts.apply(seeds, power=2),
            interaction=self._lent,
            queries=np.maximum(self.by_query - self._lent, 0.0),
        )

    def p_values(self, distances: Floats | None = None) -> Floats:
        """[P] two-sided p-values of `distances` [P] from 0, those of the effects when None."""
        beyond = self.effects if distances is None else distances
        return np.asarray(np.minimum(2 * self.tails(np.abs(beyond)), 1.0))

    def tails(self, distances: Floats) -> Floats:
        """[P] probability that an error is beyond `distances` [P] on one given side."""
        if not self._seeds.any():
            sd = np.sqrt(np.maximum(self.by_query, _TINY))
            return np.asarray(special.stdtr(self.query_freedom(), -distances / sd))
        found = np.empty(len(self.contrasts))
        for rows in self._blocks(len(self._seeds)):
            sd = np.sqrt(self._variances(rows))
            found[rows] = special.ndtr(-distances[rows] / sd).mean(axis=0)
        return found

    def reaches(self, level: float) -> Floats:
        """[P] distance that an error exceeds, on either side, with probability `level`."""
        if not self._seeds.any():
            quantile = -special.stdtrit(self.query_freedom(), level / 2)
            return np.asarray(quantile * np.sqrt(self.by_query))
        found = np.empty(len(self.contrasts))
        for rows in self._blocks(len(self._seeds)):
            sds = np.sqrt(self._variances(rows))
            found[rows] = mixture_reach(sds, np.full(len(sds), 1 / len(sds)), level)
        return found

    def joint(self) -> Iterator[Floats]:
        """Blocks [b, P] of joint draws of all contrasts' errors."""
        size = max(1, _BLOCK // max(len(self.contrasts), len(self.cells.names)))
        root = self._query_root()
        for start in range(0, len(self._seeds), size):
            block = slice(start, start + size)
            inner = np.maximum(
                self._seeds[block] - self.cells.interaction / self.cells.seeds / self.cells.queries,
                0.0,
            )
            drawn = self.by_query + self.contrasts.apply(inner, power=2)
            target = self._variances(slice(None), block)
            # Means of cells are drawn with both parts kept positive cell by cell; each contrast
            # is then brought to its own variance, in which they may offset each other.
            stretch = np.sqrt(target / np.maximum(drawn, _TINY))
            for _ in range(self._joint):
                errors = self._rng.standard_normal((len(inner), root.shape[1])) @ root.T
                errors += np.sqrt(inner) * self._rng.standard_normal(inner.shape)
                yield self.contrasts.apply(errors) * stretch

    def _variances(self, rows: slice, block: slice = slice(None)) -> Floats:
        """[draws, P] variances of the errors of some contrasts."""
        part = self.contrasts.part(rows)
        seeds = part.apply(self._seeds[block], power=2)
        queries = self._shrink[block] @ self._by_set[:, rows] - self._lent[rows]
        return np.asarray(np.maximum(seeds + np.maximum(queries, 0.0), _TINY))

    def _query_draws(self, draws: int) -> Floats:
        """[draws, S] (n - 1) / chi2(n - 1) of every set of n queries, evenly spread: the doubt of a
        variance over queries."""
        drawn = []
        for size in self.cells.sets:
            marks = self._rng.permutation((np.arange(draws) + 0.5) / draws)
            drawn.append((size - 1) / (2 * special.gammaincinv((size - 1) / 2, marks)))
        return np.stack(drawn, axis=1)

    def _query_variances(self) -> Floats:
        """[S, P] variance of the mean, over queries, of the per-query contrasts, by set."""
        found = np.empty((len(self.cells.sets), len(self.contrasts)))
        by_query = np.ascontiguousarray(self.cells.centred().T)
        weights, starts = self.cells.query_weights, np.cumsum((0, *self.cells.sets))[:-1]
        for rows in self._blocks(self.cells.queries):
            each = self.contrasts.part(rows).apply(by_query)
            each *= each
            each *= weights[:, None]
            found[:, rows] = np.add.reduceat(each, starts, axis=0)
        return found

    def query_freedom(self) -> Floats:
        """[P] degrees of freedom of `by_query`; of several sets by Satterthwaite (1946)."""
        own = np.array(self.cells.sets)[:, None] - 1
        doubt = (self._by_set**2 / own).sum(axis=0)
        known = doubt > 0
        found = self.by_query**2 / np.where(known, doubt, 1.0)
        return np.asarray(np.where(known, found, own.sum()))

    def _query_root(self) -> Floats:
        """[C, R] a root of the covariance, over queries, of the cells' means."""
        centred = self.cells.centred() * np.sqrt(self.cells.query_weights)
        if len(centred) >= centred.shape[1]:
            return np.asarray(centred)
        values, vectors = np.linalg.eigh(centred @ centred.T)
        return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))

    def _blocks(self, width: int) -> Iterator[slice]:
        """Slices of the contrasts that keep arrays [width, rows] small."""
        size = max(1, _BLOCK // width)
        return (slice(start, start + size) for start in range(0, len(self.contrasts), size))


def mixture_reach(sds: Floats, weights: Floats, level: float) -> Floats:
    """[P] the x at which a mixture of centred normals lies beyond -x and x with chance `level`.

    `sds` [J, P] are the standard deviations, `weights` [J] theirs in the mixture. By Newton's
    method on the logarithm of the tail, kept within a bracket.
    """
    quantile = -special.ndtri(level / 2)
    low, high = quantile * sds.min(axis=0), quantile * sds.max(axis=0)
    x = np.clip(quantile * np.sqrt(weights @ sds**2), low, high)
    for _ in range(60):
        scaled = x / sds
        tail = 2 * (weights @ special.ndtr(-scaled))
        slope = np.sqrt(2 / np.pi) * (weights @ (np.exp(-(scaled**2) / 2) / sds))
        low, high = np.where(tail > level, x, low), np.where(tail > level, high, x)
        step = x + tail * np.log(np.maximum(tail, _TINY) / level) / np.maximum(slope, _TINY)
        if np.all(np.abs(step - x) <= 1e-7 * x):
            break
        x = np.where((step >= low) & (step <= high), step, (low + high) / 2)
    return np.asarray(x)
