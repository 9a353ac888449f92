"""What human labels buy: quality against their number and price, and the break-even point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ablate.learn.report.comparisons import difference_value
from ablate.learn.report.document import (
    LOST,
    Block,
    Section,
    Table,
    Text,
    Value,
    interval,
    number,
    plural,
    scalar,
    value,
)
from ablate.learn.report.lines import LinePlot, Point, Series, line_plot
from ablate.learn.results import ALPHA, CellResult, Results, metric_title
from ablate.learn.stats import BreakEven, Comparison, break_even, compare
from trainables.data.collections import parse_ref
from trainables.errors import InvalidInput
from trainables.spec import Scalar

FRACTION, MIXING = "data.human_fraction", "data.mixing"


@dataclass(frozen=True)
class Curve:
    """Cells that differ in their share of human labels alone, by that share; and what they are
    measured against."""

    name: str
    cells: tuple[tuple[float, CellResult], ...]
    target: CellResult


def label_cost(results: Results) -> Section:
    """How much quality human labels buy, and where fewer of them are as good as all."""
    title = "What human labels buy"
    if len(results.settings(FRACTION)) < 2:
        return Section("labels", title, (), f"the study does not compare `{FRACTION}`")
    curves = label_curves(results)
    if not curves:
        why = "no cell with all human labels has two beside it that differ in their share alone"
        return Section("labels", title, (), why)
    margin = results.study.select.equal_within if results.study.select else None
    grid = results.grid
    pairs = [(c.name, one.target.name) for one in curves for _, c in one.cells if c != one.target]
    against = {(pair.a, pair.b): pair for pair in compare(grid, pairs, ALPHA)}
    found = [_break_even(results, one, margin or 0.0) for one in curves]
    blocks: list[Block] = [
        Text(_cost_words(results, margin)),
        _cost_plot(results, curves, against, found),
        _break_even_table(results, curves, found),
        _cost_table(results, curves, against),
    ]
    return Section("labels", title, tuple(blocks))


def label_curves(results: Results) -> tuple[Curve, ...]:
    """The study's curves; those without a cell of all human labels, or with fewer than
    two others, are left out.

    The target is the cell with all human labels under the same mixing, or else under `replace`,
    and else equal.
    """
    lines: dict[tuple[tuple[str, Scalar], ...], list[CellResult]] = {}
    for cell in results.scored:
        rest = tuple((key, setting) for key, setting in cell.values.items() if key != FRACTION)
        lines.setdefault(rest, []).append(cell)
    found = []
    for rest, cells in lines.items():
        points = tuple(sorted(((_fraction(c), c) for c in cells), key=lambda point: point[0]))
        target = next((c for fraction, c in points if fraction == 1.0), None)
        if target is None:
            target = _all_human(results, dict(rest))
        if target is not None and len([c for _, c in points if c != target]) >= 2:
            name = " ".join(scalar(setting) for _, setting in rest) or "all cells"
            found.append(Curve(name, points, target))
    return tuple(found)


def _fraction(cell: CellResult) -> float:
    return float(cell.trials[0].planned.flat[FRACTION] or 0.0)


def _all_human(results: Results, rest: Mapping[str, Scalar]) -> CellResult | None:
    """The scored cell with all human labels, mixed by `replace`, and else as `rest` says."""
    wanted = {key: setting for key, setting in rest.items() if key != MIXING}
    for cell in results.scored:
        flat = cell.trials[0].planned.flat
        same = all(cell.values.get(key) == setting for key, setting in wanted.items())
        if same and flat[FRACTION] == 1.0 and flat[MIXING] == "replace":
            return cell
    return None


def _break_even(results: Results, curve: Curve, margin: float) -> BreakEven:
    costs = {cell.name: fraction for fraction, cell in curve.cells}
    costs[curve.target.name] = 1.0
    grid = results.grid
    names = dict.fromkeys([*costs, curve.target.name])
    return break_even({name: grid[name] for name in names}, costs, curve.target.name, margin, ALPHA)


def human_labels(results: Results) -> int | None:
    """Human labels of the training split, as the run counted them; None when it did not."""
    trained = results.settings("data.train")
    if len(trained) != 1:
        return None
    try:
        ref = parse_ref(str(trained[0]), "train")
    except InvalidInput:
        return None
    for summary in results.data:
        split = summary.get("splits", {}).get(ref.split)
        if summary["collection"] == ref.collection and split:
            return int(split["judgements"])
    return None


def _cost_words(results: Results, margin: float | None) -> str:
    labels, price = human_labels(results), results.study.budget.label_price
    words = (
        "Each cell minus the one that has all human labels, all else equal. The break-even point "
        "is the least share of human labels at which the curve, made to rise, reaches that cell"
    )
    words += (
        "; no `select.equal_within` is declared, so it must reach it fully."
        if margin is None
        else f" less {margin:g}, the declared margin."
    )
    if labels is not None:
        money = "" if price is None else f", which cost {price * labels:,.0f} at {price:g} each"
        words += f" All are {plural(labels, 'label')}{money}."
    return words + " An interval that ends at 100 % means that fewer may not be enough."


def _cost_plot(
    results: Results,
    curves: Sequence[Curve],
    against: Mapping[tuple[str, str], Comparison],
    found: Sequence[BreakEven],
) -> Block:
    series = []
    for curve in curves:
        points = []
        for fraction, cell in curve.cells:
            pair = against.get((cell.name, curve.target.name))
            if pair is None:
                points.append(Point(100 * fraction, 0.0, 0.0, 0.0))
            else:
                points.append(Point(100 * fraction, pair.effect, pair.low, pair.high))
        series.append(Series(curve.name, tuple(points)))
    alone = found[0] if len(found) == 1 else None
    band = None if alone is None else (100 * min(alone.low, 1.0), 100 * min(alone.high, 1.0))
    mark = None if alone is None else 100 * min(alone.cost, 1.0)
    shaded = "" if band is None else " Shaded: the interval of the break-even point (dashed)."
    caption = (
        f"{metric_title(results.primary)} minus that with all human labels, by the share of "
        f"queries that keep theirs, with 95 % intervals of each point.{shaded}"
    )
    plot = LinePlot(
        tuple(series), "human labels, % of queries", f"{metric_title(results.primary)} difference",
        levels={"all human labels": 0.0}, band=band, mark=mark,
    )  # fmt: skip
    return line_plot("label-cost", caption, caption, plot)


def _break_even_table(
    results: Results, curves: Sequence[Curve], found: Sequence[BreakEven]
) -> Table:
    labels, price = human_labels(results), results.study.budget.label_price
    money = ("Cost", "Saved, at most") if labels is not None and price is not None else ()
    counts = ("Labels",) if labels is not None else ()
    columns = ("Curve", "Against", "Break-even", "95 % interval", *counts, *money, "Scope")
    rows = tuple(
        _break_row(curve, one, labels, price) for curve, one in zip(curves, found, strict=True)
    )
    caption = "The share of human labels that is as good as all of them"
    return Table(caption, columns, rows, frozenset(columns[2:-1]))


def _break_row(
    curve: Curve, one: BreakEven, labels: int | None, price: float | None
) -> tuple[Value, ...]:
    cells = [value(_percent(one.cost), one.cost)]
    cells.append(value(f"{_percent(one.low)} to {_percent(one.high)}", one.low))
    if labels is not None:
        cells.append(value(f"{one.cost * labels:,.0f}", one.cost * labels))
        if price is not None:
            cells.append(value(f"{one.cost * labels * price:,.0f}", one.cost))
            saved = max(0.0, 1 - one.low) * labels * price
            cells.append(value(f"{saved:,.0f}", saved))
    return (value(curve.name), value(curve.target.name), *cells, value(one.scope))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share <= 1.0 else "never"


def _cost_table(
    results: Results, curves: Sequence[Curve], against: Mapping[tuple[str, str], Comparison]
) -> Table:
    title = metric_title(results.primary)
    columns = ("Cell", "Human labels", title, "Minus all human labels", LOST)
    rows = []
    for curve in curves:
        for fraction, cell in curve.cells:
            summary, pair = results.primary_of(cell), against.get((cell.name, curve.target.name))
            shown = f"{number(summary.mean)} {interval(summary.low, summary.high)}"
            rows.append(
                (
                    value(cell.name),
                    value(_percent(fraction), fraction),
                    value(shown, summary.mean),
                    value(None)
                    if pair is None
                    else difference_value(pair.effect, pair.low_family, pair.high_family),
                    value(cell.lost),
                )
            )
    caption = "Every point; the intervals of the differences hold for all of them together"
    return Table(caption, columns, tuple(rows), frozenset(columns[1:]))
