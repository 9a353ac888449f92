"""One short trial, timed, and a slice of its evaluation: what the parts of a whole one take.

`python -m trainables.probe` reads one Ask as JSON a line and writes what it found as JSON a line,
so that a caller needs no torch.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from trainables.data.cache import Cache
from trainables.data.collections import Ref, open_collection, parse_ref
from trainables.errors import InvalidInput, Problem
from trainables.evaluation.evaluate import evaluate_within
from trainables.evaluation.watching import part
from trainables.faults import reason_of
from trainables.model.encoder import Encoder, Precision
from trainables.spec import Scalar, TrialSpec
from trainables.train import TrialTask, device, train_trial

WARM_STEPS = 3
"""First steps, which are slower and tell nothing."""
MOST_STEPS = 60
STEP_SECONDS = 6.0
"""Time given to steps beyond the first; at least MOST_STEPS / 10 are made."""
FIRST_SLICE = 128
"""Passages of the first slice of an evaluation, which says how large the others may be."""
SLICE_SECONDS = 1.0
SMALL, LARGE = 2, 3
"""How often a slice and one of three times its size are timed."""


@dataclass(frozen=True)
class Ask:
    """What is to be timed, on `threads` CPU threads.

    `passes` are names with the references, all of one collection, that share a pass over it;
    `watch` are names with a reference and how many passages are searched, None for all.
    """

    spec: Mapping[str, Scalar]
    passes: Mapping[str, Sequence[str]]
    watch: Mapping[str, Sequence[Any]]
    cache: str
    output: str
    threads: int
    gpus: float


@dataclass(frozen=True)
class Took:
    """Seconds, and their standard error."""

    mean: float
    error: float

    def to_json(self) -> dict[str, float]:
        """The time as JSON values."""
        return {"mean": self.mean, "error": self.error}


class _Clock:
    """Rank 0 of 1, which is told of every step of a short training and keeps nothing."""

    rank = 0
    world_size = 1

    def __init__(self) -> None:
        self.times: list[float] = []

    def progress(self, metrics: Mapping[str, float]) -> None:
        self.times.append(time.monotonic())

    dev = progress

    def save(self, folder: Path, step: int) -> None:
        shutil.rmtree(folder)

    def restore(self) -> Path | None:
        return None


def probe(ask: Ask) -> dict[str, Any]:
    """Seconds of the parts of a trial: `start`, `step`, `evaluations`, `watch`; and the `device`.

    The data are prepared first, which takes its time where they are not yet in the cache. Raises
    InvalidInput when the spec, its data or the machine are wrong.
    """
    import torch

    torch.set_num_threads(ask.threads)
    if ask.gpus and device().type == "cpu":
        rule = "this machine has no GPU; probe where the trials will run"
        raise InvalidInput([Problem("resources.gpus_per_worker", rule, ask.gpus)])
    start, step = _training(ask)
    encoder = Encoder.from_folder(str(Path(ask.output) / "checkpoint")).to(device())
    slices = Slices(encoder, Cache(Path(ask.cache)), TrialSpec.from_flat(ask.spec).optim.precision)
    passes = {
        name: slices.of_pass([parse_ref(text) for text in texts])
        for name, texts in ask.passes.items()
    }
    watch = {
        name: slices.of_pass([parse_ref(text)], count) for name, (text, count) in ask.watch.items()
    }
    return {
        "start": start.to_json(),
        "step": step.to_json(),
        "evaluations": {name: took.to_json() for name, took in passes.items()},
        "watch": {name: took.to_json() for name, took in watch.items()},
        "device": torch.cuda.get_device_name() if device().type == "cuda" else "CPU",
    }


def _training(ask: Ask) -> tuple[Took, Took]:
    """Seconds of a training beside its steps, and of one step."""
    _, times = _train(ask, WARM_STEPS + 2)
    wanted = int(STEP_SECONDS / max(times[-1] - times[-2], 1e-4))
    steps = WARM_STEPS + 1 + min(max(wanted, MOST_STEPS // 10), MOST_STEPS)
    whole, times = _train(ask, steps)
    step = _mean(np.diff(times)[WARM_STEPS - 1 :].tolist())
    return Took(max(whole - step.mean * steps, 0.0), step.error), step


def _train(ask: Ask, steps: int) -> tuple[float, list[float]]:
    """Seconds of a training of so many steps, and the moment at the end of each."""
    clock, spec = _Clock(), {**ask.spec, "optim.steps": steps, "optim.epochs": None}
    shutil.rmtree(ask.output, ignore_errors=True)
    began = time.monotonic()
    train_trial(TrialTask(spec, (), ask.cache, ask.output), clock)
    return time.monotonic() - began, clock.times


@dataclass(frozen=True)
class Line:
    """The line through the seconds of evaluations over `small` and over `large` passages."""

    small: int
    large: int
    low: Took
    high: Took

    def at(self, size: int) -> Took:
        """Seconds over `size` passages; over 0 it is what the queries alone take."""
        if self.large == self.small:
            return self.low
        share = (size - self.small) / (self.large - self.small)
        mean = self.low.mean + share * (self.high.mean - self.low.mean)
        error = math.hypot((1 - share) * self.low.error, share * self.high.error)
        return Took(max(mean, 0.0), error)


class Slices:
    """Times evaluations over random passages, and what they say of all passages."""

    def __init__(self, encoder: Encoder, cache: Cache, precision: Precision) -> None:
        self.encoder, self.cache, self.precision = encoder, cache, precision
        self._random = np.random.default_rng(0)
        self._lines: dict[Ref, Line] = {}

    def of_pass(self, refs: Sequence[Ref], count: int | None = None) -> Took:
        """Seconds of scoring `refs`, of one collection, over `count` of its passages or all."""
        everything = len(open_collection(refs[0].collection, self.cache).passages)
        if count is not None:
            part(refs[0], count, self.cache)
        first, *further = (self._line(ref, everything) for ref in refs)
        whole, queries = first.at(count or everything), [line.at(0) for line in further]
        error = math.hypot(whole.error, *(each.error for each in queries))
        return Took(whole.mean + sum(each.mean for each in queries), error)

    def _line(self, ref: Ref, everything: int) -> Line:
        if ref not in self._lines:
            first = min(FIRST_SLICE, everything)
            self._seconds(ref, everything, first)
            rate = first / self._seconds(ref, everything, first)
            small = min(max(int(rate * SLICE_SECONDS), first), everything)
            large = min(3 * small, everything)
            low = _mean([self._seconds(ref, everything, small) for _ in range(SMALL)])
            high = _mean([self._seconds(ref, everything, large) for _ in range(LARGE)])
            self._lines[ref] = Line(small, large, low, high)
        return self._lines[ref]

    def _seconds(self, ref: Ref, everything: int, count: int) -> float:
        rows = np.sort(self._random.choice(everything, count, replace=False))
        began = time.monotonic()
        evaluate_within(self.encoder, ref, rows, self.cache, precision=self.precision)
        return time.monotonic() - began


def _mean(times: Sequence[float]) -> Took:
    array = np.asarray(times)
    error = float(array.std(ddof=1) / math.sqrt(len(array))) if len(array) > 1 else 0.0
    return Took(float(array.mean()), error)


def _answers(lines: TextIO) -> Iterator[dict[str, Any]]:
    for line in lines:
        ask = Ask(**json.loads(line))
        try:
            yield probe(ask)
        except Exception as error:  # noqa: BLE001 - whatever ends a trial is what the caller hears
            yield {"error": reason_of(error, ask.spec)}


def main() -> None:
    """Answer every line of standard input; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for answer in _answers(sys.stdin):
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
