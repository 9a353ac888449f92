"""Groups of queries: where the mean over all of them hides a loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ablate.learn.queries import groups_of, query_facts, rising
from ablate.learn.report.comparisons import difference_value
from ablate.learn.report.document import (
    Block,
    Points,
    Section,
    Table,
    Text,
    Value,
    difference,
    listing,
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
        ref, results.scores.queries(label), results.scores.cache, results.scores.marks.get(label)
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
    return Section("slices", TITLE, (*_words(results, found), first, *_tables(results, found)))


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
    turned: dict[tuple[str, bool], list[Slice]] = {}
    for one in hidden:
        turned.setdefault((one.slice, one.effect < 0), []).append(one)
    lines = [_turned(rows) for rows in turned.values()]
    blocks += [Text("**The mean hides a loss:**"), Points(tuple(lines))]
    return blocks


def _turned(rows: Sequence[Slice]) -> str:
    """The cells of one group, all on one side, that the reference meets there the other way round
    than over all queries."""
    first = rows[0]
    way = (
        "is worse here than cells that it is ahead of over all queries"
        if first.effect < 0
        else "is better here than cells that are ahead of it over all queries"
    )
    cells = [f"`{one.b}` ({difference(one.effect, one.low, one.high)})" for one in rows]
    queries = plural(first.queries, "query")
    return f"**{first.slice}** ({queries}): `{first.a}` {way}: {listing(cells)}."


def _first_pair(results: Results, found: Sequence[Slice], pair: tuple[str, str]) -> Figure:
    """The reference against the best other cell, group by group."""
    rows = [_row("all queries", *_overall(results, pair))]
    rows += [
        _row(f"{_short(one.slice)} ({one.queries})", one.effect, one.low, one.high, one.different)
        for one in found
        if (one.a, one.b) == pair and one.low > float("-inf")
    ]
    title = f"{metric_title(results.primary)}: {pair[0]} minus {pair[1]}"
    caption = f"{title}, by group of queries, with 95 % intervals. Filled: different."
    return row_plot("slices", caption, caption, Rows(tuple(rows), title, {"": 0.0}))


def _short(name: str) -> str:
    """The group's name in the room that a phone has."""
    return name.removeprefix("lexical ").replace(" to ", "–")


def _overall(results: Results, pair: tuple[str, str]) -> tuple[float, float, float, bool]:
    found = results.against[pair[1]]
    return found.effect, found.low, found.high, found.different


def _row(label: str, effect: float, low: float, high: float, different: bool) -> Row:
    return Row(label, effect, low, high, difference(effect, low, high), different)


def _tables(results: Results, found: Sequence[Slice]) -> list[Table]:
    """One row per group; every cell in every group is folded away, a table per grouping."""
    by_group: dict[str, list[Slice]] = {}
    by_grouping: dict[str, list[Slice]] = {}
    for one in found:
        by_group.setdefault(one.slice, []).append(one)
        by_grouping.setdefault(one.slice.partition(": ")[0], []).append(one)
    if len(by_group) == len(found):
        return [_all(results, found)]
    folded = [_all(results, rows, grouping) for grouping, rows in by_grouping.items()]
    return [_summary(results, by_group), *folded]


def _summary(results: Results, by_group: Mapping[str, Sequence[Slice]]) -> Table:
    """Per group the other cell that is best there, and how many are different."""
    columns = ("Group", "Difference", "Best other cell", "Different", "Queries", "Note")
    rows = []
    for name, group in by_group.items():
        best = min(group, key=lambda one: one.effect)
        shown = sum(one.different for one in group)
        hidden = sum(one.hidden_loss for one in group)
        rows.append(
            (
                value(name),
                _size(best),
                value(best.b),
                value(f"{shown} of {len(group)}", shown),
                value(best.queries),
                value(f"{hidden} against the mean" if hidden else ""),
            )
        )
    caption = (
        f"{metric_title(results.primary)} of {results.family.reference} minus that of the other "
        "cell that is best in the group; how many of the other cells are different there"
    )
    return _noted(Table(caption, columns, tuple(rows), frozenset({"Difference", "Queries"})))


def _all(results: Results, found: Sequence[Slice], grouping: str = "") -> Table:
    """Every difference; with a `grouping`, those of its groups, folded."""
    columns = ("Group", "Against", "Difference", "p corrected", "Different", "Queries", "Note")
    rows = tuple(
        (
            value(one.slice.removeprefix(f"{grouping}: ")),
            value(one.b),
            _size(one),
            value(probability(one.p_adjusted), one.p_adjusted),
            value("yes" if one.different else "not shown"),
            value(one.queries),
            value("against the mean" if one.hidden_loss else ""),
        )
        for one in found
    )
    caption = (
        f"{metric_title(results.primary)} of {results.family.reference} minus that of each other "
        "cell within every group; no interval for a group of fewer than 10 queries"
    )
    numeric = frozenset({"Difference", "p corrected", "Queries"})
    folded = _fold(grouping, found) if grouping else ""
    return _noted(Table(caption, columns, rows, numeric, folded))


def _noted(table: Table) -> Table:
    """The table, without its last column when nothing is noted there."""
    if any(row[-1].shown for row in table.rows):
        return table
    rows = tuple(row[:-1] for row in table.rows)
    return replace(table, columns=table.columns[:-1], rows=rows)


def _fold(grouping: str, found: Sequence[Slice]) -> str:
    shown = sum(one.different for one in found)
    hidden = sum(one.hidden_loss for one in found)
    words = f"{grouping.capitalize()}: {len(found)} comparisons, {shown or 'none'} different"
    return f"{words}, {hidden} against the mean" if hidden else words


def _size(one: Slice) -> Value:
    known = one.low > float("-inf")
    return difference_value(one.effect, one.low, one.high) if known else value(None)
