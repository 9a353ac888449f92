"""Jobs for a scheduler that asks for the next one when it has room."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from ablate.run.lease import WAIT_SECONDS, Leases
from ablate.run.ledger import Ledger, Record
from ablate.run.trial import Job, is_settled

STARTS = 4
"""How often a job is handed out that never comes to run, as no node stays long enough."""


class Supply:
    """The jobs that nobody has done and no other driver is at, each under this driver's claim.

    What another driver is at is asked for again until it is done or that driver is dead. `settled`
    is told the record of a job that another has ended.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        ledger: Ledger,
        leases: Leases,
        settled: Callable[[Record], None],
    ) -> None:
        self.ledger, self.leases, self._settled = ledger, leases, settled
        self._waiting = deque(jobs)
        self._elsewhere: list[Job] = []
        self._out: dict[str, Job] = {}
        self._starts: Counter[str] = Counter()
        self._looked = 0.0

    @property
    def empty(self) -> bool:
        """Whether there is nothing more to hand out, now or later."""
        return not (self._waiting or self._elsewhere or self._out)

    @property
    def all_out(self) -> bool:
        """Whether only jobs that are handed out are left."""
        return not (self._waiting or self._elsewhere)

    def next(self) -> Job | None:
        """A job to run; None when there is none, or none at the moment."""
        self._look()
        while self._waiting:
            job = self._waiting.popleft()
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

    def _look(self) -> None:
        if not self._elsewhere or time.monotonic() - self._looked < WAIT_SECONDS:
            return
        self._looked = time.monotonic()
        claimed = self.leases.elsewhere()
        self._waiting.extend(job for job in self._elsewhere if job.trial_id not in claimed)
        self._elsewhere = [job for job in self._elsewhere if job.trial_id in claimed]
