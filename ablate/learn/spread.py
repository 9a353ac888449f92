"""How much scores scatter over queries and seeds in the trials that a run folder already holds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ablate.learn.ranking import primary_key
from ablate.learn.scores import split_key
from ablate.plan.prior import Prior

if TYPE_CHECKING:
    from ablate.plan.planner import Plan
    from ablate.run.ledger import Ledger, Record

Cells = dict[str, dict[Any, NDArray[np.float64]]]
"""A spec without its seed -> seed -> scores [queries]."""

MOST_TRIALS = 200
"""Trials that are read at most, the latest ones: their variances are known well by then."""


def measured(plan: Plan, ledger: Ledger, records: Iterable[Record]) -> dict[str, Prior]:
    """Label of a test split -> the spreads of the plan's metric among finished trials on it.

    Only trials that were scored on the very data of the plan count. What they do not tell, such as
    the seeds' spread where no spec ran under two seeds, stays as it is in `Prior`.
    """
    listed = sorted(records, key=lambda record: record.finished or 0.0, reverse=True)
    _, metric = split_key(primary_key(plan, ()))
    found = {}
    for ref in plan.test_refs:
        mark = plan.fingerprints[ref.collection]
        own = [record for record in listed if record.evaluated.get(ref.label) == mark]
        prior = _prior(_cells(ledger, own[:MOST_TRIALS], ref.label, metric), ref.label)
        if prior is not None:
            found[ref.label] = prior
    return found


def _cells(ledger: Ledger, records: Sequence[Record], label: str, metric: str) -> Cells:
    """Scores of the trials that have them, the latest of a spec and seed."""
    order: list[str] = []
    cells: Cells = {}
    for record in records:
        try:
            ids, columns = ledger.per_query(record.trial_id, label)
        except FileNotFoundError:
            continue
        order = order or ids
        if metric in columns and ids == order:
            spec = str(sorted((key, value) for key, value in record.spec.items() if key != "seed"))
            cells.setdefault(spec, {}).setdefault(record.spec["seed"], columns[metric])
    return cells


def _prior(cells: Cells, label: str) -> Prior | None:
    """The spreads of the cells, or None when they tell none."""
    from ablate.learn.stats import variance_components

    scores = {spec: np.stack(list(seeds.values())) for spec, seeds in cells.items()}
    queries = min((rows.shape[1] for rows in scores.values()), default=0)
    if len(scores) < 2 or queries < 2:
        return None
    found = variance_components(scores)
    if not found.difference:
        return None
    by_query, by_seed = found.difference, found.seed + found.interaction / queries
    trials = sum(len(rows) for rows in scores.values())
    if not by_seed:
        return Prior(math.sqrt(by_query), query_trials=trials, label=label)
    repeated = sum(len(rows) for rows in scores.values() if len(rows) > 1)
    return Prior(math.sqrt(by_query), math.sqrt(by_seed), trials, repeated, label)
