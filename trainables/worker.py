"""Two doors to the same loop: directly in this process, or in a Ray Train worker group."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trainables import scratch
from trainables.cpus import usable
from trainables.data.cache import Cache
from trainables.data.collections import open_collection, parse_refs
from trainables.data.sources import training_ref
from trainables.evaluation.evaluate import bm25, evaluate
from trainables.evaluation.judging import write_side_by_side
from trainables.evaluation.watching import Watch, Watcher
from trainables.faults import Lost, first_line, is_own
from trainables.memory import give_memory_back, settle
from trainables.model.collectives import from_first
from trainables.model.encoder import Encoder
from trainables.places import freeing_abandoned
from trainables.prepare.prepare import ensure_judges, prepare
from trainables.spec import TrialSpec
from trainables.train import Outcome, TrialTask, device, train_trial

PROGRESS_SECONDS = 1.0
"""Progress is passed on no more often than this: a report blocks the trial for a moment."""

GROUP_PROGRESS_SECONDS = 10.0
"""Of a worker group, whose reports Ray Train takes up every two seconds: a worker waits so long."""


@dataclass(frozen=True)
class Group:
    """The worker group of one trial."""

    workers: int
    cpus: float = 1.0
    gpus: float = 0.0
    max_failures: int = 3
    """Restarts after an infrastructure fault (a worker killed, a node lost), in a row without a
    training checkpoint between them."""


class HereReporter:
    """Rank 0 of 1. `keep` and `kept` move training checkpoints to and from a durable place."""

    rank = 0
    world_size = 1

    def __init__(
        self,
        on_progress: Callable[[Mapping[str, float]], None],
        keep: Callable[[Path], None],
        kept: Callable[[], Path | None],
    ) -> None:
        self._on_progress, self._keep, self._kept = on_progress, keep, kept
        self._last = 0.0

    def progress(self, metrics: Mapping[str, float]) -> None:
        """Pass the metrics on, unless the last ones are less than a second old."""
        if time.monotonic() - self._last >= PROGRESS_SECONDS:
            self._on_progress(metrics)
            self._last = time.monotonic()

    def dev(self, metrics: Mapping[str, float]) -> None:
        """Pass the metrics on, however soon after the last."""
        self._on_progress(metrics)
        self._last = time.monotonic()

    def save(self, folder: Path, step: int) -> None:
        """Hand the folder over; it is gone afterwards."""
        self._keep(folder)

    def restore(self) -> Path | None:
        """The folder that was handed over last."""
        return self._kept()


def run_here(task: TrialTask, reporter: HereReporter, threads: int) -> Outcome:
    """Run a one-worker trial in this process, on `threads` CPU threads."""
    import torch

    torch.set_num_threads(threads)
    try:
        outcome = train_trial(task, reporter)
    finally:
        give_memory_back()
    # Not when it fails: what the error still holds is to be freed.
    settle()
    return outcome


def run_group(
    task: TrialTask, group: Group, storage: str, name: str, callbacks: Sequence[Any] = ()
) -> Outcome:
    """Run a trial on a Ray Train worker group and bring what it wrote to `task.output`.

    `storage` is a path or URI that every node reaches; the same `name` continues where an earlier
    group of that name stopped. Raises what the trial raised, at once when it is at fault itself;
    else the group starts again, and Lost is raised after `group.max_failures` restarts that got no
    further.
    """
    from ray import train

    losses, kept = 0, _checkpoints(storage, name)
    while True:
        try:
            result = _fit_group(task, group, storage, name, callbacks)
            break
        except train.TrainingFailedError as error:
            own = _own_fault(error)
            if own is not None:
                raise own from error
            before, kept = kept, _checkpoints(storage, name)
            losses = losses + 1 if kept == before else 1
            if losses > group.max_failures:
                raise Lost(_lost(error, losses)) from error
    with result.checkpoint.as_directory() as folder:
        shutil.copytree(folder, task.output, dirs_exist_ok=True)
    return Outcome.read(Path(task.output))


def _fit_group(
    task: TrialTask, group: Group, storage: str, name: str, callbacks: Sequence[Any]
) -> Any:
    from ray import train
    from ray.train.torch import TorchConfig, TorchTrainer

    resources: dict[str, float] = {"CPU": group.cpus}
    if group.gpus:
        resources["GPU"] = group.gpus
    trainer = TorchTrainer(
        _group_loop,
        train_loop_config={**asdict(task), "threads": max(1, int(group.cpus))},
        scaling_config=train.ScalingConfig(
            num_workers=group.workers, use_gpu=group.gpus > 0, resources_per_worker=resources
        ),
        torch_config=TorchConfig(backend="nccl" if group.gpus else "gloo"),
        run_config=train.RunConfig(
            name=name,
            storage_path=storage,
            callbacks=list(callbacks),
            checkpoint_config=train.CheckpointConfig(num_to_keep=1),
        ),
    )
    with freeing_abandoned(resources):
        return trainer.fit()


def _own_fault(error: Any) -> BaseException | None:
    """What the trial raised in its workers, unless one of them was lost: then that is the cause."""
    failures = getattr(error, "worker_failures", {})
    raised = [getattr(failures[rank], "_base_exc", failures[rank]) for rank in sorted(failures)]
    if any(type(cause).__module__.startswith("ray.") for cause in raised):
        return None
    return next((cause for cause in raised if is_own(cause)), None)


def _lost(error: Any, times: int) -> str:
    """What became of a worker group, in one line."""
    failures = getattr(error, "worker_failures", {})
    causes = [getattr(failures[rank], "health_check_failure", failures[rank]) for rank in failures]
    cause: BaseException = next(iter(causes), getattr(error, "controller_failure", error))
    what = f"{type(cause).__name__}: {first_line(cause)}"
    return f"its worker group was lost {times} times in a row without progress; {what}"


def _checkpoints(storage: str, name: str) -> set[str]:
    """Names of the training checkpoints that a group has kept so far."""
    from pyarrow import fs

    files, root = fs.FileSystem.from_uri(storage if "://" in storage else str(Path(storage)))
    selector = fs.FileSelector(f"{root}/{name}", allow_not_found=True)
    names = {info.base_name for info in files.get_file_info(selector)}
    return {kept for kept in names if kept.startswith("checkpoint_")}


def prepare_here(spec: Mapping[str, Any], cache: str) -> dict[str, Any]:
    """Build in this process, on every core it may use, what trials of `spec` read; see `prepare`.

    Returns the fields of Prepared, and under `splits` the queries and judgements of each split.
    """
    import torch

    torch.set_num_threads(usable())
    trial, store = TrialSpec.from_flat(spec), Cache(Path(cache))
    prepared = prepare(trial, store)
    collection = open_collection(training_ref(trial.data).collection, store)
    judged = {split: collection.judgements(split) for split in collection.splits}
    splits = {
        split: {"queries": len(set(found.query_ids)), "judgements": len(found.query_ids)}
        for split, found in judged.items()
    }
    return {**asdict(prepared), "splits": splits}


def watch_here(watch: Mapping[str, Any], cache: str) -> None:
    """Make what a trial reads that watches a split. Raises InvalidInput when that cannot be."""
    Watcher(Watch(**watch), Cache(Path(cache)), "float32")


def baseline_here(
    name: str, spec: Mapping[str, Any], refs: Sequence[str], cache: str, output: str, threads: int
) -> None:
    """Score BM25 (`bm25`) or the backbone as it comes (`untrained…`), one folder a reference."""
    import torch

    torch.set_num_threads(threads)
    store = Cache(Path(cache))
    parsed = [ref for text in refs for ref in parse_refs(text)]
    ensure_judges(parsed, store)
    if name == "bm25":
        found = bm25(parsed, store)
    else:
        trial = TrialSpec.from_flat(spec)
        encoder = Encoder.load(trial.encoder, trial.seed).to(device())
        found = evaluate(encoder, parsed, store)
    for ref, scores in zip(parsed, found, strict=True):
        write_side_by_side(scores, ref, store, Path(output))


def evaluate_here(
    model: str,
    refs: Sequence[str],
    cache: str,
    output: str,
    threads: int,
    on_progress: Callable[[int, int], None],
    keep_embeddings: bool = False,
) -> dict[str, float]:
    """Score a checkpoint's folder or a Hugging Face name; a folder a reference, all metrics back.

    `on_progress` gets passages done and passages in all.
    """
    import torch

    torch.set_num_threads(threads)
    parsed, store = [ref for text in refs for ref in parse_refs(text)], Cache(Path(cache))
    ensure_judges(parsed, store)
    encoder = Encoder.from_folder(model).to(device())
    metrics: dict[str, float] = {}
    found = evaluate(encoder, parsed, store, progress=on_progress, keep_embeddings=keep_embeddings)
    for ref, scores in zip(parsed, found, strict=True):
        metrics |= write_side_by_side(scores, ref, store, Path(output))
    return metrics


def distance(one: Path, other: Path) -> float:
    """|a - b| / |a| over all weights of two checkpoints of the same form."""
    from safetensors.torch import load_file

    squares = [0.0, 0.0]
    for file in sorted(one.rglob("*.safetensors")):
        theirs = load_file(other / file.relative_to(one))
        for key, value in load_file(file).items():
            squares[0] += float((value.double() - theirs[key].double()).square().sum())
            squares[1] += float(value.double().square().sum())
    return float((squares[0] / squares[1]) ** 0.5)


class _GroupReporter:
    """A Ray Train worker. A report is collective: every rank makes the same ones."""

    def __init__(self, kept: Path) -> None:
        """`kept` is where a training checkpoint is copied to."""
        from ray import train

        context = train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self._kept = kept
        self._told = float("-inf")

    def progress(self, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        # A report is collective, so one clock decides.
        if from_first("due" if now - self._told >= GROUP_PROGRESS_SECONDS else None):
            self.dev(metrics)
            self._told = now

    def dev(self, metrics: Mapping[str, float]) -> None:
        from ray import train

        train.report(dict(metrics))

    def save(self, folder: Path, step: int) -> None:
        from ray import train

        kept = train.Checkpoint.from_directory(folder) if self.rank == 0 else None
        train.report({"step": float(step)}, checkpoint=kept)

    def restore(self) -> Path | None:
        from ray import train

        kept = train.get_checkpoint()
        if kept is None:
            return None
        return Path(kept.to_directory(str(self._kept)))


def _group_loop(config: dict[str, Any]) -> None:
    import torch

    threads = config.pop("threads")
    torch.set_num_threads(threads)
    scratch.sweep()
    here = scratch.fresh()
    reporter, output = _GroupReporter(here / "kept"), here / "output"
    try:
        task = replace(TrialTask(**config), output=str(output))
        train_trial(task, reporter)
        shutil.rmtree(output / "resume", ignore_errors=True)
        reporter.save(output, -1)
    finally:
        shutil.rmtree(here, ignore_errors=True)
