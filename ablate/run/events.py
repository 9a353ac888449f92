"""What happens to trials in a sweep: Ray Tune's events as those of a watcher and of the ledger."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from ablate.run.capacity import ClusterCannot
from ablate.run.ledger import Ledger, Record
from ablate.run.supply import Supply
from ablate.run.trial import Job, is_claimed, lost
from trainables.faults import is_out_of_memory, out_of_memory

INFRASTRUCTURE_RETRIES = 3
"""Losses of a process or node, in a row without a step of progress, that a trial outlives."""


class Watcher(Protocol):
    """Sees a sweep as it goes; called in the driver."""

    def started(self, trial_id: str) -> None:
        """The trial has begun, or begun again."""

    def lost(self, trial_id: str) -> None:
        """The trial's process or node is lost, and it waits to begin again."""

    def progress(self, trial_id: str, metrics: Mapping[str, float]) -> None:
        """The trial is at `metrics["step"]` of `metrics["steps"]`."""

    def ended(self, record: Record) -> None:
        """The trial's final record is in the ledger."""


class Events:
    """Tune's events as the watcher's, and what becomes of trials whose process or node is lost."""

    def __init__(self, ledger: Ledger, watcher: Watcher, supply: Supply) -> None:
        self.ledger, self.watcher, self.supply = ledger, watcher, supply
        self.records: list[Record] = []
        self.blind: str | None = None
        self.failure: Exception | None = None
        self._running: set[str] = set()
        self._steps: dict[str, float] = {}
        self._losses: dict[str, tuple[int, float]] = {}

    def on_step_begin(self, iteration: int, trials: Any, **_: Any) -> None:
        """End the sweep after a trial's end that could not be recorded or told."""
        if self.failure is not None:
            raise self.failure

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self._running.add(_id(trial))
        self.watcher.started(_id(trial))

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
    ) -> None:
        if "blind" in result:
            self.blind = result["blind"]
            raise ClusterCannot(self.blind)
        if "step" in result and result["step"] > self._steps.get(_id(trial), 0.0):
            self._steps[_id(trial)] = result["step"]
            trial.max_failures = -1
        # A worker group's report of a checkpoint has the step alone.
        if "steps" in result:
            self.watcher.progress(_id(trial), result)

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """Count losses in a row without a step of progress; too many, and the next is final."""
        self._running.discard(_id(trial))
        self.watcher.lost(_id(trial))
        step = self._steps.get(_id(trial), 0.0)
        count, before = self._losses.get(_id(trial), (0, 0.0))
        count = count + 1 if step <= before else 1
        self._losses[_id(trial)] = (count, step)
        if count >= INFRASTRUCTURE_RETRIES:
            trial.max_failures = 0

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        with self._guarded():
            self._completed(trial)

    def _completed(self, trial: Any) -> None:
        job = trial.config["job"].job
        if "taken_over" in (trial.last_result or {}):
            self.supply.taken_over(job.trial_id)
            return
        record = self.ledger.record(job.trial_id)
        if record is not None and record.state != "running":
            self._end(record)
        else:
            self._lost(job, "the trial ended without a result")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        with self._guarded():
            self._erred(trial)

    def _erred(self, trial: Any) -> None:
        job, error = trial.config["job"].job, trial.get_error()
        if job.trial_id not in self._running:
            self._never_began(job)
        elif error is not None and is_out_of_memory(error):
            self._lost(job, out_of_memory(job.spec), own_fault=True)
        else:
            again = f"{INFRASTRUCTURE_RETRIES + 1} times in a row without progress"
            self._lost(job, f"its process or node was lost {again}")

    def _never_began(self, job: Job) -> None:
        if not is_claimed(job, self.ledger):
            self.supply.taken_over(job.trial_id)
        elif not self.supply.never_ran(job.trial_id):
            self._tell(lost(job, self.ledger, "no node stayed long enough to start it"))

    def _lost(self, job: Job, reason: str, own_fault: bool = False) -> None:
        if is_claimed(job, self.ledger):
            self._end(lost(job, self.ledger, reason, own_fault))
        else:
            self.supply.taken_over(job.trial_id)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """An end that cannot be recorded or told ends the sweep, at its next step: of an error that
        is raised in the block Tune would say that the trial failed, and run it again."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised by `on_step_begin`
            self.failure = self.failure or error

    def _end(self, record: Record) -> None:
        self.supply.end(record.trial_id)
        self._tell(record)

    def _tell(self, record: Record) -> None:
        self.records.append(record)
        self.watcher.ended(record)


def _id(trial: Any) -> str:
    """The trial's id in the ledger; Tune has one of its own."""
    trial_id: str = trial.config["job"].job.trial_id
    return trial_id
