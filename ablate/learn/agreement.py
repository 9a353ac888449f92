"""How well a part of the passages ranks what the whole collection ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ablate.learn.scores import metric_title, split_key

if TYPE_CHECKING:
    from ablate.learn.results import Results

FEWEST = 3
"""Cells below which a rank correlation says nothing."""


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau-b between the cells' means by `part` and by `whole`, two metric keys."""

    part: str
    whole: str
    cells: int
    tau: float

    def __str__(self) -> str:
        part, whole = split_key(self.part)[0], split_key(self.whole)[0]
        return (
            f"{metric_title(self.part)} on {part} ranks {self.cells} cells as on all of {whole} "
            f"with Kendall's tau {self.tau:.2f}"
        )


def agreements(results: Results) -> tuple[Agreement, ...]:
    """One per metric that was watched over a part of the passages and is known in full.

    A cell counts with the mean over its trials that have both. Empty when nothing was watched so,
    or fewer than FEWEST cells can be compared, or all are equal.
    """
    watch = results.study.watch
    if watch is None or watch.passages is None:
        return ()
    names = {
        split_key(key)[1]
        for trial in results.trials
        for key in trial.metrics
        if split_key(key)[0] == watch.label
    }
    found = [_agreement(results, watch.label, watch.ref.label, name) for name in sorted(names)]
    return tuple(one for one in found if one is not None)


def _agreement(results: Results, part: str, whole: str, name: str) -> Agreement | None:
    from scipy.stats import kendalltau

    keys = (f"{part}/{name}", f"{whole}/{name}")
    means = []
    for cell in results.cells:
        pairs = [
            [t.metrics[key] for key in keys] for t in cell.trials if t.metrics.keys() >= {*keys}
        ]
        if pairs:
            means.append(np.mean(pairs, axis=0))
    if len(means) < FEWEST:
        return None
    tau = float(kendalltau(*np.array(means).T).statistic)
    return Agreement(*keys, len(means), tau) if np.isfinite(tau) else None
