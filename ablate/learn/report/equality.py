"""Which cells are equal within the margin that the study declared: two one-sided tests."""

from __future__ import annotations

from ablate.learn.report.document import (
    Section,
    Table,
    Text,
    difference,
    number,
    plural,
    probability,
    value,
)
from ablate.learn.results import ALPHA, Results, metric_title
from ablate.learn.stats import Equivalence, equivalent

TITLE = "Which cells are equal"


def equality(results: Results) -> Section:
    """Verdicts of equivalence for the family's pairs; left out when no margin was declared."""
    select = results.study.select
    margin = None if select is None else select.equal_within
    if not results.family.pairs:
        return Section("equality", TITLE, ())
    if margin is None:
        why = (
            "the study declares no `select.equal_within`, the difference that does not matter, so "
            "no pair is called equal"
        )
        return Section("equality", TITLE, (), why)
    found = list(equivalent(results.grid, results.family.pairs, margin, ALPHA))
    count = sum(pair.equivalent for pair in found)
    title = metric_title(results.primary)
    words = (
        f"Two cells are called equal when their difference in {title} is shown to lie within "
        f"± {margin:g}, the margin that the study declares: two one-sided tests with the errors of "
        f"the comparison above, corrected for {plural(len(found), 'pair')} (Holm). "
        f"{plural(count, 'pair')} {'is' if count == 1 else 'are'} equal in this sense. A pair "
        "that is neither different nor equal is undecided."
    )
    return Section("equality", TITLE, (Text(words), _table(results, found, margin)))


def _table(results: Results, found: list[Equivalence], margin: float) -> Table:
    """The pairs with the reference, and every further pair that is equal."""
    reference = results.family.reference
    different = {(pair.a, pair.b): pair.different for pair in results.comparisons}
    shown = [pair for pair in found if reference in (pair.a, pair.b) or pair.equivalent]
    columns = ("Cell", "Other", "Difference", "p corrected", "Verdict")
    rows = tuple(
        (
            value(pair.a),
            value(pair.b),
            value(difference(pair.effect, pair.low, pair.high), pair.effect),
            value(probability(pair.p_adjusted), pair.p_adjusted),
            value(_verdict(pair.equivalent, different[pair.a, pair.b], margin)),
        )
        for pair in shown
    )
    caption = (
        f"Pairs with {reference}, and every other pair that is equal; 90 % intervals, as the two "
        "tests have them"
    )
    return Table(caption, columns, rows, frozenset(columns[2:4]))


def _verdict(equal: bool, different: bool, margin: float) -> str:
    within = f"equal within {number(margin)}"
    if different:
        return f"different, by less than {number(margin)}" if equal else "different"
    return within if equal else "undecided"
