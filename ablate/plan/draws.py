"""The draws of a study: made once from its seed and shared by every cell, so cells are paired.

Under an adaptive search only the first of them are tried for certain (`first_draws`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice, product
from math import prod

import numpy as np

from ablate.plan.parts import Study
from ablate.plan.space import Grid, Random
from trainables.errors import InvalidInput, Problem
from trainables.spec import Scalar


@dataclass(frozen=True)
class Draw:
    """One setting of the tuned keys; the same for every cell."""

    index: int
    values: Mapping[str, Scalar]


def count_draws(study: Study) -> int:
    """How many draws `make_draws` returns."""
    grids = [space for space in study.tune.values() if isinstance(space, Grid)]
    return (study.budget.draws_per_cell or 1) * prod(len(grid.values) for grid in grids)


def first_draws(draws_per_cell: int) -> int:
    """How many of an adaptive search's draws are made before it, shared by every cell: a third of
    them, at least 4, but no more than half."""
    return max(-(-draws_per_cell // 3), min(4, draws_per_cell // 2))


def make_draws(study: Study) -> tuple[Draw, ...]:
    """Every random draw at every point of the grids; one empty draw when nothing is tuned.

    Raises InvalidInput when the spaces hold fewer distinct draws than the budget asks for.
    """
    grids = {key: space.values for key, space in study.tune.items() if isinstance(space, Grid)}
    found: list[Draw] = []
    for drawn in _distinct(study):
        for point in product(*grids.values()):
            values = {**drawn, **dict(zip(grids, point, strict=True))}
            found.append(Draw(len(found), {key: values[key] for key in study.tune}))
    return tuple(found)


def _distinct(study: Study) -> list[dict[str, Scalar]]:
    """The random draws, without repetition."""
    wanted = study.budget.draws_per_cell or 1
    if not study.random:
        return [{}]
    found: dict[tuple[Scalar, ...], dict[str, Scalar]] = {}
    for values in islice(_stream(study.random, study.budget.seed), 50 * wanted + 1000):
        found.setdefault(tuple(values.values()), values)
        if len(found) == wanted:
            return list(found.values())
    rule = f"asks for more draws than there are: {len(found)} distinct ones were found"
    raise InvalidInput([Problem("budget.draws_per_cell", rule, wanted)])


def _stream(spaces: Mapping[str, Random], seed: int) -> Iterator[dict[str, Scalar]]:
    """Draws without end, spread evenly: a Halton sequence, shifted by a seeded random offset.

    The offset makes every value of a draw uniform in its space (Cranley and Patterson 1976). The
    first draws stay the same when more are made, and when a key is added after the others.
    """
    offsets = {}
    for key in spaces:
        generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(key.encode())]))
        offsets[key] = float(generator.random())
    bases = list(islice(_primes(), len(spaces)))
    for index in count(1):
        yield {
            key: space.at((offsets[key] + _radical_inverse(index, base)) % 1.0)
            for (key, space), base in zip(spaces.items(), bases, strict=True)
        }


def _radical_inverse(index: int, base: int) -> float:
    """The digits of `index` in `base`, mirrored at the point: van der Corput's sequence."""
    value, scale = 0.0, 1.0
    while index:
        index, digit = divmod(index, base)
        scale /= base
        value += digit * scale
    return value


def _primes() -> Iterator[int]:
    found: list[int] = []
    for number in count(2):
        if all(number % prime for prime in found):
            found.append(number)
            yield number
