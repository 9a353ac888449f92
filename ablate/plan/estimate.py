"""What a plan costs, before anything runs: minutes, core hours and GPU hours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ablate.plan.confounds import Confound, warnings
from ablate.plan.cost import Sizes, UnknownCost, collection_size
from ablate.plan.parts import Resources
from ablate.plan.planner import Plan
from ablate.plan.probes import Probe
from ablate.plan.timing import Earlier, Timing, Unscored
from trainables.cpus import usable

__all__ = ["Confound", "Estimate", "estimate", "warnings"]

START_SECONDS = 20.0
"""From the command to the first step: the cluster, and the imports of every process."""

TRIAL_SECONDS = 2.0
"""Between two trials of one worker; processes are reused."""

GROUP_SECONDS = 40.0
"""Start of a trial's worker group, when it has several workers."""

DRIFT = 0.1
"""Standard deviation, relative, of a machine's speed between a probe and the trials: assumed."""


@dataclass(frozen=True)
class Estimate:
    """How long the trials of a plan take. The times are None when `basis` says why not.

    `trial_seconds` is a trial's own work, scoring and watching included; `core_hours` and
    `gpu_hours` are what all trials hold meanwhile. `error` is half the width of a 95 % interval
    over the mean, from what a probe measured and DRIFT; None without a probe.
    """

    trials: int
    slots: int
    trial_seconds: float | None
    minutes: float | None
    core_hours: float | None
    gpu_hours: float | None
    basis: str
    error: float | None = None
    rescored: int = 0
    """Finished trials that are to be scored on more than they were."""
    rescoring_seconds: float = 0.0
    """What that takes, of all of them together."""

    @property
    def trial_hours(self) -> float | None:
        """Hours of all trials together, as if they ran one after another."""
        if self.trial_seconds is None:
            return None
        return (self.trials * self.trial_seconds + self.rescoring_seconds) / 3600

    def to_json(self) -> dict[str, Any]:
        """The estimate as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        if self.minutes is None or self.trial_seconds is None:
            return f"Estimate: none; {self.basis}."
        doubt = f" (± {self.error:.0%})" if self.error else ""
        hours = f"{_amount(self.core_hours or 0.0)} core hours"
        if self.gpu_hours:
            hours += f", {_amount(self.gpu_hours)} GPU hours"
        work = f"{self.trials:,} trials of {_duration(self.trial_seconds)}"
        if self.rescored:
            each = _duration(self.rescoring_seconds / self.rescored)
            work += f" and for {self.rescored:,} finished ones to be scored anew, {each} each"
        return (
            f"Estimate: about {_duration(60 * self.minutes)}{doubt} for {work}, "
            f"{self.slots} at a time: {hours}; {self.basis}."
        )


def estimate(
    plan: Plan,
    earlier: Earlier = (),
    finished: int = 0,
    unscored: Unscored = (),
    sizes: Sizes = collection_size,
    speed: float | None = None,
    slots: int | None = None,
    probes: Sequence[Probe] = (),
) -> Estimate:
    """The time of trials that are not `finished`, and of what `unscored` ones lack, once prepared.

    A shape among the `earlier` trials costs their median; one that was probed, what was measured;
    another is scaled by arithmetic. Without any, `speed` (operations per second of this machine's
    matrix products, measured when None) decides. `slots` is how many trials a cluster runs at a
    time; None asks the study and this machine.
    """
    resources = plan.study.resources
    cores = resources.workers * resources.cpus_per_worker
    trials, at_once = max(0, plan.trial_count - finished), slots or _slots(resources)
    try:
        timing = Timing(plan, earlier, probes, sizes, speed)
        each, basis = timing.mean()
        more = math.fsum(timing.scoring(*pair) for pair in unscored)
    except UnknownCost as error:
        return Estimate(trials, at_once, None, None, None, None, str(error))
    hours = (trials * each.mean + more) / 3600
    rounds = math.ceil(trials / at_once), math.ceil(len(unscored) / at_once)
    return Estimate(
        trials=trials,
        slots=at_once,
        trial_seconds=each.mean,
        minutes=_minutes(rounds[0] * each.mean + more / at_once, sum(rounds), resources),
        core_hours=hours * cores,
        gpu_hours=hours * resources.gpus_per_worker * resources.workers,
        basis=basis + _elsewhere(at_once * cores, slots is not None),
        error=2 * math.hypot(each.error / each.mean, DRIFT) if each.error else None,
        rescored=len(unscored),
        rescoring_seconds=more,
    )


def _minutes(working: float, rounds: int, resources: Resources) -> float:
    """From the command to its end, when every slot works so many seconds in so many rounds."""
    between = GROUP_SECONDS if resources.workers > 1 else TRIAL_SECONDS
    return (START_SECONDS + working + rounds * between) / 60 if rounds else 0.0


def _elsewhere(cores: float, cluster: bool) -> str:
    """What the basis lacks when the trials run on other machines than this one."""
    if cluster:
        return "; the cluster's machines may be faster or slower"
    if cores > usable():
        return f"; it takes a cluster with {cores:g} CPUs like this machine's {usable()}"
    return ""


def _slots(resources: Resources) -> int:
    """Trials at a time: what the study asks for, or as many as this machine's CPUs hold."""
    if resources.max_concurrent_trials is not None:
        return resources.max_concurrent_trials
    return max(1, int(usable() // (resources.workers * resources.cpus_per_worker)))


def _duration(seconds: float) -> str:
    """Seconds as a person says them."""
    for unit, size, limit in (("s", 1, 90), ("minutes", 60, 90), ("hours", 3600, 72)):
        if seconds < limit * size:
            return f"{seconds / size:.{0 if size < 3600 else 1}f} {unit}"
    return f"{seconds / 86400:.1f} days"


def _amount(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 1 or not hours else f"{hours:.1g}"
