"""One trial from start to end: prepare, train, evaluate; the same call in a test and on a cluster.

Everything random is a pure function of the seed and the step, so a training that is resumed from
step k, on as many workers, makes the same bits as one that was never interrupted.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file

from trainables.data.cache import Cache
from trainables.data.collections import open_collection, parse_refs
from trainables.evaluation.evaluate import evaluate
from trainables.evaluation.judging import from_folder, write_side_by_side
from trainables.evaluation.watching import Watch, Watcher
from trainables.feed import Feed
from trainables.looks import STOPPED, Looks
from trainables.memory import uncollected
from trainables.model.collectives import from_first
from trainables.model.encoder import Encoder
from trainables.model.objective import Objective, StepResult, training_step
from trainables.prepare.prepare import ensure_judges, prepare
from trainables.spec import OptimSpec, Scalar, TrialSpec
from trainables.whole import is_whole, seal

HISTORY_ROWS = 200
"""Rows that a trial's history holds at most; a row is the mean over the steps it stands for."""


class Reporter(Protocol):
    """How a running trial speaks to whoever started it, and its place among its workers."""

    rank: int
    world_size: int

    def progress(self, metrics: Mapping[str, float]) -> None:
        """Say how far the trial is. Every worker calls it equally often."""

    def dev(self, metrics: Mapping[str, float]) -> None:
        """As `progress`, with the scores that the trial watches; none of these is dropped."""

    def save(self, folder: Path, step: int) -> None:
        """Keep a training checkpoint. Every worker calls it; only rank 0's folder has files."""

    def restore(self) -> Path | None:
        """The folder kept last, or None at the first start."""


class TrainingFailed(RuntimeError):
    """The trial cannot go on for a reason of its own; the message is what the report shows."""


@dataclass(frozen=True)
class TrialTask:
    """What is to be done: train `spec` unless `trained` holds the encoder, then score `refs`."""

    spec: Mapping[str, Scalar]
    refs: tuple[str, ...]
    cache: str
    output: str
    """Local folder that rank 0 fills: history.jsonl, checkpoint/, evaluations/, outcome.json."""
    trained: str | None = None
    kept: Mapping[str, str] = field(default_factory=dict)
    """Label of a reference -> folder with a run of its queries on the same data: not searched
    again."""
    watch: Mapping[str, Any] | None = None
    """Fields of Watch: what is scored while the trial trains. It changes no weight."""
    looks: str | None = None
    """Folder or URI in which what is watched is kept score by score."""
    stops: bool = False
    """Whether the trial asks there if it is to stop."""
    checkpoint_steps: int = 200
    """Steps between training checkpoints."""


@dataclass(frozen=True)
class Outcome:
    """What came out: final metrics by key, seconds by stage, fingerprint by evaluated reference.

    The one inside a checkpoint says how the training ended; it is written last, so a checkpoint
    that has it is whole.
    """

    metrics: dict[str, float]
    seconds: dict[str, float]
    evaluated: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None
    """Why the training was stopped before its end; nothing was evaluated then."""

    def write(self, folder: Path) -> None:
        """Leave the outcome as `outcome.json`."""
        text = json.dumps(asdict(self), sort_keys=True, indent=1)
        (folder / "outcome.json").write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Outcome:
        """The outcome that `write` left in `folder`."""
        return cls(**json.loads((folder / "outcome.json").read_text(encoding="utf-8")))


def train_trial(task: TrialTask, reporter: Reporter) -> Outcome:
    """Train and evaluate one trial; every worker of it calls this with the same task.

    Raises InvalidInput when the spec or its data are wrong, TrainingFailed when the loss is not
    finite.
    """
    spec = TrialSpec.from_flat(task.spec)
    cache, output = Cache(Path(task.cache)), Path(task.output)
    output.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    metrics: dict[str, float] = {}
    if task.trained is None:
        with _timed(seconds, "prepare"):
            prepare(spec, cache)
            with uncollected():
                training = Training(spec, cache, reporter, task)
        with _timed(seconds, "train"):
            metrics = training.run(task.checkpoint_steps, output)
        if task.watch is not None:
            seconds["watch"] = training.watching
            seconds["train"] -= training.watching
        if training.stopped is not None:
            return _stopped(training, metrics, seconds, output)
        encoder = training.encoder
        if reporter.rank == 0:
            encoder.save(output / "checkpoint")
            Outcome(metrics, seconds).write(output / "checkpoint")
            seal(output / "checkpoint")
    else:
        encoder = Encoder.from_folder(task.trained).to(device())
        before = Outcome.read(Path(task.trained))
        metrics, seconds = before.metrics, before.seconds
    with _timed(seconds, "evaluate"):
        evaluated = _evaluate(encoder, task, cache, reporter.rank, metrics)
    outcome = Outcome(metrics, seconds, evaluated)
    if reporter.rank == 0:
        outcome.write(output)
    return outcome


def _stopped(
    training: Training, metrics: dict[str, float], seconds: dict[str, float], output: Path
) -> Outcome:
    """The outcome of a training that was stopped: how far it came, and its metrics there."""
    metrics = {f"{STOPPED}{key}": value for key, value in metrics.items()}
    metrics[f"{STOPPED}step"] = float(training.step)
    outcome = Outcome(metrics, seconds, stopped=training.stopped)
    if training.reporter.rank == 0:
        outcome.write(output)
    return outcome


def device() -> torch.device:
    """The accelerator that this process may use, else the CPU."""
    return (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else (torch.device("cpu"))
    )


class Training:
    """The state of one training: encoder, optimiser, step, history."""

    def __init__(
        self,
        spec: TrialSpec,
        cache: Cache,
        reporter: Reporter,
        task: TrialTask,
    ) -> None:
        self.spec, self.reporter = spec, reporter
        self.encoder = Encoder.load(spec.encoder, spec.seed).to(device())
        if spec.optim.compile:
            self.encoder.compile_training()
        self.objective = Objective(spec.loss)
        self.feed = Feed(spec, cache, self.encoder.tokenizer_path)
        self.optimizer = _optimizer(self.encoder, spec.optim)
        self.watcher = None
        if task.watch is not None:
            self.watcher = Watcher(Watch(**task.watch), cache, spec.optim.precision)
        self.watching = 0.0
        """Seconds that scoring the watched split took."""
        self.looks = None if task.looks is None else Looks(task.looks)
        self.stops = task.stops
        self.stopped: str | None = None
        self.step = 0
        self.history: list[dict[str, float]] = []
        self.pending: list[dict[str, float]] = []

    def run(self, checkpoint_steps: int, output: Path) -> dict[str, float]:
        """Train to the last step, or until `stopped` says why not; returns the means over the last
        quarter of the history. Scores of the watched split are the last ones.
        """
        kept = self.reporter.restore()
        # A damaged one is worth nothing: the training starts anew, and ends with the same bits.
        if kept is not None and is_whole(kept, sealed=True):
            self._load(kept)
        total = self.feed.batches.total_steps
        every = max(1, math.ceil(total / HISTORY_ROWS))
        self.encoder.train()
        while self.step < total and self.stopped is None:
            self.pending.append(self._one_step())
            self.step += 1
            if self.step % every == 0 or self.step == total:
                self._close_row(total)
            if self.step % checkpoint_steps == 0 and self.step < total:
                self._save(output / "resume")
        self.encoder.eval()
        if self.reporter.rank == 0:
            rows = "".join(json.dumps(row, sort_keys=True) + "\n" for row in self.history)
            (output / "history.jsonl").write_text(rows, encoding="utf-8")
        late = self.history[-math.ceil(len(self.history) / 4) :]
        watched = self._last_watched()
        keys = {key for row in late for key in row} - {"step", "train/lr", *watched}
        means = {key: _mean([row[key] for row in late if key in row]) for key in sorted(keys)}
        return means | watched

    def _one_step(self) -> dict[str, float]:
        optim, rank = self.spec.optim, self.reporter.rank
        # Dropout depends on the step and the worker only, so there is no generator to keep.
        torch.manual_seed(_mix(self.spec.seed, self.step, rank))
        lr = learning_rate(optim, *self.feed.stage_span(self.step), self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        with _precision(optim):
            inputs = self.feed.inputs(self.step, rank, self.reporter.world_size)
            result = training_step(self.encoder, inputs, self.objective, optim.chunk_size)
        norm = _clip(self.encoder, optim.clip_norm)
        self._check(result, norm)
        self.optimizer.step()
        row = {"train/loss": result.loss, "train/gradient_norm": norm, "train/lr": lr}
        if result.without_positive:
            row["train/queries_without_positive"] = float(result.without_positive)
        return row | result.shares

    def _check(self, result: StepResult, norm: float) -> None:
        if math.isfinite(result.loss) and math.isfinite(norm):
            return
        what = "loss" if not math.isfinite(result.loss) else "gradient"
        raise TrainingFailed(
            f"the {what} is not finite at step {self.step} (loss {result.loss}, gradient norm "
            f"{norm}); lower optim.lr or raise loss.temperature"
        )

    def _close_row(self, total: int) -> None:
        keys = sorted({key for row in self.pending for key in row})
        row = {key: _mean([r[key] for r in self.pending if key in r]) for key in keys}
        watched = self._watched(total)
        self.history.append({"step": self.step, **row, **watched})
        self.pending = []
        report = self.reporter.dev if watched else self.reporter.progress
        report({"steps": total, **self.history[-1]})
        # A worker group hears of it later than its look: its reports wait for nobody.
        asks = self.stops and self.step < total and (watched or self.reporter.world_size > 1)
        if self.looks is not None and asks:
            told = self.looks.told(self.step) if self.reporter.rank == 0 else None
            self.stopped = from_first(told)

    def _watched(self, total: int) -> dict[str, float]:
        """Scores of the watched split, where the row that ends here is due for them."""
        before = int(self.history[-1]["step"]) if self.history else 0
        if self.watcher is None or not self.watcher.due(before, self.step, total):
            return {}
        started = time.monotonic()
        scores = self.watcher.scores(self.encoder)
        self.watching += time.monotonic() - started
        if self.looks is not None and self.reporter.rank == 0:
            self.looks.write(self.step, scores.per_query[self.watcher.metric])
        return scores.metrics

    def _last_watched(self) -> dict[str, float]:
        if self.watcher is None:
            return {}
        rows = (self.watcher.of(row) for row in reversed(self.history))
        return next((row for row in rows if row), {})

    def _save(self, folder: Path) -> None:
        if self.reporter.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            weights = {k: v.contiguous() for k, v in self.encoder.state_dict().items()}
            save_file(weights, folder / "model.safetensors")
            torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")
            state = {"step": self.step, "history": self.history, "pending": self.pending}
            (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
            seal(folder)
        self.reporter.save(folder, self.step)

    def _load(self, folder: Path) -> None:
        self.encoder.load_state_dict(load_file(folder / "model.safetensors"))
        moments = torch.load(folder / "optimizer.pt", weights_only=True, map_location=device())
        self.optimizer.load_state_dict(moments)
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        self.step, self.history = state["step"], state["history"]
        self.pending = state["pending"]


def learning_rate(optim: OptimSpec, first: int, last: int, step: int) -> float:
    """The rate at `step` of a stage that spans steps [first, last): linear up, then linear to 0."""
    length, position = last - first, step - first
    rising = math.ceil(optim.warmup * length)
    if position < rising:
        return optim.lr * (position + 1) / rising
    return optim.lr * (length - position) / max(1, length - rising)


def _optimizer(encoder: torch.nn.Module, optim: OptimSpec) -> torch.optim.Optimizer:
    """AdamW; biases and layer norms are not decayed, as is usual for BERT."""
    decayed = [p for p in encoder.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in encoder.parameters() if p.requires_grad and p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": optim.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=optim.lr, fused=True)


def _clip(encoder: torch.nn.Module, limit: float | None) -> float:
    """Gradient norm before clipping. Gradients are already global, so every worker clips alike."""
    bound = float("inf") if limit is None else limit
    return float(torch.nn.utils.clip_grad_norm_(encoder.parameters(), bound))


@contextmanager
def _precision(optim: OptimSpec) -> Iterator[None]:
    if optim.precision == "float32":
        yield
        return
    with torch.autocast(device().type, torch.bfloat16):
        yield


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[stage] = time.monotonic() - started


def _evaluate(
    encoder: Encoder, task: TrialTask, cache: Cache, rank: int, metrics: dict[str, float]
) -> dict[str, str]:
    """Add the scores on every reference to `metrics`; returns what each was scored on."""
    refs = [ref for text in task.refs for ref in parse_refs(text)]
    ensure_judges(refs, cache)
    fresh = [ref for ref in refs if ref.label not in task.kept]
    precision = TrialSpec.from_flat(task.spec).optim.precision
    found = dict(zip(fresh, evaluate(encoder, fresh, cache, precision=precision), strict=True))
    marks: dict[str, str] = {}
    for ref in refs:
        marks |= ref.marks(open_collection(ref.collection, cache).fingerprint)
        if rank == 0:
            kept = None if ref in found else from_folder(Path(task.kept[ref.label]), ref, cache)
            folder = Path(task.output) / "evaluations"
            metrics |= write_side_by_side(kept or found[ref], ref, cache, folder)
    return marks


def _mix(seed: int, step: int, rank: int) -> int:
    """A 63-bit number that differs for every (seed, step, rank) met in practice."""
    return (seed * 1_000_003 + step) * 4_099 + rank & (2**63 - 1)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
