"""Who competes with whom in a study that stops trials early, and what each has shown so far."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from ablate.plan.planner import Plan, PlannedTrial
from ablate.plan.stops import Among, Curve, Look, Moment, Rule


@dataclass(frozen=True)
class Contest:
    """The trials of one phase: each one's rivals are the others of its group.

    `names` are what a reason calls them. `comparisons` counts ordered pairs of rivals over all
    phases of the study, so that one error rate covers them.
    """

    groups: Mapping[str, tuple[str, ...]]
    names: Mapping[str, str]
    comparisons: int

    def rivals(self, trial_id: str) -> tuple[str, ...]:
        """Ids of the trials that the trial is compared with."""
        return tuple(other for other in self.groups.get(trial_id, ()) if other != trial_id)


def contest(plan: Plan, trials: Iterable[PlannedTrial], among: Among, chosen: bool) -> Contest:
    """The contest of a phase. `chosen`: its trials are the cells' chosen draws, one per seed."""
    members: dict[Hashable, list[str]] = {}
    names: dict[str, str] = {}
    for trial in trials:
        if trial.trial_id not in names:
            names[trial.trial_id] = _name(trial, among)
            members.setdefault(_group(trial, among, chosen), []).append(trial.trial_id)
    groups = {trial: tuple(group) for group in members.values() for trial in group}
    return Contest(groups, names, comparisons(plan, among))


def comparisons(plan: Plan, among: Among) -> int:
    """Ordered pairs of rivals over the whole study: choosing among draws, then the seeds."""
    sizes = [len(plan.settings(cell)) for cell in plan.cells]
    if among == "draws":
        return sum(size * (size - 1) for size in sizes)
    per_draw = [
        sum(index in plan.settings(cell) for cell in plan.cells) for index in range(len(plan.draws))
    ]
    chosen = len(plan.cells) * (len(plan.cells) - 1)
    choosing = sum(size * (size - 1) for size in per_draw)
    # The first seed's trials are those of the choice, or, when nothing is tuned, the only draw's.
    return choosing + (len(plan.seeds) - 1) * chosen


class Board:
    """The looks of a contest's trials, and the rule's word on each."""

    def __init__(self, rule: Rule, contest: Contest, every: int, margin: float) -> None:
        """`every`: steps between looks. `margin`: difference up to which two trials are equal."""
        self.rule, self.contest, self.every, self.margin = rule, contest, every, margin
        self._curves: dict[str, dict[int, Look]] = {}

    def add(self, trial_id: str, step: int, look: Look) -> None:
        """The trial has this look at `step`."""
        self._curves.setdefault(trial_id, {})[step] = look

    def reason(self, trial_id: str, step: int, total: int) -> str | None:
        """Why the trial, which has a look at `step` of `total`, is to stop; None to go on."""
        if not self.rule.grace <= step < total:
            return None
        # One more than the multiples of `every` from the grace on: a look falls on the end of a row
        # of the history, which may lie behind its multiple.
        looks = (total - 1) // self.every - (self.rule.grace - 1) // self.every + 1
        at = Moment(step, total, looks, self.contest.comparisons, self.margin)
        rivals: dict[str, Curve] = {
            self.contest.names[other]: self._curves[other]
            for other in self.contest.rivals(trial_id)
            if other in self._curves
        }
        return self.rule.reason(self._curves[trial_id], rivals, at)


def _group(trial: PlannedTrial, among: Among, chosen: bool) -> Hashable:
    if among == "draws":
        return (trial.seed, trial.cell)
    return trial.seed if chosen else (trial.seed, trial.draw)


def _name(trial: PlannedTrial, among: Among) -> str:
    return trial.cell if among == "cells" else f"draw {trial.draw}"
