"""Measured parts of trials: what one short trial of a shape took, as values that a plan reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablate.plan.cost import Sizes, scores_watched, steps_of
from ablate.plan.parts import Watch
from trainables.data.collections import Ref
from trainables.spec import Scalar


@dataclass(frozen=True)
class Seconds:
    """A time and its standard error, both in seconds."""

    mean: float
    error: float = 0.0

    def times(self, count: float) -> Seconds:
        """The time of `count` of these."""
        return Seconds(self.mean * count, self.error * count)


def total(parts: Iterable[Seconds]) -> Seconds:
    """The time of all parts, whose errors are independent."""
    listed = list(parts)
    error = math.sqrt(math.fsum(part.error**2 for part in listed))
    return Seconds(math.fsum(part.mean for part in listed), error)


@dataclass(frozen=True)
class Probe:
    """What a short trial of `flat` took on one machine, in one process with `cpus` and `gpus`.

    `evaluations` holds one pass over each collection, by the labels of its references joined by
    blanks; `watch` one score of what is watched, by its label.
    """

    flat: Mapping[str, Scalar]
    start: Seconds
    """Before the first step and after the last score: loading, saving."""
    step: Seconds
    evaluations: Mapping[str, Seconds]
    watch: Mapping[str, Seconds]
    cpus: float
    gpus: float
    machine: str

    def covers(self, refs: Sequence[Ref], watch: Watch | None) -> bool:
        """Whether every part of a trial that is scored so was measured."""
        passes = passes_of(refs).keys() <= self.evaluations.keys()
        return passes and (watch is None or watch.label in self.watch)

    def of_trial(
        self,
        flat: Mapping[str, Scalar],
        refs: Sequence[Ref],
        watch: Watch | None,
        sizes: Sizes,
        workers: int = 1,
    ) -> Seconds:
        """The time of a trial of this shape, of any number of steps, that the probe covers.

        Several workers share all of it but the start, and talk for nothing. Raises UnknownCost
        when its number of steps is not known.
        """
        parts = [self.step.times(steps_of(flat, sizes))]
        parts += [self.evaluations[name] for name in passes_of(refs)]
        if watch is not None:
            parts.append(self.watch[watch.label].times(scores_watched(flat, watch, sizes)))
        return total([self.start, total(parts).times(1 / workers)])

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Probe:
        """The probe of its fields as JSON values."""
        measured: dict[str, Any] = {
            name: {key: Seconds(**part) for key, part in content[name].items()}
            for name in ("evaluations", "watch")
        }
        measured |= {name: Seconds(**content[name]) for name in ("start", "step")}
        return cls(**{**content, **measured})


def passes_of(refs: Sequence[Ref]) -> dict[str, tuple[Ref, ...]]:
    """The references that share a pass over a collection, by their labels joined by blanks."""
    shared: dict[str, list[Ref]] = {}
    for ref in refs:
        shared.setdefault(ref.collection, []).append(ref)
    return {" ".join(ref.label for ref in each): tuple(each) for each in shared.values()}
