"""The compared factors: which of them matter, how they act on each other, where the winner
changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from ablate.learn.report.comparisons import difference_value
from ablate.learn.report.document import (
    Block,
    Section,
    Table,
    Text,
    Value,
    listing,
    number,
    plural,
    probability,
    scalar,
    value,
)
from ablate.learn.report.figures import Figure
from ablate.learn.report.lines import LinePlot, Point, Series, line_plot
from ablate.learn.report.panels import share_bars
from ablate.learn.results import ALPHA, CellResult, Results, metric_title, split_key
from ablate.learn.stats import (
    Effect,
    Interaction,
    Level,
    Profile,
    Winner,
    importance,
    interaction,
    profiles,
    winners,
)
from ablate.plan.parts import Axis
from trainables.errors import InvalidInput
from trainables.spec import Scalar

MOST_CELLS = 400
"""Cells up to which factors are analysed together."""
PAIRS = 3
"""Pairs of factors that are plotted."""
SHOWN = 15
"""Differences of differences in the table: the largest."""
LOSS, TEMPERATURE = "loss.name", "loss.temperature"


def interactions(results: Results) -> Section:
    """Per pair of factors: plot, the winner at each level, and which differences depend on it."""
    title = "Where the winner changes"
    levels = factor_levels(results)
    if len(levels) < 2:
        return Section("interactions", title, (), "fewer than two factors were compared")
    if len(results.scored) > MOST_CELLS:
        return Section("interactions", title, (), _too_many(results))
    design = design_of(results)
    blocks: list[Block] = []
    for row, column in _pairs(results, levels)[:PAIRS]:
        blocks += _pair(results, design, row, column)
    why = "no two levels of two factors have all four cells scored"
    return Section("interactions", title, tuple(blocks), "" if blocks else why)


def factors(results: Results) -> Section:
    """How much of the variance over the grid each factor explains."""
    title = "What matters"
    levels = factor_levels(results)
    if len(results.scored) < 3 or not levels:
        return Section("factors", title, ())
    if len(results.scored) > MOST_CELLS:
        return Section("factors", title, (), _too_many(results))
    try:
        found = list(importance(results.grid, design_of(results)))
    except InvalidInput as error:
        return Section("factors", title, (), f"the design {error.problems[0].rule}")
    if not any(one.share > 0 for one in found):
        return Section("factors", title, (), "every trial scores the same")
    return Section("factors", title, (Text(_leading(found)), _bars(found), _effects(found)))


def design_of(results: Results) -> dict[str, dict[str, Level]]:
    """Per scored cell its level of each compared axis: a value, or the name of an option."""
    axes = [axis for axis in results.study.compare if len(axis.options) > 1]
    return {cell.name: {axis.name: _level(axis, cell) for axis in axes} for cell in results.scored}


def factor_levels(results: Results) -> dict[str, tuple[Level, ...]]:
    """The factors in which scored cells differ, with their levels in the study's order."""
    design = design_of(results)
    found: dict[str, tuple[Level, ...]] = {}
    for axis in results.study.compare:
        seen = dict.fromkeys(levels.get(axis.name) for levels in design.values())
        if len(seen) > 1:
            order = [_option(axis, place) for place in range(len(axis.options))]
            found[axis.name] = tuple(sorted(seen, key=lambda one: _place(order, one)))
    return found


def _level(axis: Axis, cell: CellResult) -> Level:
    """The option of the axis that the cell has; null where its loss has no such parameter."""
    for place, option in enumerate(axis.options):
        own = {key: setting for key, setting in option.items() if key in cell.values}
        if own and all(_same(cell.values[key], setting) for key, setting in own.items()):
            return _option(axis, place)
    return None


def _option(axis: Axis, place: int) -> Level:
    if axis.names:
        return axis.names[place]
    option = axis.options[place]
    return next(iter(option.values())) if len(option) == 1 else _joined(option)


def _joined(option: Mapping[str, Scalar]) -> str:
    return ", ".join(scalar(setting) for setting in option.values())


def _same(a: Scalar, b: Scalar) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _place(order: Sequence[Level], level: Level) -> int:
    return order.index(level) if level in order else len(order)


def _pairs(results: Results, levels: Mapping[str, tuple[Level, ...]]) -> list[tuple[str, str]]:
    """Pairs (row, column): the loss in the rows, the temperature first among the columns."""
    keys = {axis.name: axis.keys for axis in results.study.compare}
    names = sorted(levels, key=lambda name: (LOSS not in keys[name], TEMPERATURE not in keys[name]))
    return list(combinations(names, 2))


def _too_many(results: Results) -> str:
    return (
        f"{len(results.scored):,} cells are more than the {MOST_CELLS} that are analysed together"
    )


def _pair(
    results: Results, design: Mapping[str, Mapping[str, Level]], row: str, column: str
) -> list[Block]:
    try:
        grid = results.grid
        lines = list(profiles(grid, design, row, column, ALPHA))
        order = factor_levels(results)[column]
        best = list(winners(grid, design, row, column, ALPHA))
        best.sort(key=lambda one: _place(order, one.column))
        found = list(interaction(grid, design, row, column, ALPHA))
    except InvalidInput:
        return []
    return [
        Text(_changes(row, column, best, found)),
        _plot(results, row, column, lines),
        _winners_table(row, column, best),
        _interaction_table(row, column, found),
    ]


def _changes(row: str, column: str, best: Sequence[Winner], found: Sequence[Interaction]) -> str:
    """Whether the winner changes with the column, no surer than the numbers are."""
    places = listing([f"`{scalar(one.winner)}` at {scalar(one.column)}" for one in best], limit=8)
    head = f"**`{row}` by `{column}`.** Best in the table: {places}."
    clear = {scalar(one.winner) for one in best if one.clear}
    crossing = [one for one in found if one.crossover]
    different = sum(one.different for one in found)
    if len(clear) > 1:
        return f"{head} **The winner changes**: {listing(sorted(clear))} each beat every other one."
    if crossing:
        one = max(crossing, key=lambda pair: abs(pair.effect))
        return (
            f"{head} **The order changes**: `{scalar(one.row_a)}` minus `{scalar(one.row_b)}` is "
            f"{number(one.effect_a)} at {scalar(one.column_a)} and {number(one.effect_b)} at "
            f"{scalar(one.column_b)}, and both are real."
        )
    if different:
        depend = "depends" if different == 1 else "depend"
        return (
            f"{head} {plural(different, 'difference')} between two levels of `{row}` {depend} on "
            f"`{column}`, but no change of order is shown."
        )
    return f"{head} No difference is shown to depend on `{column}`; that is not to say none does."


def _plot(results: Results, row: str, column: str, lines: Sequence[Profile]) -> Figure:
    levels = factor_levels(results)
    columns = sorted({one.column for one in lines}, key=lambda c: _place(levels[column], c))
    numeric = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in columns)
    if numeric:
        columns = sorted(columns, key=lambda one: float(one or 0))
    series = tuple(
        Series(
            scalar(name),
            tuple(
                Point(columns.index(one.column), one.effect, one.low, one.high)
                for one in sorted(lines, key=lambda one: columns.index(one.column))
                if one.row == name
            ),
        )
        for name in levels[row]
        if any(one.row == name for one in lines)
    )
    title = f"{metric_title(results.primary)} on {split_key(results.primary)[0]}"
    caption = (
        f"{title}: each `{row}` minus the mean of all at that `{column}`, with its 95 % interval, "
        "which holds seeds and queries. Lines that cross change order; the levels themselves are "
        "in the maps."
    ).replace("`", "")
    places = {float(index): scalar(one) for index, one in enumerate(columns)}
    plot = LinePlot(
        series, column, f"{metric_title(results.primary)} minus the mean there", places,
        {"": 0.0},
    )  # fmt: skip
    return line_plot(f"interaction-{_slug(row)}-{_slug(column)}", caption, caption, plot)


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _winners_table(row: str, column: str, best: Sequence[Winner]) -> Table:
    columns = (column, "Best", "Runner-up", "Lead", "Beats all others", "Best in draws")
    rows = tuple(
        (
            _level_value(one.column),
            value(scalar(one.winner)),
            value(scalar(one.runner_up)),
            difference_value(one.lead, one.low, one.high),
            value("yes" if one.clear else "not shown"),
            value(f"{one.chance:.0%}", one.chance),
        )
        for one in best
    )
    caption = (
        f"The best {row} at each {column}; the lead over the runner-up with its interval. Best in "
        "draws: share of draws of all errors in which it is the best, not corrected for looking "
        "at several places"
    )
    return Table(caption, columns, rows, frozenset({column, "Lead", "Best in draws"}))


def _level_value(level: Level) -> Value:
    numeric = isinstance(level, (int, float)) and not isinstance(level, bool)
    return value(scalar(level), float(level) if numeric else None)  # type: ignore[arg-type]


def _interaction_table(row: str, column: str, found: Sequence[Interaction]) -> Table:
    shown = sorted(found, key=lambda one: (one.p_adjusted, -abs(one.effect)))[:SHOWN]
    columns = (
        "Difference", "Between", "At the first", "At the second", "Change", "p corrected",
        "Different", "Order changes",
    )  # fmt: skip
    rows = tuple(
        (
            value(f"{scalar(one.row_a)} − {scalar(one.row_b)}"),
            value(f"{scalar(one.column_a)} and {scalar(one.column_b)}"),
            value(number(one.effect_a), one.effect_a),
            value(number(one.effect_b), one.effect_b),
            difference_value(one.effect, one.low, one.high),
            value(probability(one.p_adjusted), one.p_adjusted),
            value("yes" if one.different else "not shown"),
            value("yes" if one.crossover else "not shown"),
        )
        for one in shown
    )
    cut = "" if len(found) <= SHOWN else f"; {SHOWN} of {len(found)}, the surest first"
    caption = (
        f"How much a difference between two levels of {row} changes between two levels of {column}"
        f" (p holds for all of them together, an interval for its own difference){cut}"
    )
    return Table(caption, columns, rows, frozenset(columns[2:6]))


def _leading(found: Sequence[Effect]) -> str:
    first = found[0]
    noise = next((one.share for one in found if not one.factors), 0.0)
    real = [one for one in found if one.factors and one.p_adjusted <= ALPHA]
    shown = listing([f"{_factors(one)} ({one.share:.0%})" for one in real]) if real else "none"
    return (
        "The variance of a trial's expected score over the grid, split by what it comes from "
        f"(functional analysis of variance). The largest part is {_factors(first)} with "
        f"{first.share:.0%}; the noise of seeds, as far as all queries share it, makes "
        f"{noise:.0%}. Shown to be more than noise: {shown}. Shares are of "
        "this grid's levels: a wider range would give a factor more."
    )


def _factors(effect: Effect) -> str:
    return " × ".join(f"`{name}`" for name in effect.factors) or "seed noise"


def _bars(found: Sequence[Effect]) -> Figure:
    bars = [(_factors(one).replace("`", ""), one.share) for one in found if one.share > 0]
    caption = "Share of the variance over the grid by factor; × is an interaction."
    return share_bars("importance", caption, caption, bars)


def _effects(found: Sequence[Effect]) -> Table:
    columns = ("Factor", "Share", "sd", "p corrected")
    rows = tuple(
        (
            value(_factors(one).replace("`", "")),
            value(f"{one.share:.1%}", one.share),
            value(number(one.sd), one.sd),
            value(probability(one.p_adjusted), one.p_adjusted) if one.factors else value(None),
        )
        for one in found
    )
    caption = "sd: how far cells lie apart through the factor, in units of the metric"
    return Table(caption, columns, rows, frozenset(columns[1:]))
