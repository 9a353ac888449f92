"""Runs a study and says each end on standard output: what the tests of a sweep start and kill."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ablate.plan.planner import make_plan
from ablate.plan.study import load_study
from ablate.run.execution import StudyRun
from ablate.run.ledger import Record
from ablate.run.trial import Job


class Lines:
    """A watcher that prints one line an event, to the real stream."""

    def __init__(self) -> None:
        self.out = sys.stdout

    def say(self, *words: object) -> None:
        print(*words, file=self.out, flush=True)

    def note(self, text: str) -> None:
        self.say("note", text)

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        self.say("working", text)
        yield

    @contextmanager
    def phase(self, name: str, jobs: Sequence[Job], slots: int, to_come: int) -> Iterator[None]:
        self.say("phase", name.replace(" ", "_"), len(jobs) + to_come, slots)
        yield

    def started(self, trial_id: str) -> None:
        self.say("started", trial_id)

    def lost(self, trial_id: str) -> None:
        self.say("lost", trial_id)

    def progress(self, trial_id: str, metrics: Mapping[str, float]) -> None:
        self.say("progress", trial_id, metrics["step"])

    def ended(self, record: Record) -> None:
        self.say("ended", record.trial_id, record.state)


if __name__ == "__main__":
    study, runs = sys.argv[1], sys.argv[2]
    done = StudyRun(make_plan(load_study(study)), runs, Lines()).run()
    print("done", done.trained, done.failed, done.already, flush=True)
