"""Study: a question and the trials that answer it, as one frozen value.

A key of a trial sits in exactly one block: `fixed` (one value), `compare` (every value, one cell
each), `tune` (drawn alike for every cell) or `repeat` (the seeds).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from math import prod
from typing import Literal, Union, get_args

from ablate.plan.keys import without_foreign
from ablate.plan.space import Choice, Grid, Random, Space, is_random
from ablate.plan.stops import Asha, Median, Sequential
from trainables.data.collections import Ref
from trainables.spec import Scalar

BLOCKS: tuple[str, ...] = (
    "question",
    "fixed",
    "compare",
    "tune",
    "repeat",
    "budget",
    "select",
    "evaluate",
    "watch",
    "stop",
    "exclude",
    "resources",
    "confirm",
)


SearchKind = Literal["random", "adaptive"]
SEARCHES: tuple[SearchKind, ...] = get_args(SearchKind)
"""Draws made before anything runs, alike for every cell; or most of them chosen, in each cell on
its own, from the scores of the cell's earlier draws."""

Values = dict[str, Scalar]
Stop = Union[Asha, Median, Sequential]
Labels = dict[str, str]


@dataclass(frozen=True)
class Axis:
    """One thing that is compared: `options` sets one key each, or several that belong together.

    `names` are those of the options, where they were given.
    """

    name: str
    options: tuple[Mapping[str, Scalar], ...]
    names: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that an option sets, in the order of writing."""
        return tuple(dict.fromkeys(key for option in self.options for key in option))

    @property
    def bundled(self) -> bool:
        """Whether the options are named by a label rather than by their only key."""
        return self.keys != (self.name,)


@dataclass(frozen=True)
class Exclusion:
    """Cells that are left out: those whose values are among `when`, and why."""

    when: Mapping[str, tuple[Scalar, ...]]
    reason: str

    def matches(self, values: Mapping[str, Scalar]) -> bool:
        """Whether a cell of these values is left out."""
        return all(key in values and values[key] in self.when[key] for key in self.when)


@dataclass(frozen=True)
class Budget:
    """How many random draws every cell gets, the seed they are made from, how they are made
    (`SEARCHES`), and the price of one human label, in any currency."""

    draws_per_cell: int | None = None
    seed: int = 0
    search: SearchKind = "random"
    label_price: float | None = None


@dataclass(frozen=True)
class Select:
    """What the winner of a cell's draws is chosen by: the greatest `metric` on a dev split.

    `equal_within` is the difference in that metric up to which two cells count as equal.
    """

    ref: Ref
    metric: str
    equal_within: float | None = None

    @property
    def key(self) -> str:
        """Name of the metric in the ledger, such as `msmarco/dev/mrr_at_10`."""
        return f"{self.ref.label}/{self.metric}"


@dataclass(frozen=True)
class Watch:
    """What is scored while a trial trains: a dev split, after every `every` steps.

    Searched are `passages` of its passages, or (None) all.
    """

    ref: Ref
    every: int
    passages: int | None = None

    @property
    def label(self) -> str:
        """The beginning of the names of its metrics."""
        return self.ref.label if self.passages is None else self.ref.part_label(self.passages)


@dataclass(frozen=True)
class Resources:
    """What one trial takes, and how many run at once; null runs as many as fit."""

    workers: int = 1
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    max_concurrent_trials: int | None = None


@dataclass(frozen=True)
class Confirm:
    """The winner is trained once more, by this many Ray Train workers, and must come out alike."""

    workers: int


@dataclass(frozen=True)
class Cell:
    """One combination of the compared values. Names differ within their first characters.

    `labels` holds the names of the named options that `values` come from.
    """

    name: str
    values: Mapping[str, Scalar]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A question and the trials that answer it; complete and valid once `load_study` returned it.

    `only` keeps some compared values (`narrow`); a cell keeps its number and name under it.
    """

    name: str
    question: str
    fixed: Mapping[str, Scalar]
    compare: tuple[Axis, ...]
    tune: Mapping[str, Space]
    seeds: tuple[int, ...]
    evaluate: tuple[Ref, ...]
    budget: Budget = field(default_factory=Budget)
    select: Select | None = None
    watch: Watch | None = None
    stop: Stop | None = None
    exclude: tuple[Exclusion, ...] = ()
    resources: Resources = field(default_factory=Resources)
    confirm: Confirm | None = None
    only: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)

    @property
    def compared(self) -> tuple[str, ...]:
        """Every compared key, in the order of writing."""
        return tuple(dict.fromkeys(key for axis in self.compare for key in axis.keys))

    @property
    def random(self) -> Mapping[str, Random]:
        """The tuned keys whose values are drawn rather than listed."""
        return {key: space for key, space in self.tune.items() if is_random(space)}

    @property
    def adaptive(self) -> bool:
        """Whether most draws are chosen while the study runs."""
        return self.budget.search == "adaptive"

    @property
    def references(self) -> tuple[Ref, ...]:
        """Every split that trials are scored on: the one that selects, then `evaluate`."""
        select = () if self.select is None else (self.select.ref,)
        return tuple({ref.label: ref for ref in (*select, *self.evaluate)}.values())

    def listed(self, key: str) -> tuple[Scalar, ...]:
        """The values of a key, as far as the study lists them: not those of a range."""
        if key in self.fixed:
            return (self.fixed[key],)
        space = self.tune.get(key)
        if isinstance(space, (Grid, Choice)):
            return space.values
        options = [option for axis in self.compare for option in axis.options]
        return tuple(dict.fromkeys(option[key] for option in options if key in option))

    def cells(self) -> tuple[Cell, ...]:
        """The cells that are run: all but the excluded and those outside `only`."""
        return tuple(cell for cell in self._numbered if self._kept(cell))

    def excluded(self) -> tuple[tuple[Cell, str], ...]:
        """The cells left out by `exclude`, each with its reason."""
        found = []
        for cell in self._numbered:
            reasons = [rule.reason for rule in self.exclude if self._matches(rule, cell)]
            if reasons:
                found.append((cell, reasons[0]))
        return tuple(found)

    def excludes(self, rule: Exclusion) -> bool:
        """Whether `rule` leaves out any cell."""
        return any(self._matches(rule, cell) for cell in self._numbered)

    def _kept(self, cell: Cell) -> bool:
        known = {**cell.labels, **cell.values}
        inside = all(known.get(key) in values for key, values in self.only.items())
        return inside and not any(self._matches(rule, cell) for rule in self.exclude)

    def _matches(self, rule: Exclusion, cell: Cell) -> bool:
        return rule.matches({**self.fixed, **cell.labels, **cell.values})

    @cached_property
    def _numbered(self) -> tuple[Cell, ...]:
        """Every cell. Parameters of another loss are dropped, and so are the doubles they leave."""
        distinct: dict[tuple[tuple[str, bool, Scalar], ...], tuple[Values, Labels]] = {}
        for values, labels in self._combinations():
            loss = values.get("loss.name", self.fixed.get("loss.name"))
            own = without_foreign(values, loss)
            same = tuple((key, isinstance(value, bool), value) for key, value in own.items())
            distinct.setdefault(same, (own, labels))
        width = max(2, len(str(len(distinct))))
        text_of = CellTexts(self)
        return tuple(
            Cell(f"{number:0{width}d} {text_of(values, labels)}", values, labels)
            for number, (values, labels) in enumerate(distinct.values(), start=1)
        )

    def _combinations(self) -> Iterator[tuple[Values, Labels]]:
        names = [axis.names or [""] * len(axis.options) for axis in self.compare]
        choices = [
            list(zip(axis.options, given, strict=True))
            for axis, given in zip(self.compare, names, strict=True)
        ]
        for combination in product(*choices):
            values = {key: value for option, _ in combination for key, value in option.items()}
            given = zip(self.compare, combination, strict=True)
            yield values, {axis.name: name for axis, (_, name) in given if name}

    @property
    def size(self) -> int:
        """How many combinations the compared values have at most."""
        return prod(len(axis.options) for axis in self.compare)


class CellTexts:
    """Compact text of a cell: the values alone where they say enough, and the options' names."""

    def __init__(self, study: Study) -> None:
        self.study = study
        shown = [key for axis in study.compare if not axis.names for key in axis.keys]
        listed = {key: study.listed(key) for key in shown}
        numeric = [key for key in shown if all(map(_is_number, listed[key]))]
        words = [key for key in shown if all(isinstance(value, str) for value in listed[key])]
        self.bare = {key for key in words if not key.startswith("loss.params.")}
        if len(numeric) == 1:
            self.bare.add(numeric[0])

    def __call__(self, values: Values, labels: Labels) -> str:
        parts = []
        for axis in self.study.compare:
            own = [self._part(key, values[key]) for key in axis.keys if key in values]
            parts += [labels[axis.name]] if axis.name in labels else own
        return " ".join(parts) or self.study.name

    def _part(self, key: str, value: Scalar) -> str:
        text = value if isinstance(value, str) else "none" if value is None else _number(value)
        return text if key in self.bare else f"{key.rpartition('.')[2]}={text}"


def _is_number(value: Scalar) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(value: float) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else f"{value:.10g}"
