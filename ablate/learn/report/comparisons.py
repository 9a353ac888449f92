"""Which differences are real: the family's pairs against the reference, and what they are about."""

from __future__ import annotations

from ablate.learn.report.document import (
    LOST,
    Section,
    Table,
    Text,
    Value,
    difference,
    number,
    plural,
    probability,
    value,
)
from ablate.learn.report.plots import differences
from ablate.learn.results import Results, metric_title
from ablate.learn.stats import Scope

TITLE = "Which differences are real"
ABOUT: dict[Scope, str] = {
    "method": "training methods, over seeds and queries",
    "borrowed": "training methods, with the other cells' seed variance for a cell of one seed",
    "checkpoints": "these very checkpoints, over queries alone",
}
"""What an inference of each scope is about."""


def comparisons(results: Results) -> Section:
    """The reference against every cell."""
    if not results.against:
        return Section("differences", TITLE, ())
    count = len(results.comparisons)
    family = (
        f"All {plural(count, 'pair')} of cells"
        if results.family.complete
        else f"The cell best on dev against the {plural(count, 'other')}"
    )
    words = (
        f"{family} were compared on {metric_title(results.primary)}, query by query; the chance "
        "of even one false difference among them is held at 5 %, unless the seeds of some cell "
        "scatter far more than those of the others. A hollow dot is a difference "
        "that is not shown, which is not the same as no difference."
    )
    floor = (
        ""
        if results.seed_noise is None
        else f" The shaded band is the seed-noise floor: differences of ± "
        f"{number(results.seed_noise)} appear between equal cells by their seeds alone."
    )
    blocks = (Text(words + floor), Text(scope(results)), differences(results), _table(results))
    return Section("differences", TITLE, blocks)


def scope(results: Results) -> str:
    """What the family's verdicts are about."""
    found = [scope for scope in ABOUT if any(p.scope == scope for p in results.comparisons)]
    words = "; or of ".join(ABOUT[one] for one in found)
    note = ""
    if "checkpoints" in found:
        note = (
            " With one seed per cell nothing is known of training again: a difference here is one "
            "of the trained encoders, not of the methods."
        )
    return f"**Scope.** The verdicts are of {words}.{note}"


def difference_value(effect: float, low: float, high: float) -> Value:
    """A difference with its interval, sorted by itself."""
    return value(difference(effect, low, high), effect)


def _table(results: Results) -> Table:
    """Every cell that was compared with the reference."""
    columns = ("Cell", "Difference", "p", "p corrected", "Different", "Scope", LOST)
    rows = tuple(
        (
            value(cell.name),
            difference_value(-pair.effect, -pair.high_family, -pair.low_family),
            value(probability(pair.p), pair.p),
            value(probability(pair.p_adjusted), pair.p_adjusted),
            value("yes" if pair.different else "not shown"),
            value(pair.scope),
            value(cell.lost),
        )
        for cell in results.scored
        if (pair := results.against.get(cell.name)) is not None
    )
    caption = (
        f"{metric_title(results.primary)} minus that of {results.family.reference}. Intervals "
        "and corrected p-values hold for all compared pairs together."
    )
    return Table(caption, columns, rows, frozenset(columns[1:4]) | {LOST})
