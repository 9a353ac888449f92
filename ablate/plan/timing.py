"""What a plan's trials take: from earlier trials, a probe of their shape, or arithmetic."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from ablate.plan.cost import Sizes, UnknownCost, evaluation_flops, trial_flops, watch_flops
from ablate.plan.keys import complete
from ablate.plan.planner import Plan
from ablate.plan.probes import Probe, Seconds, total
from trainables.data.collections import Ref, parse_ref
from trainables.errors import InvalidInput
from trainables.spec import Scalar

EFFICIENCY = 0.6
"""Share of an idle core's speed in matrix products that training and encoding reach."""

GPU_FLOPS: Mapping[str, float] = {"float32": 2.0e13, "bfloat16": 1.0e14}
"""Operations per second of one data-centre GPU by precision: assumed, not measured."""


class EarlierTrial(NamedTuple):
    """A finished trial: its flat spec, the seconds of its stages (`watch` is one of them), and the
    labels of all that it was scored on; without labels, of what the plan is scored on."""

    flat: Mapping[str, Any]
    seconds: Mapping[str, float]
    labels: Collection[str] = ()


Earlier = Sequence[EarlierTrial]

Unscored = Sequence[tuple[EarlierTrial, Sequence[Ref]]]
"""Finished trials, each with the references that it is still to be scored on."""

Shape = tuple[Scalar, ...]

LENGTH_KEYS = ("optim.steps", "optim.epochs")
COST_KEYS = (
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
    "optim.precision",
    "optim.chunk_size",
)
"""Keys that a step's time depends on; a trial's depends on LENGTH_KEYS too."""


class Timing:
    """What trials of the plan take, each shape by the best source there is for it."""

    def __init__(
        self,
        plan: Plan,
        earlier: Earlier,
        probes: Sequence[Probe],
        sizes: Sizes,
        speed: float | None,
    ) -> None:
        """`speed` is that of this machine's matrix products, measured when it is None."""
        self.plan, self.sizes, self._speed = plan, sizes, speed
        self._refs, self._watch = plan.study.references, plan.study.watch
        self._earlier = [
            (each.flat, self._as_scored_here(each)) for each in earlier if _bare(each.seconds) > 0
        ]
        self._workers, asked = plan.study.resources.workers, plan.study.resources
        self._probes = {
            step_shape(probe.flat): probe
            for probe in probes
            if (probe.cpus, probe.gpus) == (asked.cpus_per_worker, asked.gpus_per_worker)
        }
        self._whole: dict[Shape, list[float]] = {}
        self._bare: dict[Shape, list[float]] = {}
        for flat, seconds in self._earlier:
            shape = trial_shape(flat)
            self._bare.setdefault(shape, []).append(_bare(seconds))
            if self._watch is not None and "watch" in seconds:
                self._whole.setdefault(shape, []).append(sum(seconds.values()))
        if self._watch is None:
            self._whole = self._bare
        self._bases: dict[str, None] = {}

    def mean(self) -> tuple[Seconds, str]:
        """Seconds of a trial, on average over the plan, and where they come from.

        Raises UnknownCost, with what is not known.
        """
        shapes = trial_shapes(self.plan)
        each = [(self._seconds(shape, flat, shapes), n) for shape, (flat, n) in shapes.items()]
        count = sum(number for _, number in each)
        found = total(seconds.times(number / count) for seconds, number in each)
        return found, ", else ".join(self._bases)

    def _seconds(
        self, shape: Shape, flat: Mapping[str, Scalar], shapes: Iterable[Shape]
    ) -> Seconds:
        if shape in self._whole:
            self._bases[f"from {_like(self._whole, shapes)}"] = None
            return Seconds(median(self._whole[shape]))
        probe = self._probe(flat)
        if probe is not None:
            shared = "" if self._workers == 1 else f", its work shared by {self._workers} workers"
            self._bases[f"from a probe on {probe.machine}{shared}"] = None
            return probe.of_trial(flat, self._refs, self._watch, self.sizes, self._workers)
        watching = 0.0 if self._watch is None else watch_flops(flat, self._watch, self.sizes)
        rate, basis = self._rate
        if shape in self._bare:
            used = _like(self._bare, shapes)
            self._bases[f"from {used}, and arithmetic for what is watched"] = None
            return Seconds(median(self._bare[shape]) + watching / rate)
        flops = trial_flops(flat, self._refs, self.sizes)
        self._bases[basis] = None
        return Seconds((flops + watching) / rate)

    def lacking(self) -> list[dict[str, Scalar]]:
        """One spec of every shape of step that no earlier trial and no probe tells of."""
        shapes = trial_shapes(self.plan)
        new = [f for s, (f, _) in shapes.items() if s not in self._whole and not self._probe(f)]
        return list({step_shape(flat): flat for flat in new}.values())

    def scoring(self, trial: EarlierTrial, refs: Sequence[Ref]) -> float:
        """Seconds of scoring a finished trial on further references, at its own speed.

        Raises UnknownCost when a size is not known.
        """
        then, further = self._evaluations(trial, refs)
        seconds = trial.seconds.get("evaluate", 0.0)
        return further * seconds / then if seconds and then else further / self._rate[0]

    def _as_scored_here(self, trial: EarlierTrial) -> Mapping[str, float]:
        """The seconds of a trial, were it scored on what the plan is scored on.

        They stay as they are where a size is not known.
        """
        own = {_split(ref.label) for ref in self._refs}
        if not trial.labels or {_split(label) for label in trial.labels} == own:
            return trial.seconds
        try:
            then, now = self._evaluations(trial, self._refs)
        except UnknownCost:
            return trial.seconds
        seconds = trial.seconds.get("evaluate", 0.0)
        return {**trial.seconds, "evaluate": seconds * now / then if then else seconds}

    def _evaluations(self, trial: EarlierTrial, refs: Sequence[Ref]) -> tuple[float, float]:
        """Operations of scoring a trial on what it was scored on, and on `refs`."""
        then, now = (
            evaluation_flops(trial.flat, each, self.sizes)
            for each in (_refs(tuple(trial.labels)), refs)
        )
        return then, now

    def _probe(self, flat: Mapping[str, Scalar]) -> Probe | None:
        """A probe of the spec's shape that measured all that its trials do."""
        found = self._probes.get(step_shape(flat))
        return found if found is not None and found.covers(self._refs, self._watch) else None

    @cached_property
    def _rate(self) -> tuple[float, str]:
        """Operations per second of one trial, and where the number comes from."""
        rates = []
        for flat, seconds in self._earlier:
            try:
                rates.append(trial_flops(flat, self._refs, self.sizes) / _bare(seconds))
            except (UnknownCost, KeyError):
                continue
        if rates:
            return median(rates), f"scaled from {_trials(len(rates))} of other shapes"
        resources = self.plan.study.resources
        if resources.gpus_per_worker > 0:
            listed = [str(value) for value in self.plan.study.listed("optim.precision")]
            slowest = min(GPU_FLOPS[name] for name in listed or ["float32"])
            rate = slowest * resources.gpus_per_worker * resources.workers
            return rate, f"from arithmetic and an assumed {slowest / 1e12:.0f} TFLOP/s per GPU"
        core = matmul_speed() if self._speed is None else self._speed
        rate = EFFICIENCY * core * resources.cpus_per_worker * resources.workers
        return rate, f"from arithmetic and {core / 1e9:.0f} GFLOP/s per core, measured here"


def step_shape(flat: Mapping[str, Any]) -> Shape:
    """What the time of a trial's step and of its evaluation depends on."""
    return tuple(flat.get(key) for key in COST_KEYS)


def trial_shape(flat: Mapping[str, Any]) -> Shape:
    """What a trial's time depends on."""
    return (*step_shape(flat), *(flat.get(key) for key in LENGTH_KEYS))


def trial_shapes(plan: Plan) -> dict[Shape, tuple[dict[str, Scalar], int]]:
    """Of every distinct shape one flat spec, and how many trials to choose from have it."""
    found: dict[Shape, tuple[dict[str, Scalar], int]] = {}
    fixed = plan.study.fixed
    for cell in plan.cells:
        counts: dict[Shape, tuple[Mapping[str, Scalar], int]] = {}
        for values in plan.settings(cell).values():
            shape = trial_shape(values)
            counts[shape] = (values, counts.get(shape, (values, 0))[1] + 1)
        for values, number in counts.values():
            flat = complete({**fixed, **cell.values, **values})
            shape = trial_shape(flat)
            found[shape] = (flat, found.get(shape, (flat, 0))[1] + number)
    return found


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


def _split(label: str) -> str:
    """`nq/test` of `nq/test:machine:SOURCE`, of its thresholds and of the label itself."""
    return label.partition(":")[0]


@lru_cache(maxsize=256)
def _refs(labels: tuple[str, ...]) -> list[Ref]:
    """The splits that labels name, each once; raises UnknownCost for one that no split has."""
    try:
        return [parse_ref(name) for name in dict.fromkeys(map(_split, labels))]
    except InvalidInput as error:
        raise UnknownCost(str(error)) from error


def _bare(seconds: Mapping[str, float]) -> float:
    """Seconds of a trial without those of scoring what it watched."""
    return sum(seconds.values()) - seconds.get("watch", 0.0)


def _like(times: Mapping[Shape, Sequence[float]], shapes: Iterable[Shape]) -> str:
    return f"{_trials(sum(len(times.get(shape, ())) for shape in shapes))} like these"


def _trials(number: int) -> str:
    return f"{number:,} earlier trial{'' if number == 1 else 's'}"
