"""One planned trial on one node: from the ledger's record, through the trial, to the next record.

Idempotent: what the ledger already holds is not done again, and a trial that fails for a reason of
its own ends as a record that says so, never as an exception.
"""

from __future__ import annotations

import shutil
import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.run import older
from ablate.run.ledger import Ledger, Record, slug
from ablate.run.resume import Resume
from ablate.run.store import StoreUnreachable
from trainables import scratch
from trainables.data.cache import Cache
from trainables.data.collections import Ref, fingerprint, parse_refs
from trainables.evaluation.means import beir_means
from trainables.faults import is_own, reason_of
from trainables.looks import STOPPED
from trainables.memory import uncollected
from trainables.patience import PATIENCE_SECONDS
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
    """Label -> identity of what it is scored on, of every reference and each of its judges: what
    being done takes."""
    claim: str | None = None
    """The driver's claim; a trial whose claim is gone has been taken over and ends unheard."""
    watch: Mapping[str, Any] | None = None
    """What is scored while it trains: fields of `trainables.evaluation.watching.Watch`."""
    looks: str | None = None
    """Where it keeps what it watches, score by score: a place of `trainables.looks.Looks`."""
    stops: bool = False
    """Whether its study stops trials early, so that a trial that was stopped stays so."""


@dataclass(frozen=True)
class Resources:
    """What one trial occupies, and where its files go."""

    runs: str
    cache: str
    workers: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    checkpoint_steps: int = 200


def is_done(record: Record | None, wanted: Mapping[str, str]) -> bool:
    """Whether the trial is finished and scored on every label of `wanted`, on that data."""
    return record is not None and record.state == "finished" and has(record, wanted)


def has(record: Record, wanted: Mapping[str, str]) -> bool:
    """Whether the trial is scored on every label of `wanted`, on that data."""
    return all(record.evaluated.get(label) == mark for label, mark in wanted.items())


def is_settled(record: Record | None, wanted: Mapping[str, str], stops: bool = False) -> bool:
    """Whether running the trial would add nothing: it is done, or would fail as it did before, or
    was stopped early and its study `stops` trials."""
    if record is None or is_done(record, wanted):
        return record is not None
    return record.own_fault if record.state == "failed" else stops and record.state == "stopped"


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
    nothing written, when the job's claim was lost, and StoreUnreachable when the run folder was.
    """
    ledger = Ledger(resources.runs, PATIENCE_SECONDS)
    # This may have waited for a node for long.
    _require_claim(job, ledger)
    record = _begin(job, ledger)
    scratch.sweep()
    here = ledger.store.scratch()
    output = here / "output"
    try:
        try:
            outcome = _run(record, job, resources, here, on_progress, callbacks)
            _require_claim(job, ledger)
            ledger.publish(job.trial_id, output)
            record = _ended(record, outcome)
        except (TakenOver, StoreUnreachable):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a trial raises is its result
            _require_claim(job, ledger)
            record = _failed(record, error)
            _keep_training(job, ledger, output)
        ledger.write(record)
    finally:
        shutil.rmtree(here, ignore_errors=True)
    if record.state == "finished":
        Resume(ledger.store, job.trial_id).delete()
    return record


def is_claimed(job: Job, ledger: Ledger) -> bool:
    """Whether the job is still its driver's: no other has taken it over."""
    return job.claim is None or ledger.store.exists(job.claim)


def _require_claim(job: Job, ledger: Ledger) -> None:
    if not is_claimed(job, ledger):
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
        metrics={k: v for k, v in before.metrics.items() if not k.startswith(STOPPED)},
        state="running",
        reason=None,
        own_fault=False,
        log_tail=(),
        started=before.started or time.time(),
        finished=None,
        attempts=before.attempts + 1,
        host=socket.gethostname(),
    )
    older.settle(ledger.store, f"trials/{job.trial_id}/evaluations", record.evaluated)
    ledger.write(record)
    return record


def _run(
    record: Record,
    job: Job,
    resources: Resources,
    here: Path,
    on_progress: Callable[[Mapping[str, float]], None],
    callbacks: tuple[Any, ...],
) -> Outcome:
    """Leaves what the trial writes in `here`/output; copies of what it reads go to `here` too."""
    with uncollected():
        from trainables import worker
        from trainables.train import TrialTask

    output = here / "output"
    output.mkdir(parents=True)
    ledger = Ledger(resources.runs, PATIENCE_SECONDS)
    trained = _trained(job, ledger, here / "trained")
    cache = Cache(Path(resources.cache))
    refs, kept = _left(record, job.refs, ledger, cache, here) if trained else (job.refs, {})
    task = TrialTask(
        spec=dict(job.spec),
        refs=refs,
        cache=resources.cache,
        output=str(output),
        trained=str(trained) if trained else None,
        kept=kept,
        watch=job.watch,
        looks=job.looks,
        stops=job.stops,
        checkpoint_steps=resources.checkpoint_steps,
    )
    if resources.workers > 1:
        return _run_group(job, resources, ledger, task, callbacks)
    resume = Resume(ledger.store, job.trial_id)
    reporter = worker.HereReporter(
        on_progress,
        keep=lambda folder: _keep_resume(job, ledger, resume, folder),
        kept=lambda: resume.newest(here),
    )
    return worker.run_here(task, reporter, threads=max(1, int(resources.cpus)))


def _keep_resume(job: Job, ledger: Ledger, resume: Resume, folder: Path) -> None:
    _require_claim(job, ledger)
    resume.keep(folder)


def _trained(job: Job, ledger: Ledger, copy: Path) -> Path | None:
    """A folder with the job's trained encoder, if it is there and whole."""
    trained = ledger.checkpoint(job.trial_id, copy)
    # On an object store a folder that was being put there may be short of anything, its seal too.
    sealed = ledger.store.local is None
    return trained if trained is not None and is_whole(trained, sealed) else None


def _left(
    record: Record, refs: Sequence[str], ledger: Ledger, cache: Cache, here: Path
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The references that a trained trial lacks, and folders of the runs that some of them need.

    A run that was kept on the same data is judged again without a search.
    """
    left, kept = [], {}
    for text in refs:
        (ref,) = parse_refs(text)
        mark = fingerprint(ref.collection)
        if has(record, ref.marks(mark)):
            continue
        left.append(text)
        folder = _kept_run(record, ref, mark, ledger, cache, here)
        if folder is not None:
            kept[ref.label] = str(folder)
    return tuple(left), kept


def _kept_run(
    record: Record, ref: Ref, mark: str, ledger: Ledger, cache: Cache, here: Path
) -> Path | None:
    """A folder with the run of every query of `ref`, left by its own threshold or by another."""
    from trainables.evaluation.judging import holds

    for label in sorted(record.evaluated, key=lambda label: label != ref.label):
        if record.evaluated[label] != mark or not ref.shares_split(label):
            continue
        home, copy = f"trials/{record.trial_id}/evaluations/{slug(label)}", here / slug(ref.label)
        folder = ledger.store.fetch(home, copy / slug(label))
        if folder is not None and holds(folder, ref, cache):
            return folder
    return None


def _run_group(
    job: Job,
    resources: Resources,
    ledger: Ledger,
    task: TrialTask,
    callbacks: tuple[Any, ...],
) -> Outcome:
    from trainables import worker

    group = worker.Group(resources.workers, resources.cpus, resources.gpus)
    outcome = worker.run_group(task, group, ledger.store.uri_of(".train"), job.trial_id, callbacks)
    ledger.store.delete(f".train/{job.trial_id}")
    return outcome


def _ended(record: Record, outcome: Outcome) -> Record:
    metrics = {**record.metrics, **outcome.metrics}
    return replace(
        record,
        state="finished" if outcome.stopped is None else "stopped",
        reason=outcome.stopped,
        finished=time.time(),
        metrics=metrics | beir_means(metrics),
        seconds={**record.seconds, **outcome.seconds, "evaluate": _evaluating(record, outcome)},
        evaluated={**record.evaluated, **outcome.evaluated},
    )


def _evaluating(record: Record, outcome: Outcome) -> float:
    """Seconds of all evaluations: further references are scored beside those of before."""
    return sum(part.seconds.get("evaluate", 0.0) for part in (record, outcome))


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
