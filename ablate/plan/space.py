"""Spaces: the values a key may take, as frozen values that refuse bad bounds.

A space is written in YAML as a scalar (`Fixed`), a list (`Grid`: every value), or one of
`{choice: [...]}`, `{uniform: [low, high]}`, `{log_uniform: [low, high]}`, `{integer: [low, high]}`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeGuard, Union

from trainables.errors import InvalidInput, Problem, nearest
from trainables.spec import Scalar, text_number

DIGITS = 6
"""Significant digits of a drawn number: `exp` differs in its last bits between machines, and a
trial's identity must not."""

LARGEST = 1e300
"""Bounds lie below it, so that no sum of them overflows."""


@dataclass(frozen=True)
class Fixed:
    """One value, written as a scalar."""

    value: Scalar

    def __post_init__(self) -> None:
        _require_scalars("fixed", (self.value,))

    def to_yaml(self) -> Scalar:
        return self.value


@dataclass(frozen=True)
class Grid:
    """Every one of `values`, written as a list or `{grid: [...]}`."""

    kind: ClassVar[str] = "grid"
    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _distinct(self.kind, self.values))

    def to_yaml(self) -> list[Scalar]:
        return list(self.values)


@dataclass(frozen=True)
class Choice:
    """One of `values`, each as likely as the others."""

    kind: ClassVar[str] = "choice"
    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _distinct(self.kind, self.values))

    def at(self, unit: float) -> Scalar:
        """The value at `unit` in [0, 1) of the distribution."""
        return self.values[int(unit * len(self.values))]

    def to_yaml(self) -> dict[str, list[Scalar]]:
        return {self.kind: list(self.values)}


@dataclass(frozen=True)
class Uniform:
    """A real number between `low` and `high`, each as likely as the others."""

    kind: ClassVar[str] = "uniform"
    low: float
    high: float

    def __post_init__(self) -> None:
        _set_bounds(self, self.kind, self.low, self.high)

    def at(self, unit: float) -> float:
        """The value at `unit` in [0, 1) of the distribution."""
        return self.rounded(self.low + unit * (self.high - self.low))

    def rounded(self, value: float) -> float:
        """`value` with `DIGITS` significant digits, within the bounds."""
        return _rounded(value, self.low, self.high)

    def to_yaml(self) -> dict[str, list[float]]:
        return {self.kind: [self.low, self.high]}


@dataclass(frozen=True)
class LogUniform:
    """A number between `low` and `high` whose logarithm is uniform: for scales such as rates."""

    kind: ClassVar[str] = "log_uniform"
    low: float
    high: float

    def __post_init__(self) -> None:
        _set_bounds(self, self.kind, self.low, self.high)
        if not self.low > 0:
            _refuse(self.kind, "`0 < low` must hold", [self.low, self.high])

    def at(self, unit: float) -> float:
        """The value at `unit` in [0, 1) of the distribution."""
        ratio = math.log(self.high) - math.log(self.low)
        return self.rounded(math.exp(math.log(self.low) + unit * ratio))

    def rounded(self, value: float) -> float:
        """`value` with `DIGITS` significant digits, within the bounds."""
        return _rounded(value, self.low, self.high)

    def to_yaml(self) -> dict[str, list[float]]:
        return {self.kind: [self.low, self.high]}


@dataclass(frozen=True)
class Integer:
    """A whole number from `low` to `high`, both included, each as likely as the others."""

    kind: ClassVar[str] = "integer"
    low: int
    high: int

    def __post_init__(self) -> None:
        if type(self.low) is not int or type(self.high) is not int:
            _refuse(self.kind, "its bounds must be whole numbers", [self.low, self.high])
        if max(abs(self.low), abs(self.high)) > 2**53:
            _refuse(self.kind, "its bounds must lie within 2**53", [self.low, self.high])
        if not self.low < self.high:
            _refuse(self.kind, "`low < high` must hold", [self.low, self.high])

    def at(self, unit: float) -> int:
        """The value at `unit` in [0, 1) of the distribution."""
        return self.low + int(unit * (self.high - self.low + 1))

    def to_yaml(self) -> dict[str, list[int]]:
        return {self.kind: [self.low, self.high]}


Random = Union[Choice, Uniform, LogUniform, Integer]
Space = Union[Fixed, Grid, Choice, Uniform, LogUniform, Integer]

_LISTED: dict[str, type[Grid] | type[Choice]] = {"grid": Grid, "choice": Choice}
_BOUNDED: dict[str, type[Uniform] | type[LogUniform] | type[Integer]] = {
    "uniform": Uniform,
    "log_uniform": LogUniform,
    "integer": Integer,
}
KINDS: tuple[str, ...] = (*_LISTED, *_BOUNDED)
"""Names of the kinds that a mapping such as `{log_uniform: [1.0e-6, 1.0e-4]}` may name."""


def parse_space(value: object) -> Space:
    """The space of its YAML form. Raises InvalidInput with the rule that is broken."""
    if isinstance(value, list):
        return Grid(tuple(value))
    if not isinstance(value, dict):
        return Fixed(value)  # type: ignore[arg-type]  # the constructor checks it
    if len(value) != 1:
        _refuse("space", f"names exactly one of {', '.join(KINDS)}", value)
    ((kind, inside),) = value.items()
    if kind not in KINDS:
        rule = f"is no kind of space; known: {', '.join(KINDS)}"
        raise InvalidInput([Problem(str(kind), rule, None, nearest(str(kind), KINDS))])
    if not isinstance(inside, list):
        _refuse(kind, "needs a list", inside)
    if kind in _LISTED:
        return _LISTED[kind](tuple(inside))
    if len(inside) != 2:
        _refuse(kind, "needs its two bounds, [low, high]", inside)
    return _BOUNDED[kind](*inside)


def is_random(space: Space) -> TypeGuard[Random]:
    """Whether values are drawn from `space`, rather than listed by it."""
    return not isinstance(space, (Fixed, Grid))


def _refuse(kind: str, rule: str, value: object) -> None:
    raise InvalidInput([Problem(kind, rule, value)])


def _require_scalars(kind: str, values: Sequence[object]) -> None:
    for value in values:
        if not (value is None or isinstance(value, (str, int, float))):
            _refuse(kind, "a value is text, a number, true, false or null", value)
        if isinstance(value, float) and not math.isfinite(value):
            _refuse(kind, "a number must be finite", value)


def _distinct(kind: str, values: Sequence[Scalar]) -> tuple[Scalar, ...]:
    _require_scalars(kind, values)
    if not values:
        _refuse(kind, "needs at least one value", list(values))
    if len({(isinstance(value, bool), value) for value in values}) < len(values):
        _refuse(kind, "its values must differ", list(values))
    return tuple(values)


def _set_bounds(space: Uniform | LogUniform, kind: str, low: object, high: object) -> None:
    """Stores the bounds as floats, or refuses them."""
    bounds = []
    for value in (low, high):
        written = text_number(value)
        if written is not None:
            _refuse(kind, f"{written.rule}; write {written.nearest}", value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            _refuse(kind, "its bounds must be numbers", [low, high])
        elif not -LARGEST < value < LARGEST:
            _refuse(kind, "its bounds must be finite", [low, high])
        else:
            bounds.append(float(value))
    if not bounds[0] < bounds[1]:
        _refuse(kind, "`low < high` must hold", [low, high])
    object.__setattr__(space, "low", bounds[0])
    object.__setattr__(space, "high", bounds[1])


def _rounded(value: float, low: float, high: float) -> float:
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)
