"""What the scores of a plan say: summaries, ranking, gains and paired differences.

Every mean, interval and difference is computed here, once; `results` hands them on by cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ablate.learn.ranking import Family, family, primary_key
from ablate.learn.scores import split_key
from ablate.learn.stats import (
    Comparison,
    Summary,
    cell_summaries,
    cell_summary,
    compare,
    seed_noise_floor,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ablate.learn.scores import Scores
    from ablate.plan.planner import Plan
    from ablate.run.ledger import StudyFolder

ALPHA = 0.05
"""Family-wise rate of false differences; intervals are 95 %."""


@dataclass(frozen=True)
class Findings:
    """What the scores say. Summaries are by metric key, gains by baseline, both then by cell."""

    primary: str
    ranked: tuple[str, ...]
    """The cells that have the primary metric, best first."""
    summaries: Mapping[str, Mapping[str, Summary]]
    baselines: Mapping[str, Mapping[str, Summary]]
    gains: Mapping[str, Mapping[str, Summary]]
    family: Family
    comparisons: tuple[Comparison, ...]
    seed_noise: float | None


def findings(plan: Plan, folder: StudyFolder, scores: Scores, seed: int) -> Findings:
    """Everything that is computed from the scores. `seed` is that of the resampling.

    Raises InvalidInput when trials were scored on different queries.
    """
    refs = [*own_labels(plan), *_judged(plan), *scores.means]
    summaries = _summaries(scores, refs, seed)
    baselines = _baselines(folder, scores, refs)
    primary = primary_key(plan, list(summaries))
    means = {name: summary.mean for name, summary in summaries.get(primary, {}).items()}
    ranked = tuple(sorted(means, key=lambda name: -means[name]))
    everyone = scores.grid(primary)
    grid = {name: everyone[name] for name in ranked}
    pairs = family(ranked, summaries, plan.study)
    return Findings(
        primary=primary,
        ranked=ranked,
        summaries=summaries,
        baselines=baselines,
        gains=_gains(baselines, scores, primary, grid),
        family=pairs,
        comparisons=tuple(compare(grid, pairs.pairs, ALPHA, seed)) if pairs.pairs else (),
        seed_noise=_seed_noise(grid),
    )


def own_labels(plan: Plan) -> list[str]:
    """Labels of the splits by their own judgements, which rank the cells."""
    return [ref.label for ref in (*plan.test_refs, *plan.dev_refs)]


def _judged(plan: Plan) -> Iterator[str]:
    """Labels of what further sources judge."""
    for ref in (*plan.test_refs, *plan.dev_refs):
        yield from list(ref.marks(""))[1:]


def _summaries(scores: Scores, refs: Sequence[str], seed: int) -> dict[str, dict[str, Summary]]:
    """Metric key -> cell name -> summary; the cells lend each other their seed variance.

    A metric that is not defined for some query of a cell (NaN) is left out there.
    """
    found = {}
    for ref in refs:
        for metric, grid in scores.grids(ref).items():
            defined = {cell: array for cell, array in grid.items() if np.isfinite(array).all()}
            if defined:
                found[f"{ref}/{metric}"] = cell_summaries(defined, ALPHA, seed)
    return found


def _baselines(
    folder: StudyFolder, scores: Scores, refs: Sequence[str]
) -> dict[str, dict[str, Summary]]:
    """Baseline name -> metric key -> summary, which is over queries alone.

    What is known to be scored on other data than the plan's is left out.
    """
    found: dict[str, dict[str, Summary]] = {}
    marks = folder.baseline_marks()
    for name, by_ref in folder.baselines().items():
        known = {**scores.marks, **marks.get(name, {})}
        own = {ref for ref in by_ref if known.get(ref) == scores.marks.get(ref, known.get(ref))}
        for ref in refs:
            arrays = scores.baseline(name, ref) if own >= {*scores.parts(ref)} else {}
            for metric, array in arrays.items():
                if np.isfinite(array).all():
                    found.setdefault(name, {})[f"{ref}/{metric}"] = cell_summary(array, ALPHA)
    return found


def _gains(
    baselines: Mapping[str, Mapping[str, Summary]],
    scores: Scores,
    primary: str,
    grid: Mapping[str, NDArray[np.float64]],
) -> dict[str, dict[str, Summary]]:
    """Baseline -> cell -> paired gain: the baseline is subtracted query by query."""
    ref, metric = split_key(primary)
    names = [name for name in baselines if grid and primary in baselines[name]]
    floors = {name: scores.baseline(name, ref)[metric] for name in names}
    return {
        name: cell_summaries({cell: array - floor for cell, array in grid.items()}, ALPHA)
        for name, floor in floors.items()
    }


def _seed_noise(grid: Mapping[str, NDArray[np.float64]]) -> float | None:
    floor = seed_noise_floor(grid) if grid else None
    return None if floor is None else floor.cells
