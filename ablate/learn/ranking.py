"""Which cells lead, on which metric, and which pairs of them are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ablate.learn.scores import split_key

if TYPE_CHECKING:
    from ablate.learn.stats import Comparison, Summary
    from ablate.plan.parts import Study
    from ablate.plan.planner import Plan

FULL_FAMILY = 1000
"""Pairs of cells up to which every pair is compared."""

Verdict = Literal["best", "first", "reference", "better", "undecided", "worse", "unfinished"]
"""Of a cell, from its comparison with the reference: `best` is the reference when every other cell
is worse, `first` when it leads the ranking all the same, else `reference`; `undecided` cannot be
told from it; `unfinished` has no scores."""


def primary_key(plan: Plan, keys: Sequence[str]) -> str:
    """The key that ranks the cells: the selection's metric on the first scored test reference."""
    select = plan.study.select
    wanted = select.metric if select else "ndcg_at_10"
    refs = [ref.label for ref in (*plan.test_refs, *plan.dev_refs)]
    named = [f"{ref}/{wanted}" for ref in refs]
    found = [key for key in named if key in keys] or list(keys) or named
    return found[0]


def primary_first(keys: Sequence[str], primary: str) -> tuple[str, ...]:
    """The keys with the primary metric first within every reference, and its reference first."""
    ref, metric = split_key(primary)
    own = sorted(keys, key=lambda key: split_key(key)[0] != ref)
    refs = list(dict.fromkeys(split_key(key)[0] for key in own))
    order = sorted(own, key=lambda k: (refs.index(split_key(k)[0]), split_key(k)[1] != metric))
    return tuple(order)


@dataclass(frozen=True)
class Family:
    """The pairs that are compared together, each (reference or higher ranked, other)."""

    pairs: tuple[tuple[str, str], ...]
    reference: str | None
    """The cell that every other one meets: the first of the ranking when all pairs are there."""
    complete: bool
    """Whether every pair of cells is there."""


def family(
    ranked: Sequence[str], summaries: Mapping[str, Mapping[str, Summary]], study: Study
) -> Family:
    """All pairs of the ranked cells. Where those are too many, the cell that is best on dev meets
    every other: a reference that the test scores did not pick. `summaries` is metric key -> cell
    name -> summary.
    """
    if len(ranked) * (len(ranked) - 1) // 2 <= FULL_FAMILY:
        pairs = tuple((a, b) for i, a in enumerate(ranked) for b in ranked[i + 1 :])
        return Family(pairs, ranked[0] if ranked else None, True)
    best = ranked[0]
    if study.select is not None:
        key = study.select.key
        known = [name for name in ranked if name in summaries.get(key, {})]
        best = max(known, key=lambda name: summaries[key][name].mean, default=best)
    return Family(tuple((best, other) for other in ranked if other != best), best, False)


def verdicts(
    family: Family, ranked: Sequence[str], against: Mapping[str, Comparison]
) -> dict[str, Verdict]:
    """The verdict of every ranked cell; `against` compares the reference with each other cell."""
    if family.reference is None:
        return {}
    found: dict[str, Verdict] = dict.fromkeys(ranked, "undecided")
    for name, pair in against.items():
        if pair.different:
            found[name] = "worse" if pair.effect > 0 else "better"
    worse = [name for name in against if found[name] == "worse"]
    alone = len(worse) == len(ranked) - 1 > 0
    leads = family.reference == ranked[0]
    found[family.reference] = "best" if alone else "first" if leads else "reference"
    return found


def against(family: Family, comparisons: Iterable[Comparison]) -> dict[str, Comparison]:
    """Cell name -> comparison with the reference, signed as reference minus cell."""
    found = {}
    for pair in comparisons:
        if pair.a == family.reference:
            found[pair.b] = pair
        elif pair.b == family.reference:
            found[pair.a] = pair.reversed()
    return found
