"""Per-query scores of cells, reduced to the few numbers that every analysis starts from.

A cell is one training method. Its scores are an array [seeds, queries]: the seeds are repetitions
of its training and nest in the cell; the queries are the same ones, in the same order, in every
cell. The model behind all of `ablate.learn.stats` is

    score[c, k, q] = mean[c] + query effect[c, q] + seed effect[c, k] + interaction[c, k, q]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainables.errors import InvalidInput, Problem, nearest

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Scores = Mapping[str, ArrayLike]
"""Cell name -> per-query scores [seeds, queries]; one row of queries means one seed."""


@dataclass(frozen=True)
class Cells:
    """Sufficient statistics of C cells over n queries.

    `interaction` is the mean square of what is left of a score after its query's and its seed's
    mean: the variance of the seed-by-query interaction, known with (seeds - 1)(n - 1) degrees of
    freedom. `seed_variance` is the variance of the seeds' means; its expectation is the seed
    effect's variance plus interaction / n. Both are 0 where a cell has one seed.
    """

    names: tuple[str, ...]
    seeds: Integers
    """[C] number of seeds."""
    profile: Floats
    """[C, n] mean over the seeds, query by query."""
    means: Floats
    """[C] mean over seeds and queries."""
    seed_variance: Floats
    interaction: Floats
    sets: tuple[int, ...]
    """Number of queries of each set that the scores are a mean of, in their order; else one."""

    @property
    def queries(self) -> int:
        return int(self.profile.shape[1])

    @property
    def freedom(self) -> Integers:
        """[C] degrees of freedom of `seed_variance`."""
        return self.seeds - 1

    @property
    def query_weights(self) -> Floats:
        """[n] what the square of a centred query counts in the variance of a mean over queries.

        Of a mean of sets every set's variance is known from its own queries alone.
        """
        sizes = np.array(self.sets, dtype=np.float64)
        return np.repeat(sizes / (sizes - 1) / self.queries**2, self.sets)

    def centred(self) -> Floats:
        """[C, n] the profile without each cell's mean."""
        return self.profile - self.means[:, None]


def reduce(scores: Scores) -> Cells:
    """The statistics of every cell in `scores`.

    Raises InvalidInput naming every cell that is empty, not finite, of the wrong shape, or that
    has another number of queries than the first, or other sets.
    """
    arrays = check(scores)
    queries = next(iter(arrays.values())).shape[1]
    sets = [getattr(array, "sets", ()) or (queries,) for array in scores.values()]
    if len(set(sets)) > 1:
        raise InvalidInput([Problem("scores", "must all be means of the same sets", sets)])
    rows = [_moments(array) for array in arrays.values()]
    return Cells(
        names=tuple(arrays),
        seeds=np.array([len(array) for array in arrays.values()], dtype=np.int64),
        profile=np.stack([profile for profile, _, _ in rows]),
        means=np.array([profile.mean() for profile, _, _ in rows]),
        seed_variance=np.array([variance for _, variance, _ in rows]),
        interaction=np.array([interaction for _, _, interaction in rows]),
        sets=sets[0],
    )


def check(scores: Scores) -> dict[str, Floats]:
    """`scores` as float64 arrays [seeds, queries], or InvalidInput with every mistake."""
    arrays = {name: np.atleast_2d(np.asarray(array, np.float64)) for name, array in scores.items()}
    if not arrays:
        raise InvalidInput([Problem("scores", "must hold at least one cell")])
    queries = next(iter(arrays.values())).shape[-1]
    problems = []
    for name, array in arrays.items():
        key = f"scores[{name!r}]"
        if array.ndim != 2 or array.shape[0] < 1:
            problems.append(Problem(key, "must have the shape [seeds, queries]", array.shape))
        elif array.shape[1] != queries:
            rule = f"must have the first cell's {queries} queries, in the same order"
            problems.append(Problem(key, rule, array.shape[1]))
        elif array.shape[1] < 2:
            problems.append(Problem(key, "needs at least two queries", array.shape[1]))
        elif not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            rule = "must be finite (a query without a result scores 0); scores that are not"
            problems.append(Problem(key, rule, bad))
    if problems:
        raise InvalidInput(problems)
    return arrays


def positions(cells: Cells, pairs: Sequence[tuple[str, str]]) -> Integers:
    """[P, 2] the row of either cell of each pair, or InvalidInput with every unknown name."""
    row = {name: index for index, name in enumerate(cells.names)}
    problems = []
    for place, (a, b) in enumerate(pairs):
        for name in (a, b):
            if name not in row:
                hint = nearest(str(name), cells.names)
                problems.append(Problem(f"pairs[{place}]", "names no cell of scores", name, hint))
        if a == b:
            problems.append(Problem(f"pairs[{place}]", "compares a cell with itself", a))
    if problems:
        raise InvalidInput(problems)
    return np.array([(row[a], row[b]) for a, b in pairs], dtype=np.int64).reshape(-1, 2)


class Joined(np.ndarray[Any, np.dtype[np.float64]]):
    """Scores [seeds, queries] that are a mean of sets; `sets` has each one's number of queries.

    What is computed from it, or cut out of it, is an array of which that is not known.
    """

    sets: tuple[int, ...]

    def __array_finalize__(self, made_from: object) -> None:
        self.sets = ()


def mean_of_sets(parts: Sequence[ArrayLike]) -> Joined:
    """One cell's scores on several query sets, joined so that every set weighs the same.

    `parts` are arrays [seeds, queries of the set], rows being the same seeds in every set. The
    mean of the result [seeds, all queries] is the mean of the sets' means, seed by seed, and its
    variance over queries is that within the sets: the sets are fixed, their queries are a sample.
    """
    arrays = [np.atleast_2d(np.asarray(part, np.float64)) for part in parts]
    if len({len(array) for array in arrays}) != 1:
        counts = [len(array) for array in arrays]
        raise InvalidInput([Problem("parts", "must all have the same seeds", counts)])
    total = sum(array.shape[1] for array in arrays)
    middle = float(np.mean([array.mean() for array in arrays]))
    joined = [
        middle + (array - array.mean()) * (total / (len(arrays) * array.shape[1]))
        for array in arrays
    ]
    found = np.concatenate(joined, axis=1).view(Joined)
    known = [getattr(part, "sets", ()) for part in parts]
    found.sets = tuple(
        size for array, own in zip(arrays, known, strict=True) for size in own or (array.shape[1],)
    )
    return found


def _moments(array: Floats) -> tuple[Floats, float, float]:
    """Profile over queries, variance of the seeds' means, and interaction mean square."""
    seeds, queries = array.shape
    if (array == array[0]).all():
        # A mean of equal numbers may differ from them in its last bit, and so by a variance.
        return array[0].copy(), 0.0, 0.0
    profile: Floats = array.mean(axis=0)
    by_seed = array.mean(axis=1)
    rest = array - profile
    rest -= (by_seed - by_seed.mean())[:, None]
    square = float(np.einsum("kq,kq->", rest, rest))
    return profile, float(by_seed.var(ddof=1)), square / ((seeds - 1) * (queries - 1))
