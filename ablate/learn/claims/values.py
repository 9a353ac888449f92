"""Claims as values: which cells stand against which, on which metric, and what is expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Union

from trainables.spec import Scalar

Expects = Literal["greater", "less", "equal", "no_worse"]
"""Of left minus right: above 0; below 0; within `margin` of 0; above -`margin`."""

EXPECTS: tuple[Expects, ...] = ("greater", "less", "equal", "no_worse")
WITH_MARGIN: tuple[Expects, ...] = ("equal", "no_worse")


@dataclass(frozen=True)
class OneOf:
    """Matches a value that equals one of `values`; 0 and 0.0 are equal, 0 and false are not."""

    values: tuple[Scalar, ...]

    def matches(self, value: Scalar) -> bool:
        return any(
            value == one and isinstance(value, bool) == isinstance(one, bool) for one in self.values
        )

    def __str__(self) -> str:
        return " or ".join("null" if one is None else str(one) for one in self.values)


@dataclass(frozen=True)
class Between:
    """Matches a number above `above` and below `below`, where they are given."""

    above: float | None = None
    below: float | None = None

    def matches(self, value: Scalar) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        over = self.above is None or value > self.above
        return over and (self.below is None or value < self.below)

    def __str__(self) -> str:
        ends = (("above", self.above), ("below", self.below))
        return " and ".join(f"{word} {end:g}" for word, end in ends if end is not None)


Selector = Mapping[str, Union[OneOf, Between]]
"""Key of a trial -> the values that are meant; cells match when all their keys do."""


def selects(selector: Selector, values: Mapping[str, Scalar]) -> bool:
    """Whether a cell with `values` is meant; a key that the cell lacks matches nothing."""
    return all(key in values and wanted.matches(values[key]) for key, wanted in selector.items())


def words(selector: Selector) -> str:
    """The selector as text, such as `loss.name = lse_pair, data.human_fraction above 0`."""
    parts = [
        f"{key} {'= ' if isinstance(wanted, OneOf) else ''}{wanted}"
        for key, wanted in selector.items()
    ]
    return ", ".join(parts) or "any cell"


@dataclass(frozen=True)
class Contrast:
    """Left minus right, all else equal, among the cells of `where`, on `metric`.

    `metric` is a metric key in which `*` stands for any text: `*/test/mrr_at_10` is the mean over
    all test sets by their own judgements and the threshold 1, each weighing the same. Thresholds
    and judges are named with their `:`, as in `nq/test:grade-2/mrr_at_10`, one to a split. With
    `versus` it is an interaction: the difference where `where` holds, less the difference where
    `versus` does.
    """

    left: Selector
    right: Selector
    metric: str
    expects: Expects
    margin: float = 0.0
    where: Selector = field(default_factory=dict)
    versus: Selector | None = None


@dataclass(frozen=True)
class Claim:
    """A hypothesis: it holds when every contrast does, and fails when any fails."""

    id: str
    statement: str
    source: str
    contrasts: tuple[Contrast, ...]
