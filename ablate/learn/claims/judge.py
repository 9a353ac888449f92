"""Claims against a study: effect, interval, verdict, and what would settle the open ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import special

from ablate.learn.claims.match import Table, match, together
from ablate.learn.claims.values import Claim, Contrast
from ablate.learn.stats.cells import mean_of_sets, reduce
from ablate.learn.stats.errors import Contrasts, Errors, Scope
from ablate.learn.stats.family import check_level, holm
from ablate.learn.stats.pairs import within

Outcome = Literal["holds", "fails", "undecided"]
POWER = 0.8
MOST_SEEDS = 100
MOST_QUERIES = 1_000_000


@dataclass(frozen=True)
class Finding:
    """What a study says of one contrast; the effect is left minus right, None when not tested.

    `low` and `high` bound it with confidence 1 - alpha. `p` and `p_adjusted` (Holm over all
    contrasts judged together) are of the outcome that the effect points to. `seeds_needed` per
    cell, or else `queries_needed`, decide an open contrast with power 0.8 if the true effect is the
    one seen; None where no number does. `missing` says what the study lacks.
    """

    contrast: Contrast
    outcome: Outcome
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    left: tuple[str, ...] = ()
    right: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    seeds: int = 0
    """Fewest seeds of a cell used."""
    queries: int = 0
    scope: Scope | None = None
    seeds_needed: int | None = None
    queries_needed: int | None = None
    missing: str | None = None


@dataclass(frozen=True)
class Verdict:
    """A claim, its outcome on this study, and what stands behind it."""

    claim: Claim
    outcome: Outcome
    findings: tuple[Finding, ...]

    @property
    def tested(self) -> bool:
        """Whether the study has the cells and metrics of every contrast."""
        return all(finding.missing is None for finding in self.findings)

    @property
    def settled_by(self) -> tuple[str, ...]:
        """What would decide an undecided claim, a line for each open contrast."""
        if self.outcome != "undecided":
            return ()
        lines = [_settled_by(finding) for finding in self.findings]
        return tuple(dict.fromkeys(line for line in lines if line))


def judge(
    claims: Sequence[Claim], table: Table, alpha: float = 0.05, seed: int = 0
) -> list[Verdict]:
    """The verdict on each claim from the scores of a study's cells.

    Cells of the left and right side are paired all else equal: a pair agrees in every key that all
    cells of the contrast have and that its selectors do not name; sides are averaged within such a
    stratum, and the strata over each other. All contrasts of `claims` are one family: a wrong
    `holds` or `fails` anywhere happens in at most `alpha` of studies. Where no cell has two seeds,
    every claim is undecided, as it is about training methods.

    Raises InvalidInput as `compare` does.
    """
    check_level(alpha)
    drafts = [[_draft(contrast, table, seed) for contrast in claim.contrasts] for claim in claims]
    tests = [draft for group in drafts for draft in group if isinstance(draft, _Test)]
    adjusted = holm(np.array([test.p for test in tests]))
    decided = {
        id(test): _decide(test, float(p), alpha, len(tests))
        for test, p in zip(tests, adjusted, strict=True)
    }
    verdicts = []
    for claim, group in zip(claims, drafts, strict=True):
        findings = tuple(
            decided[id(draft)] if isinstance(draft, _Test) else draft for draft in group
        )
        verdicts.append(Verdict(claim, _outcome(findings), findings))
    return verdicts


def _outcome(findings: Sequence[Finding]) -> Outcome:
    outcomes = {finding.outcome for finding in findings}
    if "fails" in outcomes:
        return "fails"
    return "holds" if outcomes == {"holds"} else "undecided"


@dataclass(frozen=True)
class _Test:
    """A contrast with its errors; `p` is of the outcome that the effect points to."""

    finding: Finding
    errors: Errors
    outcome: Outcome
    p: float


def _draft(contrast: Contrast, table: Table, seed: int) -> _Test | Finding:
    """The test of a contrast, or the finding that the study cannot test it."""
    sides = match(contrast, table)
    if isinstance(sides, str):
        return Finding(contrast, "undecided", missing=sides)
    scores = {
        name: mean_of_sets(parts)
        for name, (_, found) in table.items()
        if all(key in found for key in sides.metrics) and (parts := together(found, sides.metrics))
    }
    cells = reduce(scores)
    weights = np.array([[sides.weights.get(name, 0.0) for name in cells.names]])
    errors = Errors(cells, Contrasts.of(weights), seed)
    outcome, p = _towards(contrast, errors)
    used = np.flatnonzero(weights[0])
    finding = Finding(
        contrast,
        "undecided",
        effect=float(errors.effects[0]),
        left=tuple(name for name, weight in sides.weights.items() if weight > 0),
        right=tuple(name for name, weight in sides.weights.items() if weight < 0),
        metrics=sides.metrics,
        seeds=int(cells.seeds[used].min()),
        queries=cells.queries,
        scope=errors.scopes[0],
    )
    return _Test(finding, errors, outcome, p)


def _towards(contrast: Contrast, errors: Errors) -> tuple[Outcome, float]:
    """The outcome that the effect points to, and the p-value of its opposite."""
    effect, margin = errors.effects, contrast.margin
    if contrast.expects == "equal":
        if abs(float(effect[0])) > margin:
            return "fails", float(errors.p_values(np.abs(effect) - margin)[0])
        return "holds", float(within(errors, margin)[0])
    sign = -1.0 if contrast.expects == "less" else 1.0
    distance = sign * effect + margin
    outcome: Outcome = "holds" if distance[0] > 0 else "fails"
    return outcome, float(errors.p_values(distance)[0])


def _decide(test: _Test, adjusted: float, alpha: float, family: int) -> Finding:
    """The finding with its outcome, and with what would settle it when that is open."""
    reach = float(test.errors.reaches(alpha)[0])
    effect = float(test.errors.effects[0])
    sure = adjusted <= alpha and test.finding.scope != "checkpoints"
    finding = replace(
        test.finding,
        outcome=test.outcome if sure else "undecided",
        low=effect - reach,
        high=effect + reach,
        p=test.p,
        p_adjusted=adjusted,
    )
    if sure or test.finding.scope == "checkpoints":
        return finding
    seeds, queries = _needed(test, alpha / family)
    return replace(finding, seeds_needed=seeds, queries_needed=queries)


def _needed(test: _Test, alpha: float) -> tuple[int | None, int | None]:
    """Seeds per cell, or queries, that decide the contrast if the true effect is the one seen.

    More seeds shrink the seeds' part of the error's variance, more queries the rest of it.
    """
    contrast, errors, finding = test.finding.contrast, test.errors, test.finding
    effect = abs(float(errors.effects[0]))
    distance = {
        "equal": abs(effect - contrast.margin),
        "no_worse": abs(float(errors.effects[0]) + contrast.margin),
    }.get(contrast.expects, effect)
    sides = 1 if contrast.expects == "equal" and effect <= contrast.margin else 2
    reach = float(special.ndtri(POWER) - special.ndtri(alpha / sides))
    parts = errors.parts()
    allowed = (distance / reach) ** 2
    of_queries = float(parts.queries[0])
    of_both, of_seeds = float(parts.interaction[0]), float(parts.seeds[0])
    more = (of_seeds + of_both) / (allowed - of_queries) if allowed > of_queries else math.inf
    wider = (of_both + of_queries) / (allowed - of_seeds) if allowed > of_seeds else math.inf
    return _count(more, finding.seeds, MOST_SEEDS), _count(wider, finding.queries, MOST_QUERIES)


def _count(factor: float, now: int, most: int) -> int | None:
    """`now` times the factor, at least one more than now; None above `most`."""
    if factor * now > most:
        return None
    return max(math.ceil(factor * now), now + 1)


def _settled_by(finding: Finding) -> str | None:
    """A line on what would decide an open finding; None for one that is decided."""
    if finding.outcome != "undecided":
        return None
    if finding.missing is not None:
        return f"not tested by this study: {finding.missing}"
    if finding.scope == "checkpoints":
        return "at least 3 seeds per cell: with one, nothing is known of training again"
    ways = []
    if finding.seeds_needed is not None:
        ways.append(f"about {finding.seeds_needed} seeds per cell")
    if finding.queries_needed is not None:
        ways.append(f"about {finding.queries_needed:,} queries with the same seeds")
    if not ways:
        return "more seeds and more queries together, unless the true effect is larger than seen"
    return " or ".join(ways)
