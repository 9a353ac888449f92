"""Jobs for a scheduler that asks for the next one when it has room."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from ablate.run.lease import WAIT_SECONDS, Leases, Wait
from ablate.run.ledger import Ledger, Record
from ablate.run.trial import Job, is_settled

STARTS = 4
"""How often a job is handed out that never comes to run, as no node stays long enough."""


class Further(Protocol):
    """Jobs that follow from the results of others."""

    @property
    def to_come(self) -> int:
        """How many jobs have yet to be handed out."""

    def next(self, busy: Collection[str]) -> Job | None:
        """One more job, while the trials of `busy` have not ended; None when there is none yet."""


class Supply:
    """The jobs that nobody has done and no other driver is at, each under this driver's claim.

    What another driver is at is asked for again until it is done or that driver is dead. `settled`
    is told the record of a job that another has ended. The jobs of `further` come after the others.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        ledger: Ledger,
        leases: Leases,
        settled: Callable[[Record], None],
        further: Further | None = None,
    ) -> None:
        self.ledger, self.leases, self._settled = ledger, leases, settled
        self._waiting, self._further = deque(jobs), further
        self._elsewhere: list[Job] = []
        self._out: dict[str, Job] = {}
        self._starts: Counter[str] = Counter()
        self._looked = 0.0
        self._wait = Wait(leases.say)

    @property
    def empty(self) -> bool:
        """Whether there is nothing more to hand out, now or later."""
        return self.all_out and not self._out

    @property
    def all_out(self) -> bool:
        """Whether only jobs that are handed out are left."""
        to_come = self._further.to_come if self._further else 0
        return not (self._waiting or self._elsewhere or to_come)

    def next(self) -> Job | None:
        """A job to run; None when there is none, or none at the moment."""
        job = self._take()
        if job is not None or not self._elsewhere:
            self._wait.over()
        elif not self._out:
            self._wait.on(self._what_others_do())
        return job

    def _take(self) -> Job | None:
        self._look()
        while (job := self._pop()) is not None:
            if not self.leases.claim(job.trial_id):
                self._elsewhere.append(job)
                continue
            # Read under the claim: the one who had it may just have ended the trial.
            record = self.ledger.record(job.trial_id)
            if record is not None and job.wanted and is_settled(record, job.wanted, job.stops):
                self.leases.release(job.trial_id)
                self._settled(record)
                continue
            self._out[job.trial_id] = job
            return job
        return None

    def _pop(self) -> Job | None:
        if self._waiting:
            return self._waiting.popleft()
        if self._further is None:
            return None
        return self._further.next({*self._out, *(job.trial_id for job in self._elsewhere)})

    def end(self, trial_id: str) -> None:
        """The job has ended, with its record in the ledger."""
        del self._out[trial_id]
        self.leases.release(trial_id)

    def never_ran(self, trial_id: str) -> bool:
        """Whether the job, which no node has begun, will be handed out again."""
        self._starts[trial_id] += 1
        again = self._starts[trial_id] < STARTS
        job = self._out[trial_id]
        self.end(trial_id)
        if again:
            self._waiting.append(job)
        return again

    def taken_over(self, trial_id: str) -> None:
        """Another driver took the job while this one could not keep its claim fresh."""
        job = self._out[trial_id]
        self.end(trial_id)
        self._elsewhere.append(job)

    def _what_others_do(self) -> str:
        """Which driver has the jobs that are left."""
        count = len(self._elsewhere)
        left = "a trial" if count == 1 else f"{count} trials"
        return f"{self.leases.holders(job.trial_id for job in self._elsewhere)}, which has {left}"

    def _look(self) -> None:
        if not self._elsewhere or time.monotonic() - self._looked < WAIT_SECONDS:
            return
        self._looked = time.monotonic()
        claimed = self.leases.elsewhere()
        self._waiting.extend(job for job in self._elsewhere if job.trial_id not in claimed)
        self._elsewhere = [job for job in self._elsewhere if job.trial_id in claimed]
