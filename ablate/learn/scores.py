"""Scores per query, read from the ledger when they are asked for; and how metrics are named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainables.errors import InvalidInput, Problem
from trainables.evaluation.means import beir_sets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ablate.learn.results import TrialResult
    from ablate.run.ledger import Ledger, StudyFolder

KEPT_BYTES = 1 << 30
METRIC_NAMES = {"ndcg": "nDCG", "mrr": "MRR", "map": "MAP", "recall": "Recall"}


class Scores:
    """Scores per query, read from the ledger when they are asked for, queries aligned by id."""

    def __init__(
        self,
        ledger: Ledger,
        folder: StudyFolder,
        members: Mapping[str, Sequence[TrialResult]],
        refs: Iterable[str] = (),
        marks: Mapping[str, str] | None = None,
    ) -> None:
        """`refs` are the labels among which BEIR's means are looked for. `marks` maps a label to
        the fingerprint of the data that it names: scores on other data are as good as none."""
        self.means = beir_sets(refs)
        """Label of each mean -> its sets, each as the labels of its parts. A mean is asked for as
        a reference is; its scores stand for all queries, each set weighing the same."""
        self.marks = dict(marks or {})
        self._ledger, self._folder, self._members = ledger, folder, members
        self._order: dict[str, list[str]] = {}
        self._kept: dict[str, dict[str, dict[str, NDArray[np.float64]]]] = {}
        self._room = KEPT_BYTES

    @property
    def cache(self) -> Path | None:
        """The run folder's cache, None when that is not on local disk."""
        local = self._ledger.store.local
        return None if local is None else local / "cache"

    def history(self, trial: TrialResult) -> list[dict[str, float]]:
        """The trial's logged steps."""
        return self._ledger.history(trial.trial_id)

    def queries(self, ref: str) -> list[str]:
        """Query ids of a reference, in the order of every array; empty when nothing is scored."""
        return self._order.get(ref, [])

    def cell(self, cell: str, ref: str) -> dict[str, NDArray[np.float64]]:
        """Metric name -> scores [seeds, queries] of the cell's finished, counted trials."""
        if ref in self.means:
            trials = self.trials(cell, [ref])
            return self._mean(ref, lambda part: self._part(cell, part, trials)) if trials else {}
        return self._stacked(self.trials(cell, [ref]), ref)

    def trial(self, trial: TrialResult, key: str) -> NDArray[np.float64] | None:
        """Scores [queries] of one trial, counted or not, on a metric key; None without them."""
        ref, metric = split_key(key)
        if not self._has(trial, ref):
            return None
        return self._aligned(ref, trial.trial_id, *self._read(trial.trial_id, ref)).get(metric)

    def grids(self, ref: str) -> dict[str, dict[str, NDArray[np.float64]]]:
        """Metric name -> cell name -> scores [seeds, queries], every file read once.

        What is read is kept for the next call, as long as it is not more than KEPT_BYTES in all.
        """
        if ref in self._kept:
            return self._kept[ref]
        found: dict[str, dict[str, NDArray[np.float64]]] = {}
        for cell in self._members:
            for metric, array in self.cell(cell, ref).items():
                found.setdefault(metric, {})[cell] = array
        size = sum(array.nbytes for grid in found.values() for array in grid.values())
        if size <= self._room:
            self._room -= size
            self._kept[ref] = found
        return found

    def grid(self, key: str) -> dict[str, NDArray[np.float64]]:
        """Cell name -> scores [seeds, queries] of one metric key; cells without scores are left
        out."""
        ref, metric = split_key(key)
        if ref in self._kept:
            return self._kept[ref].get(metric, {})
        found = {cell: self.cell(cell, ref).get(metric) for cell in self._members}
        return {cell: scores for cell, scores in found.items() if scores is not None}

    def baseline(self, name: str, ref: str) -> dict[str, NDArray[np.float64]]:
        """Metric name -> scores [1, queries] of a baseline."""
        if ref in self.means:
            return self._mean(ref, lambda part: self.baseline(name, part))
        columns = self._aligned(ref, name, *self._folder.baseline_scores(name, ref))
        return {metric: column[None] for metric, column in columns.items()}

    def parts(self, ref: str) -> list[str]:
        """The labels that a mean is over; of any other reference, itself."""
        return [part for parts in self.means.get(ref, ((ref,),)) for part in parts]

    def trials(self, cell: str, refs: Iterable[str]) -> list[TrialResult]:
        """The cell's finished, counted trials that were scored on all of `refs`, in the order of
        the rows of `cell` and of every grid."""
        singles = [part for ref in refs for part in self.parts(ref)]
        trials = self._members.get(cell, ())
        return [trial for trial in trials if all(self._has(trial, ref) for ref in singles)]

    def together(self, keys: Sequence[str]) -> dict[str, list[NDArray[np.float64]]]:
        """Cell name -> scores [seeds, queries] on each metric key, rows being the same trials:
        those that were scored on all of them. A cell without such a trial is left out."""
        refs = [split_key(key)[0] for key in keys]
        grids = [self.grid(key) for key in keys]
        found = {}
        for cell in self._members:
            kept = {trial.trial_id for trial in self.trials(cell, refs)}
            if kept and all(cell in grid for grid in grids):
                found[cell] = [
                    grid[cell][[trial.trial_id in kept for trial in self.trials(cell, [ref])]]
                    for grid, ref in zip(grids, refs, strict=True)
                ]
        return found

    def on_other_data(self, trial: TrialResult) -> tuple[str, ...]:
        """The labels on which a finished trial was scored when they named other data; its scores
        there are left out."""
        if trial.record is None or trial.state != "finished":
            return ()
        evaluated = trial.record.evaluated
        return tuple(ref for ref in self.marks if ref in evaluated and not self._has(trial, ref))

    def _has(self, trial: TrialResult, ref: str) -> bool:
        """Whether the trial is finished and was scored on the reference, on the plan's data."""
        if trial.record is None or trial.state != "finished":
            return False
        mark = trial.record.evaluated.get(ref)
        return mark is not None and mark == self.marks.get(ref, mark)

    def _stacked(self, trials: Sequence[TrialResult], ref: str) -> dict[str, NDArray[np.float64]]:
        rows = [
            self._aligned(ref, trial.trial_id, *self._read(trial.trial_id, ref)) for trial in trials
        ]
        shared = [name for name in rows[0] if all(name in row for row in rows)] if rows else []
        return {name: np.stack([row[name] for row in rows]) for name in shared}

    def _part(
        self, cell: str, ref: str, trials: Sequence[TrialResult]
    ) -> dict[str, NDArray[np.float64]]:
        """What `_stacked` reads, from what is kept where that holds the same trials."""
        if ref not in self._kept or len(self.trials(cell, [ref])) != len(trials):
            return self._stacked(trials, ref)
        return {name: by[cell] for name, by in self._kept[ref].items() if cell in by}

    def _mean(
        self, ref: str, scores_of: Callable[[str], dict[str, NDArray[np.float64]]]
    ) -> dict[str, NDArray[np.float64]]:
        """Of each metric that all parts have, the mean over the sets, a set's being over its
        parts."""
        from ablate.learn.stats import mean_of_sets

        groups = [[scores_of(part) for part in parts] for parts in self.means[ref]]
        every = [found for group in groups for found in group]
        return {
            name: mean_of_sets([mean_of_sets([found[name] for found in g]) for g in groups])
            for name in every[0]
            if all(name in found for found in every)
        }

    def _read(self, trial_id: str, ref: str) -> tuple[list[str], dict[str, NDArray[np.float64]]]:
        try:
            return self._ledger.per_query(trial_id, ref)
        except FileNotFoundError:
            rule = f"has lost its scores on {ref}, which its record names; evaluate it again"
            raise InvalidInput([Problem(trial_id, rule)]) from None

    def _aligned(
        self, ref: str, owner: str, ids: list[str], columns: Mapping[str, NDArray[np.float64]]
    ) -> dict[str, NDArray[np.float64]]:
        order = self._order.setdefault(ref, ids)
        if ids == order:
            return dict(columns)
        place = {query: row for row, query in enumerate(ids)}
        if place.keys() != set(order):
            rule = f"is scored on other queries of {ref} than the rest; evaluate it again"
            raise InvalidInput([Problem(owner, rule)])
        rows = [place[query] for query in order]
        return {name: column[rows] for name, column in columns.items()}


def split_key(key: str) -> tuple[str, str]:
    """Reference and metric name of a metric key: `nq/test/map` -> (`nq/test`, `map`)."""
    ref, _, metric = key.rpartition("/")
    return ref, metric


def metric_title(key: str) -> str:
    """A metric key or name as papers write it: `nq/test/ndcg_at_10` -> `nDCG@10`."""
    family, at, cutoff = split_key(key)[1].partition("_at_")
    name = " ".join(METRIC_NAMES.get(word, word) for word in family.split("_"))
    return f"{name}@{cutoff}" if at else name
