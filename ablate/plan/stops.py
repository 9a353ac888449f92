"""When a trial is stopped early: rules that look at watched scores, as frozen values.

Each compares a trial with its rivals at the very step that it has reached, and says why it is to
stop, or None. What a rule may see is in `Curve`s, so that it decides alike in a sweep, in a sweep
that was started again, and over the history of one that is finished.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from ablate.plan.prior import Prior

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Among = Literal["cells", "draws"]
"""Who competes: the cells at the same draw and seed, or the draws of one cell at the same seed."""


@dataclass(frozen=True, eq=False)
class Look:
    """The watched metric of a trial at one step: its mean, and the scores per query where known."""

    mean: float
    queries: NDArray[np.float64] | None = None


Curve = Mapping[int, Look]
"""A trial's looks by step."""


@dataclass(frozen=True)
class Moment:
    """The look that is judged, and what a rule must know of the study.

    `total` and `looks`: steps of the trial, and how many looks it may be stopped at. `comparisons`:
    ordered pairs of rivals in the whole study. `margin`: difference up to which two are equal.
    """

    step: int
    total: int
    looks: int
    comparisons: int
    margin: float


class Rule(Protocol):
    """A way to stop trials; `grace` is the first step at which it may."""

    name: ClassVar[str]

    @property
    def among(self) -> Among: ...

    @property
    def grace(self) -> int: ...

    def reason(self, own: Curve, rivals: Mapping[str, Curve], at: Moment) -> str | None:
        """Why the trial with the curve `own`, which has a look at `at.step`, is to stop."""


@dataclass(frozen=True)
class Asha:
    """Asynchronous successive halving (Li et al., "A System for Massively Parallel Hyperparameter
    Tuning", 2020), in the form that stops rather than pauses.

    Rungs are at grace, grace x reduction, grace x reduction^2 ... steps; a trial's look at a rung
    is the first one there or after it. It goes on when it is among the best 1/reduction (at least
    one) of those that have a look at the same step, itself included; equals go on.
    """

    among: Among
    grace: int
    reduction: int
    name: ClassVar[str] = "asha"

    def reason(self, own: Curve, rivals: Mapping[str, Curve], at: Moment) -> str | None:
        """See `Rule`."""
        before = max((step for step in own if step < at.step), default=0)
        if not any(before < rung <= at.step for rung in self.rungs(at.total)):
            return None
        mine = own[at.step].mean
        scores = [mine, *(curve[at.step].mean for curve in rivals.values() if at.step in curve)]
        keep = max(1, len(scores) // self.reduction)
        bar = sorted(scores, reverse=True)[keep - 1]
        if mine >= bar:
            return None
        best = "the best" if keep == 1 else f"the best {keep}"
        return f"{_at(self, mine, at)}, not among {best} of {len(scores)} there ({bar:.4f})"

    def rungs(self, total: int) -> Iterator[int]:
        """The steps of the rungs of a trial of `total` steps."""
        rung = self.grace
        while rung < total:
            yield rung
            rung *= self.reduction


@dataclass(frozen=True)
class Median:
    """The median stopping rule (Golovin et al., "Google Vizier", 2017, section 3.2.2).

    From `grace` steps on, a trial stops when its best score so far is below the median of its
    rivals' running averages, each over the looks up to this step. Only rivals with a look at this
    step count, and there must be `least` of them.
    """

    among: Among
    grace: int
    least: int
    name: ClassVar[str] = "median"

    def reason(self, own: Curve, rivals: Mapping[str, Curve], at: Moment) -> str | None:
        """See `Rule`."""
        averages = [
            fmean(look.mean for step, look in curve.items() if step <= at.step)
            for curve in rivals.values()
            if at.step in curve
        ]
        if len(averages) < self.least:
            return None
        best = max(look.mean for step, look in own.items() if step <= at.step)
        middle = median(averages)
        if best >= middle:
            return None
        there = f"below the median of {len(averages)} there ({middle:.4f})"
        return f"{_at(self, best, at)} or before, {there}"


@dataclass(frozen=True)
class Sequential:
    """Stops a trial that is shown to be worse than a rival, with few false alarms in all.

    At each look it tests the paired differences per query to each rival: the upper bound on their
    mean must lie below minus the margin. A bound is one-sided at `error` / (comparisons x looks)
    (Bonferroni, so whatever the dependence of looks and pairs): Student's t over the queries, its
    variance raised by 2 seed_sd^2, because two trials of equal methods differ by their seeds too.
    So the chance that a study stops any trial whose method is, at the step of the look, not worse
    than its rivals by more than the margin is at most `error`, as long as `seed_sd` is not below
    the standard deviation of one method's score from seed to seed. It says nothing about who would
    win in the end: for that `grace` spares the early steps.
    """

    among: Among
    error: float
    grace: int = 1
    seed_sd: float = Prior().seed_sd
    name: ClassVar[str] = "sequential"

    def reason(self, own: Curve, rivals: Mapping[str, Curve], at: Moment) -> str | None:
        """See `Rule`."""
        mine, level = own[at.step], self.error / max(1, at.comparisons * at.looks)
        worse = []
        for name, curve in rivals.items():
            theirs = curve.get(at.step)
            if mine.queries is None or theirs is None or theirs.queries is None:
                continue
            bound = upper_bound(mine.queries - theirs.queries, level, self.seed_sd)
            if bound < -at.margin:
                worse.append((theirs.mean, name, bound))
        if not worse:
            return None
        score, name, bound = max(worse)
        return (
            f"{_at(self, mine.mean, at)}, {score - mine.mean:.4f} below {name} "
            f"(at least {-bound:.4f}, at a rate of false alarms of {self.error:g} in the study)"
        )


RULES: Mapping[str, type[Asha] | type[Median] | type[Sequential]] = {
    rule.name: rule for rule in (Asha, Median, Sequential)
}


def upper_bound(differences: NDArray[np.float64], level: float, seed_sd: float = 0.0) -> float:
    """One-sided upper bound, right but for a chance of `level`, on the mean of differences [Q].

    Student's t over the queries; `seed_sd` is what the seed adds to each side's mean. Infinite for
    fewer than two queries.
    """
    from scipy import special

    queries = len(differences)
    if queries < 2:
        return float("inf")
    variance = float(differences.var(ddof=1)) / queries + 2 * seed_sd**2
    error: float = variance**0.5
    return float(differences.mean()) - float(special.stdtrit(queries - 1, level)) * error


def _at(rule: Rule, score: float, at: Moment) -> str:
    return f"{rule.name}: {score:.4f} at step {at.step} of {at.total}"
