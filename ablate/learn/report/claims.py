"""Claims: what this study says of each hypothesis, on which cells, and what would settle it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from ablate.learn.claims import Claim, Finding, Verdict, judge
from ablate.learn.claims.match import Table as Cells
from ablate.learn.claims.match import matching
from ablate.learn.claims.values import Contrast, Selector, words
from ablate.learn.report.document import (
    Block,
    Points,
    Section,
    Table,
    Text,
    Value,
    difference,
    duration,
    listing,
    plural,
    probability,
    value,
)
from ablate.learn.report.figures import Figure, Row, Rows, row_plot
from ablate.learn.results import ALPHA, CellResult, Results, metric_title, split_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

TITLE = "Claims"
EXPECTED = {"greater": "> 0", "less": "< 0", "equal": "within ± {}", "no_worse": "> −{}"}


def verdicts(results: Results, claims: Sequence[Claim]) -> list[Verdict]:
    """The verdict on each claim from the scores of the study's cells."""
    return judge(claims, _cells(results, claims), ALPHA) if results.scored else []


def claims_section(results: Results, claims: Sequence[Claim]) -> Section:
    """A table of all contrasts, and for each claim what it says and what would settle it."""
    found = verdicts(results, claims)
    tested = [verdict for verdict in found if verdict.tested]
    if not tested:
        why = f"none of the {plural(len(claims), 'claim')} is about cells of this study"
        return Section("claims", TITLE, (), why if found else "")
    count = sum(len(verdict.findings) for verdict in tested)
    said = (
        f"{plural(len(tested), 'claim')} with {plural(count, 'contrast')}, judged together: "
        f"a wrong “holds” or “fails” anywhere among them has a chance of at most {ALPHA * 100:g} % "
        "(Holm). A claim holds when all its contrasts do, and fails when any does. Left and right "
        "are paired all else equal."
    )
    blocks: list[Block] = [
        Text(said),
        Points(tuple(_line(verdict) for verdict in tested)),
        _forest(tested),
        _table(tested),
    ]
    blocks += _open(results, tested)
    others = [verdict for verdict in found if not verdict.tested]
    if others:
        blocks.append(Text("**Not about this study:**"))
        blocks.append(Points(tuple(_untested(verdict) for verdict in others)))
    return Section("claims", TITLE, tuple(blocks))


def _cells(results: Results, claims: Sequence[Claim]) -> Cells:
    """Per cell its values, without seed and tuned keys, and its scores on what claims speak of."""
    patterns = {contrast.metric for claim in claims for contrast in claim.contrasts}
    found = [key for pattern in patterns for key in matching(pattern, results.metric_keys)]
    keys = [key for key in results.metric_keys if key in found]
    grids = {key: results.scores.grid(key) for key in keys}
    hidden = {"seed", *results.study.tune}
    return {
        cell.name: (
            {key: v for key, v in cell.trials[0].planned.flat.items() if key not in hidden},
            {
                key: _by_trial(results, cell, key, grids[key][cell.name])
                for key in keys
                if key in cell.metrics
            },
        )
        for cell in results.scored
    }


def _by_trial(
    results: Results, cell: CellResult, key: str, scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A cell's `scores` [trials that have them, queries] on a metric key as [counted trials,
    queries], NaN where a trial has none."""
    own = {trial.trial_id for trial in results.scores.trials(cell.name, [split_key(key)[0]])}
    found = np.full((len(cell.counted), scores.shape[1]), np.nan)
    found[[trial.trial_id in own for trial in cell.counted]] = scores
    return found


def _line(verdict: Verdict) -> str:
    claim = verdict.claim
    return f"**{claim.id} {_outcome(verdict.outcome)}.** {claim.statement} ({claim.source})"


def _outcome(outcome: str) -> str:
    return "is undecided" if outcome == "undecided" else outcome


def _untested(verdict: Verdict) -> str:
    missing = dict.fromkeys(f.missing for f in verdict.findings if f.missing is not None)
    return f"{verdict.claim.id}: {listing(list(missing))}."


def _named(verdict: Verdict) -> list[tuple[str, Finding]]:
    """The findings of a claim, told apart by a letter where there are several."""
    if len(verdict.findings) == 1:
        return [(verdict.claim.id, verdict.findings[0])]
    return [
        (f"{verdict.claim.id}{chr(ord('a') + place)}", finding)
        for place, finding in enumerate(verdict.findings)
    ]


def _forest(tested: Sequence[Verdict]) -> Figure:
    rows = []
    for verdict in tested:
        for name, found in _named(verdict):
            effect, low, high = _bounds(found)
            label = f"{name} {_sides(found.contrast)}"
            note = difference(effect, low, high)
            rows.append(Row(label, effect, low, high, note, found.outcome != "undecided"))
    caption = (
        "Left minus right of every contrast, with its 95 % interval. Filled: decided after "
        "correction. Hollow: undecided."
    )
    return row_plot("claims", caption, caption, Rows(tuple(rows), "left − right", {"0": 0.0}))


def _bounds(found: Finding) -> tuple[float, float, float]:
    effect, low, high = found.effect or 0.0, found.low, found.high
    return effect, effect if low is None else low, effect if high is None else high


def _sides(contrast: Contrast) -> str:
    return f"{_short(contrast.left)} − {_short(contrast.right)}"


def _short(selector: Selector) -> str:
    """The values of a selector without their keys."""
    return " ".join(str(wanted) for wanted in selector.values()) or "any"


def _table(tested: Sequence[Verdict]) -> Table:
    columns = (
        "Claim", "Outcome", "Effect", "p corrected", "Expected", "Left", "Right", "Where", "Metric",
        "Seeds", "Queries", "Cells used",
    )  # fmt: skip
    rows = tuple(_row(name, found) for verdict in tested for name, found in _named(verdict))
    caption = "Left minus right with its 95 % interval; p of the outcome that it points to"
    return Table(caption, columns, rows, frozenset({"Effect", "p corrected", "Seeds", "Queries"}))


def _row(name: str, found: Finding) -> tuple[Value, ...]:
    contrast, (effect, low, high) = found.contrast, _bounds(found)
    where = words(contrast.where)
    if contrast.versus is not None:
        where += f", less the same where {words(contrast.versus)}"
    refs = listing([key.rpartition("/")[0] for key in found.metrics])
    expected = EXPECTED[contrast.expects].format(f"{contrast.margin:g}")
    adjusted = 1.0 if found.p_adjusted is None else found.p_adjusted
    return (
        value(name), value(found.outcome), value(difference(effect, low, high), effect),
        value(probability(adjusted), adjusted), value(expected), value(words(contrast.left)),
        value(words(contrast.right)), value(where),
        value(f"{metric_title(found.metrics[0])} on {refs}"), value(found.seeds),
        value(found.queries), value(listing([*found.left, *found.right], limit=8)),
    )  # fmt: skip


def _open(results: Results, tested: Sequence[Verdict]) -> list[Block]:
    """What would settle each undecided contrast."""
    lines = []
    for verdict in tested:
        for name, found in _named(verdict):
            if found.outcome == "undecided":
                lines.append(f"**{name}**: {_settle(results, found)}.")
    return (
        [
            Text("**What would settle the undecided ones**, if the true effect is the one seen:"),
            Points(tuple(lines)),
        ]
        if lines
        else []
    )


def _settle(results: Results, found: Finding) -> str:
    if found.scope == "checkpoints":
        return "at least 3 seeds per cell; with one, nothing is known of training again"
    ways = []
    if found.seeds_needed is not None:
        cost = _cost(results, found, found.seeds_needed - found.seeds)
        ways.append(f"about {plural(found.seeds_needed, 'seed')} per cell{cost}")
    if found.queries_needed is not None:
        ways.append(f"about {plural(found.queries_needed, 'query')} with the same seeds")
    return " or ".join(ways) or "more seeds and queries together; neither alone is enough"


def _cost(results: Results, found: Finding, seeds: int) -> str:
    """The time that so many further seeds of the cells used would take."""
    used = {*found.left, *found.right}
    seconds = [
        sum(trial.record.seconds.values())
        for trial in results.trials
        if trial.cell in used
        and trial.counted
        and trial.record is not None
        and trial.state == "finished"
    ]
    if not seconds or not fmean(seconds):
        return ""
    trials = seeds * len(used)
    return (
        f" ({plural(trials, 'further trial')}, {duration(trials * fmean(seconds))} of their work)"
    )
