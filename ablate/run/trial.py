"""One planned trial on one node: from the ledger's record, through the trial, to the next record.

Idempotent: what the ledger already holds is not done again, and a trial that fails for a reason of
its own ends as a record that says so, never as an exception.
"""

from __future__ import annotations

import shutil
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.run.ledger import Ledger, Record
from trainables.faults import is_own, reason_of
from trainables.whole import is_whole

if TYPE_CHECKING:
    from trainables.train import Outcome, TrialTask

TAIL_LINES = 20


@dataclass(frozen=True)
class Job:
    """A trial and the references it must be scored on; `spec` and `refs` hold absolute paths."""

    trial_id: str
    cell: str
    seed: int
    identity: Mapping[str, Any]
    """The flat spec as planned: what the record keeps."""
    spec: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    refs: tuple[str, ...]
    wanted: Mapping[str, str] = field(default_factory=dict)
    """Label of each reference -> fingerprint of its collection: what being done takes."""
    claim: str | None = None
    """The driver's claim; a trial whose claim is gone has been taken over and ends unheard."""


@dataclass(frozen=True)
class Resources:
    """What one trial occupies, and where its files go."""

    runs: str
    cache: str
    workers: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    checkpoint_steps: int = 200


def is_done(record: Record | None, refs: Mapping[str, str]) -> bool:
    """Whether the trial is finished and scored on every reference, on the data of `refs`."""
    return (
        record is not None
        and record.state == "finished"
        and all(record.evaluated.get(label) == print_ for label, print_ in refs.items())
    )


def is_settled(record: Record | None, refs: Mapping[str, str]) -> bool:
    """Whether running the trial would add nothing: it is done, or would fail as it did before."""
    return is_done(record, refs) or (
        record is not None and record.state == "failed" and record.own_fault
    )


class TakenOver(RuntimeError):
    """Another driver has claimed the trial meanwhile; what it writes is what counts."""


def execute(
    job: Job,
    resources: Resources,
    on_progress: Callable[[Mapping[str, float]], None],
    callbacks: tuple[Any, ...] = (),
) -> Record:
    """Run the job and return its final record, which is in the ledger by then.

    `callbacks` go to the Ray Train worker group, when the trial has one. Raises TakenOver, with
    nothing written, when the job's claim was lost.
    """
    ledger = Ledger(resources.runs)
    record = _begin(job, ledger)
    output = ledger.store.scratch()
    try:
        try:
            outcome = _run(job, resources, ledger, output, on_progress, callbacks)
            _require_claim(job, ledger)
            ledger.publish(job.trial_id, output)
            record = _finished(record, outcome)
        except TakenOver:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a trial raises is its result
            _require_claim(job, ledger)
            record = _failed(record, error)
            _keep_training(job, ledger, output)
        ledger.write(record)
    finally:
        shutil.rmtree(output, ignore_errors=True)
    if record.state == "finished":
        ledger.store.delete(f"trials/{job.trial_id}/resume")
    return record


def _require_claim(job: Job, ledger: Ledger) -> None:
    if job.claim is not None and not ledger.store.exists(job.claim):
        raise TakenOver(job.trial_id)


def lost(job: Job, ledger: Ledger, reason: str, own_fault: bool = False) -> Record:
    """Record that the job's process or node vanished more often than it is retried."""
    before = ledger.record(job.trial_id) or _new(job)
    record = replace(
        before, state="failed", reason=reason, own_fault=own_fault, finished=time.time()
    )
    ledger.write(record)
    return record


def _keep_training(job: Job, ledger: Ledger, output: Path) -> None:
    """Publish the checkpoint of a trial that failed after its training, so it is not lost."""
    if (output / "checkpoint" / "outcome.json").exists():
        ledger.publish(job.trial_id, output)


def _new(job: Job) -> Record:
    return Record(job.trial_id, dict(job.identity), dict(job.fingerprints))


def _begin(job: Job, ledger: Ledger) -> Record:
    before = ledger.record(job.trial_id) or _new(job)
    record = replace(
        before,
        state="running",
        reason=None,
        own_fault=False,
        log_tail=(),
        started=before.started or time.time(),
        finished=None,
        attempts=before.attempts + 1,
        host=socket.gethostname(),
    )
    ledger.write(record)
    return record


def _run(
    job: Job,
    resources: Resources,
    ledger: Ledger,
    output: Path,
    on_progress: Callable[[Mapping[str, float]], None],
    callbacks: tuple[Any, ...],
) -> Outcome:
    from trainables import worker
    from trainables.train import TrialTask

    output.mkdir(parents=True)
    trained = ledger.checkpoint(job.trial_id)
    task = TrialTask(
        spec=dict(job.spec),
        refs=job.refs,
        cache=resources.cache,
        output=str(output),
        trained=str(trained) if trained and is_whole(trained) else None,
        checkpoint_steps=resources.checkpoint_steps,
    )
    if resources.workers > 1:
        return _run_group(job, resources, ledger, task, callbacks)
    resume = f"trials/{job.trial_id}/resume"
    reporter = worker.HereReporter(
        on_progress,
        keep=lambda folder: ledger.store.publish(folder, resume),
        kept=lambda: ledger.store.fetch(resume),
    )
    return worker.run_here(task, reporter, threads=max(1, int(resources.cpus)))


def _run_group(
    job: Job,
    resources: Resources,
    ledger: Ledger,
    task: TrialTask,
    callbacks: tuple[Any, ...],
) -> Outcome:
    from trainables import worker

    group = worker.Group(resources.workers, resources.cpus, resources.gpus)
    outcome = worker.run_group(task, group, f"{ledger.store.uri}/.train", job.trial_id, callbacks)
    ledger.store.delete(f".train/{job.trial_id}")
    return outcome


def _finished(record: Record, outcome: Outcome) -> Record:
    return replace(
        record,
        state="finished",
        finished=time.time(),
        metrics={**record.metrics, **outcome.metrics},
        seconds={**record.seconds, **outcome.seconds},
        evaluated={**record.evaluated, **outcome.evaluated},
    )


def _failed(record: Record, error: Exception) -> Record:
    lines = "".join(traceback.format_exception(error)).splitlines()
    return replace(
        record,
        state="failed",
        reason=reason_of(error, record.spec),
        own_fault=is_own(error),
        finished=time.time(),
        log_tail=tuple(lines[-TAIL_LINES:]),
    )
