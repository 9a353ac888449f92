"""What a plan costs, before anything runs: from earlier trials, or from arithmetic and a probe."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from statistics import median
from typing import Any

import numpy as np

from ablate.plan.confounds import Confound, warnings
from ablate.plan.cost import Sizes, UnknownCost, collection_size, trial_flops
from ablate.plan.keys import complete
from ablate.plan.parts import Resources
from ablate.plan.planner import Plan
from trainables.spec import Scalar

__all__ = ["Confound", "Estimate", "estimate", "matmul_speed", "warnings"]

EFFICIENCY = 0.6
"""Share of an idle core's speed in matrix products that training and encoding reach."""

GPU_FLOPS: Mapping[str, float] = {"float32": 2.0e13, "bfloat16": 1.0e14}
"""Operations per second of one data-centre GPU by precision: assumed, not measured."""

START_SECONDS = 20.0
"""From the command to the first step: the cluster, and the imports of every process."""

TRIAL_SECONDS = 2.0
"""Between two trials of one worker; processes are reused."""

GROUP_SECONDS = 40.0
"""Start of a trial's worker group, when it has several workers."""

Earlier = Sequence[tuple[Mapping[str, Any], float]]


@dataclass(frozen=True)
class Estimate:
    """How long the trials of a plan take. `minutes` is None when `basis` says why not."""

    trials: int
    slots: int
    trial_seconds: float | None
    minutes: float | None
    gpu_hours: float | None
    basis: str

    def to_json(self) -> dict[str, Any]:
        """The estimate as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        if self.minutes is None or self.trial_seconds is None:
            return f"Estimate: none; {self.basis}."
        gpus = f", {self.gpu_hours:.1f} GPU hours" if self.gpu_hours else ""
        return (
            f"Estimate: about {_duration(60 * self.minutes)}{gpus} for {self.trials:,} trials of "
            f"{_duration(self.trial_seconds)}, {self.slots} at a time; {self.basis}."
        )


def estimate(
    plan: Plan,
    earlier: Earlier = (),
    finished: int = 0,
    sizes: Sizes = collection_size,
    speed: float | None = None,
) -> Estimate:
    """The time of the trials that are not `finished`, preparation of the data left out.

    `earlier` holds flat specs with the seconds their trials took. A shape of trial that is among
    them costs their median; another is scaled from them by arithmetic. Without any, `speed`
    (operations per second of this machine's matrix products, measured when None) decides.
    """
    resources = plan.study.resources
    trials = max(0, plan.trial_count - finished)
    slots, cpus = _slots(resources)
    try:
        seconds, basis = _mean_seconds(plan, earlier, sizes, speed, resources)
    except UnknownCost as error:
        return Estimate(trials, slots, None, None, None, str(error))
    group = GROUP_SECONDS if resources.workers > 1 else TRIAL_SECONDS
    waves = math.ceil(trials / slots)
    total = START_SECONDS + waves * (seconds + group) if trials else 0.0
    if cpus > _cpus():
        basis += f"; it takes a cluster with {cpus:g} CPUs like this machine's {_cpus()}"
    gpus = resources.gpus_per_worker * resources.workers
    return Estimate(trials, slots, seconds, total / 60, trials * seconds * gpus / 3600, basis)


@lru_cache(maxsize=1)
def matmul_speed(seconds: float = 0.2) -> float:
    """Operations per second of one core in float32 matrix products, measured once per process.

    Products of this size stay on one core, and CPU time is counted, so that a busy machine is not
    taken for a slow one.
    """
    size, batch = 64, 64
    factors = np.ones((batch, size, size), dtype=np.float32)
    product = np.empty_like(factors)
    np.matmul(factors, factors, out=product)
    start = time.process_time()
    rounds = 0
    while time.process_time() - start < seconds:
        np.matmul(factors, factors, out=product)
        rounds += 1
    return 2.0 * batch * size**3 * rounds / (time.process_time() - start)


def _mean_seconds(
    plan: Plan, earlier: Earlier, sizes: Sizes, speed: float | None, resources: Resources
) -> tuple[float, str]:
    """Mean seconds of a trial's own work over the plan, and where the number comes from."""
    known: dict[tuple[Scalar, ...], list[float]] = {}
    for flat, seconds in earlier:
        if seconds > 0:
            known.setdefault(_shape(flat), []).append(seconds)
    shapes = _shapes(plan)
    count = sum(number for _, number in shapes.values())
    if shapes.keys() <= known.keys():
        total = sum(median(known[shape]) * number for shape, (_, number) in shapes.items())
        used = sum(len(known[shape]) for shape in shapes)
        return total / count, f"from {_trials(used)} like these"
    refs = plan.study.references
    flops = {shape: trial_flops(flat, refs, sizes) for shape, (flat, _) in shapes.items()}
    rate, basis = _rate(plan, earlier, sizes, speed, resources)
    total = 0.0
    for shape, (_, number) in shapes.items():
        total += number * (median(known[shape]) if shape in known else flops[shape] / rate)
    return total / count, basis


def _rate(
    plan: Plan, earlier: Earlier, sizes: Sizes, speed: float | None, resources: Resources
) -> tuple[float, str]:
    """Operations per second of one trial, and where the number comes from."""
    rates = []
    for flat, seconds in earlier:
        try:
            flops = trial_flops(flat, plan.study.references, sizes)
        except (UnknownCost, KeyError):
            continue
        if seconds > 0:
            rates.append(flops / seconds)
    if rates:
        return median(rates), f"scaled from {_trials(len(rates))} of other shapes"
    if resources.gpus_per_worker > 0:
        precisions = [str(value) for value in plan.study.listed("optim.precision")] or ["float32"]
        slowest = min(GPU_FLOPS.get(name, GPU_FLOPS["float32"]) for name in precisions)
        rate = slowest * resources.gpus_per_worker * resources.workers
        return rate, f"from arithmetic and an assumed {slowest / 1e12:.0f} TFLOP/s per GPU"
    core = matmul_speed() if speed is None else speed
    rate = EFFICIENCY * core * resources.cpus_per_worker * resources.workers
    return rate, f"from arithmetic and {core / 1e9:.0f} GFLOP/s per core, measured here"


_COST_KEYS = (
    "data.train",
    "data.max_positives",
    "data.hard_negatives",
    "data.group_size",
    "encoder.backbone",
    "encoder.layers",
    "encoder.query_length",
    "encoder.passage_length",
    "loss.name",
    "optim.batch_size",
    "optim.steps",
    "optim.epochs",
    "optim.precision",
    "optim.chunk_size",
)
"""Keys that a trial's time depends on."""


def _shape(flat: Mapping[str, Any]) -> tuple[Scalar, ...]:
    return tuple(flat.get(key) for key in _COST_KEYS)


def _shapes(plan: Plan) -> dict[tuple[Scalar, ...], tuple[dict[str, Scalar], int]]:
    """Of every distinct shape one flat spec, and how many trials to choose from have it."""
    found: dict[tuple[Scalar, ...], tuple[dict[str, Scalar], int]] = {}
    fixed = plan.study.fixed
    for cell in plan.cells:
        counts: dict[tuple[Scalar, ...], tuple[Mapping[str, Scalar], int]] = {}
        for values in plan.settings(cell).values():
            shape = _shape(values)
            counts[shape] = (values, counts.get(shape, (values, 0))[1] + 1)
        for values, number in counts.values():
            flat = complete({**fixed, **cell.values, **values})
            shape = _shape(flat)
            found[shape] = (flat, found.get(shape, (flat, 0))[1] + number)
    return found


def _slots(resources: Resources) -> tuple[int, float]:
    """Trials at a time, and the CPUs that these take."""
    each = resources.workers * resources.cpus_per_worker
    limit = resources.max_concurrent_trials
    slots = limit if limit is not None else max(1, int(_cpus() // each))
    return slots, slots * each


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _trials(number: int) -> str:
    return f"{number:,} earlier trial{'' if number == 1 else 's'}"


def _duration(seconds: float) -> str:
    """Seconds as a person says them."""
    for unit, size, limit in (("s", 1, 90), ("minutes", 60, 90), ("hours", 3600, 72)):
        if seconds < limit * size:
            return f"{seconds / size:.{0 if size < 3600 else 1}f} {unit}"
    return f"{seconds / 86400:.1f} days"
