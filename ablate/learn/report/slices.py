"""Groups of queries: where the mean over all of them hides a loss."""

from __future__ import annotations

from collections.abc import Sequence

from ablate.learn.queries import groups_of, query_facts, rising
from ablate.learn.report.comparisons import difference_value
from ablate.learn.report.document import (
    Block,
    Points,
    Section,
    Table,
    Text,
    difference,
    plural,
    probability,
    value,
)
from ablate.learn.report.figures import Figure, Row, Rows, row_plot
from ablate.learn.results import ALPHA, Results, metric_title, split_key
from ablate.learn.stats import Slice, slices

TITLE = "Groups of queries"
OTHERS = 6
"""Cells that the reference meets in every group: the best ranked."""


def query_groups(results: Results) -> Section:
    """The reference against the best other cells by lexical overlap, positives and length."""
    if not results.against:
        return Section("slices", TITLE, ())
    label = split_key(results.primary)[0]
    ref = next(ref for ref in results.study.references if ref.label == label)
    facts = query_facts(
        ref, results.scores.queries(label), results.scores.cache, _fingerprint(results, label)
    )
    if isinstance(facts, str):
        return Section("slices", TITLE, (), facts)
    groups = {
        "lexical overlap": groups_of(facts.overlap, ""),
        "positives": groups_of(facts.positives, ""),
        "length": groups_of(facts.length, "words"),
    }
    groups = {name: labels for name, labels in groups.items() if len(set(labels)) > 1}
    if not groups:
        return Section("slices", TITLE, (), "the queries do not differ in length or positives")
    names = [cell.name for cell in results.scored]
    reference = results.family.reference or names[0]
    pairs = [(reference, name) for name in names if name != reference][:OTHERS]
    grid = results.grid
    kept = {name: grid[name] for name in dict.fromkeys(name for pair in pairs for name in pair)}
    order = [f"{name}: {label}" for name, labels in groups.items() for label in rising(labels)]
    found = sorted(slices(kept, pairs, groups, ALPHA), key=lambda one: order.index(one.slice))
    first = _first_pair(results, found, pairs[0])
    return Section("slices", TITLE, (*_words(results, found), first, _table(results, found)))


def _fingerprint(results: Results, label: str) -> str | None:
    marks = (t.record.evaluated.get(label) for t in results.trials if t.record is not None)
    return next((mark for mark in marks if mark), None)


def _words(results: Results, found: Sequence[Slice]) -> list[Block]:
    """How the groups were made, and a warning for each hidden loss."""
    reference = results.family.reference
    blocks: list[Block] = [
        Text(
            "Queries in up to three groups of about the same size: by the share of a query's words "
            "that its best-matching positive holds, by its number of positives, by its length in "
            f"words. `{reference}` meets {plural(len({one.b for one in found}), 'other cell')} in "
            f"each; p-values are corrected for all {plural(len(found), 'difference')} together."
        )
    ]
    hidden = [one for one in found if one.hidden_loss]
    if not hidden:
        blocks.append(
            Text(
                "No group is shown in which the order of two cells differs from that of the means."
            )
        )
        return blocks
    lines = []
    for one in hidden:
        better, worse = (one.b, one.a) if one.effect < 0 else (one.a, one.b)
        size = difference(one.effect, one.low, one.high)
        lines.append(
            f"**{one.slice}** ({plural(one.queries, 'query')}): `{better}` beats `{worse}` here, "
            f"against the mean over all queries ({one.a} minus {one.b}: {size})."
        )
    blocks += [Text("**The mean hides a loss:**"), Points(tuple(lines))]
    return blocks


def _first_pair(results: Results, found: Sequence[Slice], pair: tuple[str, str]) -> Figure:
    """The reference against the best other cell, group by group."""
    rows = [_row("all queries", *_overall(results, pair))]
    rows += [
        _row(f"{one.slice} ({one.queries})", one.effect, one.low, one.high, one.different)
        for one in found
        if (one.a, one.b) == pair and one.low > float("-inf")
    ]
    title = f"{metric_title(results.primary)}: {pair[0]} minus {pair[1]}"
    caption = f"{title}, by group of queries, with 95 % intervals. Filled: different."
    return row_plot("slices", caption, caption, Rows(tuple(rows), title, {"": 0.0}))


def _overall(results: Results, pair: tuple[str, str]) -> tuple[float, float, float, bool]:
    found = results.against[pair[1]]
    return found.effect, found.low, found.high, found.different


def _row(label: str, effect: float, low: float, high: float, different: bool) -> Row:
    return Row(label, effect, low, high, difference(effect, low, high), different)


def _table(results: Results, found: Sequence[Slice]) -> Table:
    columns = ("Group", "Queries", "Against", "Difference", "p corrected", "Different", "Note")
    rows = tuple(
        (
            value(one.slice),
            value(one.queries),
            value(one.b),
            difference_value(one.effect, one.low, one.high)
            if one.low > float("-inf")
            else value(None),
            value(probability(one.p_adjusted), one.p_adjusted),
            value("yes" if one.different else "not shown"),
            value("against the mean" if one.hidden_loss else ""),
        )
        for one in found
    )
    caption = (
        f"{metric_title(results.primary)} of {results.family.reference} minus that of each other "
        "cell within every group; no interval for a group of fewer than 10 queries"
    )
    return Table(caption, columns, rows, frozenset(columns[1:2]) | {"Difference", "p corrected"})
