"""The winner's curse: how much better the chosen candidate looks than it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ablate.learn.stats.cells import Floats, Scores, reduce

RESAMPLES = 2000


@dataclass(frozen=True)
class WinnersCurse:
    """What choosing on dev did to the chosen candidate's score.

    `optimism`: how far the best of these candidates is expected to fall on new queries of the
    same kind, by resampling dev's queries. `gap`: dev minus test as it came out, which also holds
    whatever makes test harder than dev; `low` and `high` bound it over queries with confidence
    95 %. All but `chosen`, `dev` and `optimism` are None until the test is opened.
    """

    chosen: str
    candidates: int
    dev: float
    optimism: float
    test: float | None
    gap: float | None
    low: float | None
    high: float | None


def winners_curse(dev: Scores, test: ArrayLike | None = None, seed: int = 0) -> WinnersCurse:
    """The curse of taking the candidate with the best mean in `dev`.

    `dev` maps candidates (draws) to scores [seeds, queries]; `test` are the chosen one's scores
    [seeds, queries] on test. Optimism is Efron's (1983): over resampled queries, the mean of the
    resample's winner there, less its mean over all queries.

    Raises InvalidInput as `compare` does.
    """
    cells = reduce(dev)
    best = int(cells.means.argmax())
    on_dev = float(cells.means[best])
    rng = np.random.default_rng(seed)
    optimism = _optimism(cells.profile, rng)
    chosen, count = cells.names[best], len(cells.names)
    if test is None:
        return WinnersCurse(chosen, count, on_dev, optimism, None, None, None, None)
    tested = reduce({chosen: test})
    gap = on_dev - float(tested.means[0])
    variance = _variance(cells.profile[best]) + _variance(tested.profile[0])
    reach = -float(special.ndtri(0.025)) * float(np.sqrt(variance))
    on_test = float(tested.means[0])
    return WinnersCurse(chosen, count, on_dev, optimism, on_test, gap, gap - reach, gap + reach)


def _optimism(profile: Floats, rng: np.random.Generator) -> float:
    """Mean over resamples of queries of the winner's mean there less its mean over all queries."""
    queries = profile.shape[1]
    means = profile.mean(axis=1)
    size = max(1, 2_000_000 // queries)
    total = 0.0
    for start in range(0, RESAMPLES, size):
        count = min(size, RESAMPLES - start)
        weights = rng.multinomial(queries, np.full(queries, 1 / queries), size=count)
        resampled = weights @ profile.T / queries
        winner = resampled.argmax(axis=1)
        total += float((resampled[np.arange(count), winner] - means[winner]).sum())
    return total / RESAMPLES


def _variance(values: Floats) -> float:
    return float(values.var(ddof=1) / len(values))
