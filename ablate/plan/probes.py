"""Measured parts of trials: what one short trial of a shape took, as values that a plan reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
    """What a short trial of `flat` took on one machine.

    `evaluations` holds one pass over each collection, by the labels of its references joined by
    blanks; `watch` one score of what is watched, by its label.
    """

    flat: Mapping[str, Scalar]
    start: Seconds
    """Before the first step and after the last score: loading, saving."""
    step: Seconds
    evaluations: Mapping[str, Seconds]
    watch: Mapping[str, Seconds]
    machine: str

    def of_trial(
        self,
        flat: Mapping[str, Scalar],
        refs: Sequence[Ref],
        watch: Watch | None,
        sizes: Sizes,
    ) -> Seconds | None:
        """The time of a trial of this shape, of any number of steps; None where a part was not
        measured. Raises UnknownCost when its number of steps is not known."""
        passes = passes_of(refs)
        if not passes.keys() <= self.evaluations.keys():
            return None
        parts = [self.start, self.step.times(steps_of(flat, sizes))]
        parts += [self.evaluations[name] for name in passes]
        if watch is not None:
            if watch.label not in self.watch:
                return None
            parts.append(self.watch[watch.label].times(scores_watched(flat, watch, sizes)))
        return total(parts)

    def to_json(self) -> dict[str, Any]:
        """The probe as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Probe:
        """The probe that `to_json` wrote."""
        measured = {
            name: {key: Seconds(**part) for key, part in content[name].items()}
            for name in ("evaluations", "watch")
        }
        start, step = Seconds(**content["start"]), Seconds(**content["step"])
        return cls(content["flat"], start, step, machine=content["machine"], **measured)


def passes_of(refs: Sequence[Ref]) -> dict[str, tuple[Ref, ...]]:
    """The references that share a pass over a collection, by their labels joined by blanks."""
    shared: dict[str, list[Ref]] = {}
    for ref in refs:
        shared.setdefault(ref.collection, []).append(ref)
    return {" ".join(ref.label for ref in each): tuple(each) for each in shared.values()}
