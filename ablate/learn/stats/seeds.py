"""How much a cell's mean would move if it were trained again: the seed variance, with its doubt.

Two or three seeds say little about one cell's variance, so the cells of a family lend each other
theirs, as far as they look alike. With f[c] = interaction / n, which is known well, the variance
of a seed's mean in cell c is

    f[c] + excess * unit[c] * spread / chi2(spread)

where `excess` is common to the family and the chi-squared variable is the cell's own. It is the
hierarchical model of Smyth, "Linear models and empirical Bayes methods for assessing differential
expression in microarray experiments" (2004), with its parameters integrated out rather than
estimated: few cells of few seeds would mostly estimate them as alike. Either all cells are alike
(`spread` infinite) or each has a variance of its own (`spread` 1). log(f + excess) has a flat
prior above log(f), which gives Student's t when the cells are alike and f is small, and `excess`
may be 0, which gives the paired test over queries.

With two or three seeds, no test both keeps its level where one cell is noisier and finds much
where none is: they cannot tell the two apart. `tests/bench/calibration.py` prints both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ablate.learn.stats.cells import Cells, Floats, Scores, reduce

SPREADS = (1.0, np.inf)
WEIGHTS = (0.6, 0.4)
"""Prior of SPREADS. More weight on infinity gives power when all cells are equally noisy, less
gives safety when one is noisier. These hold the family-wise rate near 5 % with cells whose seeds
scatter up to three times as far; `tests/bench/calibration.py` prints where that ends."""
NO_EXCESS = 1.5
"""Prior of an excess of 0, as a length on the log scale. More gives power with few queries, less
gives safety where the excess is a few times f."""

_WIDE = (-14.0, 32.0)
"""Logarithm of the scale over the pooled variance: wide enough for one degree of freedom."""
_POINTS = 72
"""Points of a grid over the log scale."""
_NEGLIGIBLE = 18.0
"""Log density below the peak at which the posterior is cut off."""
_STEP = 0.3
_OWN = _STEP * np.arange(-20.0, 51.0)
"""Logarithms of a cell's own factor, spread / chi2(spread); alike cells have 0."""
_BLOCK = 4_000_000
_TEACHERS = 400
"""Cells from which spread and scale of a large family are learnt: more would hardly sharpen them.
"""


@dataclass(frozen=True)
class Variances:
    """Variance components of a family, pooled over its cells, for one metric on one query set.

    `seed`: of the seed effect (training noise shared by all queries). `interaction`: of the
    seed-by-query interaction (training noise of single queries). `difference`: over queries, of
    the true difference between two cells, on average over all pairs of cells. `query`: over
    queries, of a cell's scores. `freedom`: degrees of freedom behind `seed`. All 0 when unknown.
    """

    seed: float
    interaction: float
    difference: float
    query: float
    freedom: int


def variance_components(scores: Scores) -> Variances:
    """The pooled variance components of `scores`, by the method of moments, none below 0."""
    cells = reduce(scores)
    freedom = cells.freedom
    total = int(freedom.sum())
    noise = float((freedom * cells.interaction).sum() / total) if total else 0.0
    spread = float((freedom * cells.seed_variance).sum() / total) if total else 0.0
    centred = cells.centred()
    own = (centred**2).sum(axis=1) / (cells.queries - 1)
    common = (centred.mean(axis=0) ** 2).sum() / (cells.queries - 1)
    count = len(own)
    between = 2 * (own.mean() - common) * count / (count - 1) if count > 1 else 0.0
    lent = 2 * float((np.where(freedom > 0, cells.interaction, noise) / cells.seeds).mean())
    return Variances(
        seed=max(spread - noise / cells.queries, 0.0),
        interaction=noise,
        difference=max(float(between) - lent, 0.0),
        query=float(own.mean()),
        freedom=total,
    )


@dataclass(frozen=True)
class NoiseFloor:
    """The difference that two equal cells stay below in 95 of 100 repeats, by seeds alone."""

    trials: float
    """Between two single trials."""
    cells: float
    """Between the means of two cells with the family's median number of seeds."""
    sd: float
    """Standard deviation of a trial's mean over seeds, on this query set."""
    freedom: int


def seed_noise_floor(scores: Scores) -> NoiseFloor | None:
    """The seed-noise floor of a family, or None when no cell has two seeds.

    Student's t on the pooled variance of the seeds' means, so that the floor of few seeds is wide.
    """
    cells = reduce(scores)
    freedom = int(cells.freedom.sum())
    if not freedom:
        return None
    sd = float(np.sqrt((cells.freedom * cells.seed_variance).sum() / freedom))
    reach = float(special.stdtrit(freedom, 0.975)) * sd * np.sqrt(2.0)
    typical = float(np.median(cells.seeds[cells.freedom > 0]))
    return NoiseFloor(float(reach), float(reach / np.sqrt(typical)), sd, freedom)


def draw_seed_variances(cells: Cells, draws: int, rng: np.random.Generator) -> Floats:
    """[draws, C] draws of the variance of one seed's mean, from its posterior given the family.

    Cells with one seed get what the others say of a cell like them; all draws are 0 when no cell
    has two seeds, or when no seed differs from another. Two forms of the prior share the weight:
    the cells' excesses are alike in themselves, or relative to their interactions, which grow with
    training noise too.
    """
    known = _freedom(cells) > 0
    if not known.any() or not cells.seed_variance[known].any():
        return np.zeros((draws, len(cells.names)))
    grids = [form.posterior() for form in _forms(cells)]
    logs = np.concatenate([grid.log_weights.ravel() for grid in grids])
    which = _systematic(np.exp(logs - logs.max()), draws, rng)
    variances = np.empty((draws, len(cells.names)))
    for place, grid in enumerate(grids):
        for spread in range(len(SPREADS)):
            rows = np.flatnonzero(which // _POINTS == place * len(SPREADS) + spread)
            if len(rows):
                variances[rows] = grid.draw(spread, which[rows] % _POINTS, rng)
    return variances


def _freedom(cells: Cells) -> NDArray[np.int64]:
    """[C] degrees of freedom that say something: none where the seeds gave the very same scores.

    Such a metric is saturated there; taken as a variance of 0 it would deny the others theirs.
    """
    same = (cells.seed_variance == 0) & (cells.interaction == 0)
    return np.where(same, 0, cells.freedom)


def _forms(cells: Cells) -> list[_Form]:
    """The prior's forms for a family; the relative one only where all interactions are known."""
    freedom = _freedom(cells)
    known = freedom > 0
    floor = cells.interaction / cells.queries
    middle = float(np.average(floor[known], weights=freedom[known]))
    floor = np.where(known, floor, middle)
    variance = cells.seed_variance
    forms = [_Form(np.ones(len(floor)), floor, middle, variance, freedom)]
    if known.sum() > 1 and floor.min() > 1e-9 * floor.max():
        forms.append(_Form(floor / middle, floor, middle, variance, freedom))
    return forms


@cache
def _own_weights() -> Floats:
    """[spreads, Q] prior of a cell's own factor on the grid _OWN, for every spread."""
    weights = []
    for spread in SPREADS:
        if np.isinf(spread):
            weights.append((np.abs(_OWN) < _STEP / 2).astype(np.float64))
        else:
            logs = -spread / 2 * (_OWN + np.exp(-_OWN))
            weights.append(np.exp(logs) / np.exp(logs).sum())
    return np.stack(weights)


@dataclass(frozen=True)
class _Form:
    """The family's data, and the unit in which the prior holds the cells' excesses alike."""

    unit: Floats
    floor: Floats
    """[C] what the interaction alone makes of a seed mean's variance."""
    middle: float
    """The floor's mean over the degrees of freedom."""
    variance: Floats
    """[C] observed variance of the seeds' means."""
    freedom: NDArray[np.int64]

    def posterior(self) -> _Posterior:
        """The posterior over spreads and log scales, on a grid that covers all its mass."""
        low, high = self._range()
        for _ in range(2):
            scale, step = _middles(low, high)
            density = self._log_density(scale).max(axis=0)
            kept = np.flatnonzero(density > density.max() - _NEGLIGIBLE)
            low, high = (
                max(low, scale[kept[0]] - 1.5 * step),
                min(high, scale[kept[-1]] + 1.5 * step),
            )
        scale, step = _middles(low, high)
        return _Posterior(self, scale, step, np.log(step) + self._log_density(scale))

    def _range(self) -> tuple[float, float]:
        """The log scales that the prior and the data allow."""
        known = self.freedom > 0
        pooled = float(np.log(np.average(self.variance[known], weights=self.freedom[known])))
        if self.middle <= 0:
            return pooled + _WIDE[0], pooled + _WIDE[1]
        floor = float(np.log(self.middle))
        return max(floor - NO_EXCESS, pooled + _WIDE[0]), max(floor, pooled) + _WIDE[1]

    def variances(self, scale: Floats, own: Floats, cells: NDArray[np.int64]) -> Floats:
        """Variances at log scales, for cells with own factors `own`; the arrays are broadcast."""
        excess = np.maximum(np.exp(scale) - self.middle, 0.0)
        found: Floats = self.floor[cells] + excess * self.unit[cells] * own
        return found

    def likelihood(self, scale: Floats, cells: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """[U, Q, cells] likelihood over own factors, and the log [U, 1, cells] of its unit."""
        variances = self.variances(scale[:, None, None], np.exp(_OWN)[:, None], cells)
        half = self.freedom[cells] / 2
        logs = -half * (np.log(variances) + self.variance[cells] / variances)
        peak = logs.max(axis=1, keepdims=True)
        return np.exp(logs - peak), peak

    def _log_density(self, scale: Floats) -> Floats:
        """[spreads, U] log posterior density of spreads and log scales, up to a constant."""
        total = np.log(WEIGHTS)[:, None] + np.zeros(len(scale))
        prior = _own_weights()
        known = np.flatnonzero(self.freedom > 0)
        chosen = np.linspace(0, len(known) - 1, min(len(known), _TEACHERS)).astype(np.int64)
        for cells in _parts(known[chosen], len(scale) * len(_OWN)):
            likelihood, peak = self.likelihood(scale, cells)
            summed = np.einsum("sq,uqc->suc", prior, likelihood, optimize=True)
            total += (np.log(np.maximum(summed, 1e-300)) + peak[:, 0]).sum(axis=2)
        return total


@dataclass(frozen=True)
class _Posterior:
    """A grid over the log scale for one form, with the posterior's weights [spreads, U]."""

    form: _Form
    scale: Floats
    step: float
    log_weights: Floats

    def draw(self, spread: int, points: NDArray[np.int64], rng: np.random.Generator) -> Floats:
        """[len(points), C] seed variances given a spread and the scales at the grid's points."""
        everyone = np.arange(len(self.form.freedom))
        scale = (self.scale[points] + self.step * (rng.random(len(points)) - 0.5))[:, None]
        if np.isinf(SPREADS[spread]):
            return self.form.variances(scale, np.ones(1), everyone)
        found = np.empty((len(points), len(everyone)))
        prior = _own_weights()[spread][:, None]
        used, points = np.unique(points, return_inverse=True)
        for cells in _parts(everyone, max(len(points), _POINTS) * len(_OWN)):
            summed = np.cumsum(prior * self.form.likelihood(self.scale[used], cells)[0], axis=1)
            marks = rng.random((len(points), len(cells))) * summed[points, -1]
            place = _places(summed, points, marks)
            jitter = _STEP * (rng.random(place.shape) - 0.5)
            own = np.exp(_OWN[np.minimum(place, len(_OWN) - 1)] + jitter)
            found[:, cells] = self.form.variances(scale, own, cells)
        return found


def _places(summed: Floats, points: NDArray[np.int64], marks: Floats) -> NDArray[np.int64]:
    """[D, C] how many of the rising `summed`[points[d], :, c] [U, Q, C] lie below `marks`[d, c]."""
    most, count = summed.shape[1], marks.shape[1]
    rising = np.ascontiguousarray(summed.transpose(0, 2, 1)).ravel()
    start = (points[:, None] * count + np.arange(count)) * most
    found = np.zeros(marks.shape, np.int64)
    for power in reversed(range(most.bit_length())):
        further = found + (1 << power)
        below = rising[start + np.minimum(further, most) - 1] < marks
        found += (below & (further <= most)).astype(np.int64) << power
    return found


def _middles(low: float, high: float) -> tuple[Floats, float]:
    """The middles of _POINTS equal steps from `low` to `high`, and their length."""
    step = (high - low) / _POINTS
    return np.asarray(low + step * (np.arange(_POINTS) + 0.5), np.float64), step


def _parts(cells: NDArray[np.int64], width: int) -> list[NDArray[np.int64]]:
    """The cells in parts that keep arrays [width, cells] small."""
    size = max(1, _BLOCK // max(width, 1))
    return [cells[start : start + size] for start in range(0, len(cells), size)]


def _systematic(weights: Floats, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`draws` indices in proportion to the weights, evenly spread, in random order."""
    edges = np.cumsum(weights)
    marks = (np.arange(draws) + rng.random()) / draws * edges[-1]
    return rng.permutation(np.minimum(np.searchsorted(edges, marks), len(weights) - 1))
