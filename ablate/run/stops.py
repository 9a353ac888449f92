"""Early stopping as a sweep goes: every look of a trial is judged, and the trial told.

The rule is asked in the driver, at the moment a trial reports a look; the trial, which hears of it
in a file of the run folder, ends by itself with a record `stopped`. So nothing is killed, a worker
group frees its nodes as at any other end, and the decision outlives the driver. What a rule knows
is in the run folder too: a sweep that is started again judges by the looks of before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ablate.plan.contest import Board, contest
from ablate.plan.planner import Plan, PlannedTrial
from ablate.plan.stops import Look
from ablate.run.events import Watcher
from ablate.run.ledger import Ledger, Record
from ablate.run.tasks import looks_place, watched_key
from trainables.looks import Looks


class Judge:
    """A rule over the trials of one phase, with the looks that the run folder holds.

    `trials` are all of the phase, those that ended before included; `chosen` as in `contest`.
    Raises ValueError for a study that stops nothing.
    """

    def __init__(
        self, plan: Plan, ledger: Ledger, trials: Iterable[PlannedTrial], chosen: bool
    ) -> None:
        stop, watch, select, key = (
            plan.study.stop, plan.study.watch, plan.study.select, watched_key(plan),
        )  # fmt: skip
        if stop is None or watch is None or select is None or key is None:
            raise ValueError("the study stops no trials")
        self.plan, self.ledger, self.key = plan, ledger, key
        self.contest = contest(plan, trials, stop.among, chosen)
        self.board = Board(stop, self.contest, watch.every, select.equal_within or 0.0)
        self._known: set[str] = set()

    def reason(self, trial_id: str, metrics: Mapping[str, float]) -> str | None:
        """Why the trial, which reports `metrics`, is to stop; None to go on or without a look."""
        if self.key not in metrics or not self.contest.rivals(trial_id):
            return None
        for each in (trial_id, *self.contest.rivals(trial_id)):
            self._remember(each)
        step, looks = int(metrics["step"]), self.looks(trial_id)
        self.board.add(trial_id, step, Look(metrics[self.key], looks.read(step)))
        if looks.spared:
            return None
        return self.board.reason(trial_id, step, int(metrics["steps"]))

    def forget(self, trial_id: str) -> None:
        """Read the trial's looks again: it may have been run by another driver."""
        self._known.discard(trial_id)

    def looks(self, trial_id: str) -> Looks:
        """The trial's looks in the run folder."""
        return Looks(str(looks_place(self.plan, self.ledger, trial_id)))

    def _remember(self, trial_id: str) -> None:
        if trial_id not in self._known:
            self._known.add(trial_id)
            for step, look in kept_looks(self.ledger, self.looks(trial_id), trial_id, self.key):
                self.board.add(trial_id, step, look)


def kept_looks(ledger: Ledger, looks: Looks, trial_id: str, key: str) -> Iterator[tuple[int, Look]]:
    """Step and look of what a trial has shown, in order of steps; of trials that kept no scores per
    query, the means in their history."""
    steps = looks.steps()
    for step in steps:
        scores = looks.read(step)
        if scores is not None:
            yield step, Look(float(scores.mean()), scores)
    for row in [] if steps else ledger.history(trial_id):
        if key in row:
            yield int(row["step"]), Look(row[key])


def judge(plan: Plan, ledger: Ledger, choices: Mapping[str, int] | None) -> Judge | None:
    """What stops the trials of the phase of the `choices`, or (None) of the one that makes them."""
    if plan.study.stop is None:
        return None
    trials = plan.choose() if choices is None else plan.repeat(choices)
    return Judge(plan, ledger, trials, chosen=choices is not None)


class Stopping:
    """A watcher that passes everything on, and tells trials to stop as the judge says."""

    def __init__(self, watcher: Watcher, judge: Judge) -> None:
        self.watcher, self.judge = watcher, judge

    def started(self, trial_id: str) -> None:
        """A trial has begun, or begun again."""
        self.watcher.started(trial_id)

    def lost(self, trial_id: str) -> None:
        """A trial's process or node is lost, and it waits to begin again."""
        self.watcher.lost(trial_id)

    def progress(self, trial_id: str, metrics: Mapping[str, float]) -> None:
        """A trial is at a step. One that runs in its Tune actor waits until this returns."""
        reason = self.judge.reason(trial_id, metrics)
        if reason is not None:
            self.judge.looks(trial_id).stop(int(metrics["step"]), reason)
        self.watcher.progress(trial_id, metrics)

    def ended(self, record: Record) -> None:
        """A trial's final record is there, perhaps by another driver."""
        self.judge.forget(record.trial_id)
        self.watcher.ended(record)
