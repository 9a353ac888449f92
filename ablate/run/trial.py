"""One planned trial on one node: from the ledger's record, through the trial, to the next record.

Idempotent: what the ledger already holds is not done again, and a trial that fails for a reason of
its own ends as a record that says so, never as an exception.
"""

from __future__ import annotations

import shutil
import socket
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.run.ledger import Ledger, Record, slug
from trainables.data.collections import Ref, fingerprint, parse_refs
from trainables.errors import InvalidInput
from trainables.evaluation.means import beir_means

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
    watch: Mapping[str, Any] | None = None
    """What is scored while it trains: fields of `trainables.evaluation.watching.Watch`."""


@dataclass(frozen=True)
class Resources:
    """What one trial occupies, and where its files go."""

    runs: str
    cache: str
    workers: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    checkpoint_steps: int = 200


def marks(refs: Iterable[Ref]) -> dict[str, str]:
    """Label -> identity of what it is scored on, of every reference and each of its judges."""
    found: dict[str, str] = {}
    for ref in refs:
        found |= ref.marks(fingerprint(ref.collection))
    return found


def is_done(record: Record | None, wanted: Mapping[str, str]) -> bool:
    """Whether the trial is finished and scored on every label of `wanted`, on that data."""
    return record is not None and record.state == "finished" and _has(record, wanted)


def _has(record: Record, wanted: Mapping[str, str]) -> bool:
    return all(record.evaluated.get(label) == mark for label, mark in wanted.items())


def execute(
    job: Job,
    resources: Resources,
    on_progress: Callable[[Mapping[str, float]], None],
    callbacks: tuple[Any, ...] = (),
) -> Record:
    """Run the job and return its final record, which is in the ledger by then.

    `callbacks` go to the Ray Train worker group, when the trial has one.
    """
    ledger = Ledger(resources.runs)
    record = _begin(job, ledger)
    output = ledger.store.scratch()
    try:
        outcome = _run(record, job, resources, output, on_progress, callbacks)
        ledger.publish(job.trial_id, output)
        record = _finished(record, outcome)
    except Exception as error:  # noqa: BLE001 - whatever a trial raises is its result
        record = _failed(record, error)
        _keep_training(job, ledger, output)
    ledger.write(record)
    if record.state == "finished":
        ledger.store.delete(f"trials/{job.trial_id}/resume")
    shutil.rmtree(output, ignore_errors=True)
    return record


def lost(job: Job, ledger: Ledger, reason: str) -> Record:
    """Record that the job's process or node vanished more often than it is retried."""
    before = ledger.record(job.trial_id) or _new(job)
    record = replace(before, state="failed", reason=reason, finished=time.time())
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
        log_tail=(),
        started=before.started or time.time(),
        finished=None,
        attempts=before.attempts + 1,
        host=socket.gethostname(),
    )
    ledger.write(record)
    return record


def _run(
    record: Record,
    job: Job,
    resources: Resources,
    output: Path,
    on_progress: Callable[[Mapping[str, float]], None],
    callbacks: tuple[Any, ...],
) -> Outcome:
    from trainables import worker
    from trainables.train import TrialTask

    output.mkdir(parents=True)
    ledger = Ledger(resources.runs)
    trained = ledger.checkpoint(job.trial_id)
    refs, kept = _left(record, job.refs, ledger) if trained else (job.refs, {})
    task = TrialTask(
        spec=dict(job.spec),
        refs=refs,
        cache=resources.cache,
        output=str(output),
        trained=str(trained) if trained else None,
        kept=kept,
        watch=job.watch,
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


def _left(
    record: Record, refs: Sequence[str], ledger: Ledger
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The references that a trained trial lacks, and folders of the runs that some of them need.

    A run that was kept on the same data is judged again without a search.
    """
    left, kept = [], {}
    for text in refs:
        (ref,) = parse_refs(text)
        mark = fingerprint(ref.collection)
        if _has(record, ref.marks(mark)):
            continue
        left.append(text)
        if record.evaluated.get(ref.label) == mark:
            home = f"trials/{record.trial_id}/evaluations/{slug(ref.label)}"
            folder = ledger.store.fetch(home)
            if folder is not None:
                kept[ref.label] = str(folder)
    return tuple(left), kept


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
    metrics = {**record.metrics, **outcome.metrics}
    return replace(
        record,
        state="finished",
        finished=time.time(),
        metrics=metrics | beir_means(metrics),
        seconds={**record.seconds, **outcome.seconds},
        evaluated={**record.evaluated, **outcome.evaluated},
    )


def _failed(record: Record, error: Exception) -> Record:
    lines = "".join(traceback.format_exception(error)).splitlines()
    return replace(
        record,
        state="failed",
        reason=reason_of(error),
        finished=time.time(),
        log_tail=tuple(lines[-TAIL_LINES:]),
    )


def reason_of(error: BaseException) -> str:
    """One line that says why a trial failed, with the setting that would help when one would."""
    name = type(error).__name__
    if isinstance(error, MemoryError) or "OutOfMemory" in name or "out of memory" in str(error):
        return "out of memory; lower optim.batch_size or set optim.chunk_size"
    if isinstance(error, InvalidInput):
        return "; ".join(str(problem) for problem in error.problems)
    first = next(iter(str(error).splitlines()), "")
    return first if name == "TrainingFailed" else f"{name}: {first}"
