"""What the ledger says about a plan, as one value: the table, MLflow and the report read it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ablate.learn.findings import ALPHA, Findings, findings, own_labels
from ablate.learn.ranking import Family, Verdict, against, primary_first, verdicts
from ablate.learn.scores import Scores, metric_title, split_key
from ablate.learn.stats import Comparison, Summary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ablate.plan.parts import Study
    from ablate.plan.planner import Plan, PlannedTrial
    from ablate.run.ledger import Ledger, Record, State, StudyFolder
    from trainables.spec import Scalar

__all__ = [
    "ALPHA", "CellResult", "Results", "TrialResult", "collect", "metric_title", "split_key",
]  # fmt: skip


@dataclass(frozen=True)
class TrialResult:
    """A planned trial with what became of it; `counted` says whether its cell's means hold it."""

    planned: PlannedTrial
    record: Record | None
    counted: bool

    @property
    def trial_id(self) -> str:
        return self.planned.trial_id

    @property
    def cell(self) -> str:
        return self.planned.cell

    @property
    def seed(self) -> int:
        return self.planned.seed

    @property
    def state(self) -> State:
        return "planned" if self.record is None else self.record.state

    @property
    def reason(self) -> str | None:
        return None if self.record is None else self.record.reason

    @property
    def metrics(self) -> Mapping[str, float]:
        return {} if self.record is None else self.record.metrics


@dataclass(frozen=True)
class CellResult:
    """A cell's trials and their summary per metric key; `gains` is over each baseline."""

    name: str
    values: Mapping[str, Scalar]
    draw: int | None
    """Index of the chosen draw; None before the choice."""
    tuned: Mapping[str, Scalar]
    """Values of the chosen draw."""
    trials: tuple[TrialResult, ...]
    """All trials of the cell, those of other draws included."""
    metrics: Mapping[str, Summary]
    gains: Mapping[str, Summary]
    """Baseline name -> paired gain over it on the primary metric."""
    verdict: Verdict

    @property
    def counted(self) -> tuple[TrialResult, ...]:
        """The trials of the chosen draw, one per seed."""
        return tuple(trial for trial in self.trials if trial.counted)

    @property
    def failed(self) -> int:
        """How many of the cell's trials failed."""
        return sum(trial.state == "failed" for trial in self.trials)

    @property
    def stopped(self) -> int:
        """How many of the cell's trials were stopped early."""
        return sum(trial.state == "stopped" for trial in self.trials)

    @property
    def lost(self) -> int:
        """How many of the cell's trials ended without a result: failed, or stopped early."""
        return self.failed + self.stopped


@dataclass(frozen=True)
class Results:
    """Everything known about a study. `cells` are ranked by the primary metric, best first."""

    study: Study
    plan_id: str
    primary: str
    """Metric key that ranks the cells, such as `nq/test/mrr_at_10`."""
    metric_keys: tuple[str, ...]
    """Every key that some cell has, the primary metric's first."""
    cells: tuple[CellResult, ...]
    trials: tuple[TrialResult, ...]
    """Every trial of the plan, in its order."""
    baselines: Mapping[str, Mapping[str, Summary]]
    """Baseline name -> metric key -> summary over queries."""
    dev_refs: tuple[str, ...]
    test_refs: tuple[str, ...]
    """Labels such as `nq/test`, as `dev_refs`."""
    family: Family
    comparisons: tuple[Comparison, ...]
    """The family's pairs on the primary metric, corrected together."""
    chosen: bool
    """Whether every cell's draw is frozen."""
    seed_noise: float | None
    """Size that the difference of two equal cells stays below, in 95 of 100 repeats, by their seeds
    alone; None when no cell has two seeds."""
    shared_draws: int
    """How many draws, the first ones, all cells have in common: all but under adaptive search."""
    openings: tuple[Mapping[str, Any], ...]
    executions: tuple[Mapping[str, Any], ...]
    data: tuple[Mapping[str, Any], ...]
    """What the run counted when it prepared each collection; `lines` are for a person."""
    confirmed: Mapping[str, Any] | None
    """The winner trained once more by a worker group, beside the first time."""
    nodes: tuple[Mapping[str, Any], ...]
    """Nodes and trials over time, where the study ran on a cluster that grows."""
    prices: Mapping[str, float]
    """US dollars an hour by type of node, where they are known."""
    scores: Scores = field(repr=False, compare=False)

    @property
    def scored(self) -> tuple[CellResult, ...]:
        """The cells that have the primary metric, best first."""
        return tuple(cell for cell in self.cells if self.primary in cell.metrics)

    @property
    def on_other_data(self) -> Mapping[str, int]:
        """Label -> how many finished trials were scored on other data under that name. They count
        as without scores there."""
        return Counter(ref for trial in self.trials for ref in self.scores.on_other_data(trial))

    def primary_of(self, cell: CellResult) -> Summary:
        """The summary that ranks a scored cell."""
        return cell.metrics[self.primary]

    def settings(self, key: str) -> tuple[Scalar, ...]:
        """The distinct values that a key of a trial takes over the whole study."""
        found = (trial.planned.flat.get(key) for trial in self.trials)
        return tuple(dict.fromkeys(found))

    @property
    def grid(self) -> dict[str, NDArray[np.float64]]:
        """Per scored cell, best first, the primary metric's scores [seeds, queries]."""
        found = self.scores.grid(self.primary)
        return {cell.name: found[cell.name] for cell in self.scored}

    @property
    def untrained(self) -> str | None:
        """The untrained baseline: the strongest, when the study has several backbones."""
        names = [name for name in self.baselines if name.startswith("untrained")]
        known = [name for name in names if self.primary in self.baselines[name]]
        return max(known, key=lambda name: self.baselines[name][self.primary].mean, default=None)

    @property
    def tested(self) -> bool:
        """Whether the primary metric is of a test split."""
        return split_key(self.primary)[0] in self.test_refs

    @property
    def reference(self) -> CellResult | None:
        """The scored cell that every other one is compared with."""
        return next((cell for cell in self.scored if cell.name == self.family.reference), None)

    @cached_property
    def against(self) -> Mapping[str, Comparison]:
        """Cell name -> comparison with the reference, signed as reference minus cell."""
        return against(self.family, self.comparisons)


def collect(plan: Plan, ledger: Ledger, seed: int = 0) -> Results:
    """Everything the ledger knows about the plan. `seed` is that of the resampling.

    Raises InvalidInput when trials were scored on different queries.
    """
    folder = ledger.study(plan.study.name)
    plan = plan.resumed(folder.search)
    choices = _choices(plan, folder)
    trials = tuple(_trials(plan, ledger, choices))
    counted: dict[str, list[TrialResult]] = {cell.name: [] for cell in plan.cells}
    for trial in trials:
        if trial.counted:
            counted[trial.cell].append(trial)
    marks = plan.marks([*plan.test_refs, *plan.dev_refs])
    scores = Scores(ledger, folder, counted, own_labels(plan), marks)
    found = findings(plan, folder, scores, seed)
    return Results(
        study=plan.study,
        plan_id=_plan_id(plan),
        primary=found.primary,
        metric_keys=primary_first(list(found.summaries), found.primary),
        cells=_cells(plan, trials, choices, found),
        trials=trials,
        baselines=found.baselines,
        dev_refs=tuple(ref.label for ref in plan.dev_refs),
        test_refs=tuple(ref.label for ref in plan.test_refs),
        family=found.family,
        comparisons=found.comparisons,
        seed_noise=found.seed_noise,
        shared_draws=plan.shared_draws,
        chosen=all(cell.name in choices for cell in plan.cells),
        openings=tuple(folder.openings()),
        executions=tuple(folder.executions()),
        data=tuple(folder.read("data.json") or ()),
        confirmed=folder.read("confirm.json"),
        nodes=tuple(folder.rows("nodes.jsonl")),
        prices=folder.read("prices.json") or {},
        scores=scores,
    )


def _cells(
    plan: Plan, trials: Sequence[TrialResult], choices: Mapping[str, int], found: Findings
) -> tuple[CellResult, ...]:
    """The cells in the ranking's order, those without a score last."""
    own: dict[str, list[TrialResult]] = {cell.name: [] for cell in plan.cells}
    for trial in trials:
        own[trial.cell].append(trial)
    place = {name: index for index, name in enumerate(found.ranked)}
    verdict = verdicts(found.family, found.ranked, against(found.family, found.comparisons))
    cells = sorted(plan.cells, key=lambda cell: place.get(cell.name, len(place)))
    return tuple(
        CellResult(
            name=cell.name,
            values=cell.values,
            draw=choices.get(cell.name),
            tuned=plan.tuned(cell, choices[cell.name]) if cell.name in choices else {},
            trials=tuple(own[cell.name]),
            metrics=_of_cell(found.summaries, cell.name),
            gains=_of_cell(found.gains, cell.name),
            verdict=verdict.get(cell.name, "unfinished"),
        )
        for cell in cells
    )


def _of_cell(found: Mapping[str, Mapping[str, Summary]], cell: str) -> dict[str, Summary]:
    return {key: by_cell[cell] for key, by_cell in found.items() if cell in by_cell}


def _choices(plan: Plan, folder: StudyFolder) -> Mapping[str, int]:
    if plan.frozen_by_design:
        return {cell.name: 0 for cell in plan.cells}
    return plan.possible(folder.choices())


def _trials(plan: Plan, ledger: Ledger, choices: Mapping[str, int]) -> Iterator[TrialResult]:
    """Every distinct trial of the plan, those that choose before those that repeat."""
    planned: dict[str, PlannedTrial] = {}
    if not plan.frozen_by_design:
        planned |= {trial.trial_id: trial for trial in plan.choose()}
    planned |= {trial.trial_id: trial for trial in plan.repeat(choices)}
    for trial in planned.values():
        counted = choices.get(trial.cell) == trial.draw
        yield TrialResult(trial, ledger.record(trial.trial_id), counted)


def _plan_id(plan: Plan) -> str:
    """Identity of what is planned: the same for every resume and every narrowed run of it."""
    cells = replace(plan.study, only={}).cells()
    content = {
        "study": plan.study.name,
        "fixed": dict(plan.study.fixed),
        "cells": [[cell.name, dict(cell.values)] for cell in cells],
        "draws": [dict(draw.values) for draw in plan.draws],
        "seeds": list(plan.seeds),
        "refs": [str(ref) for ref in (*plan.dev_refs, *plan.test_refs)],
        "fingerprints": dict(plan.fingerprints),
        **({"search": plan.study.budget.search} if plan.study.adaptive else {}),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
