"""Which figures a study gets, and what they show."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from ablate.learn.report.document import difference, interval, listing, number, scalar
from ablate.learn.report.figures import (
    Figure,
    Heat,
    Panel,
    Row,
    Rows,
    curves,
    heat_maps,
    row_plot,
)
from ablate.learn.results import CellResult, Results, metric_title, split_key

PANELS = 24
"""Cells that get a learning curve: the best ranked."""
ROWS = 80
"""Cells in a row plot: the best ranked. The tables have them all."""
MAPS = 8
"""Heat maps, one per combination of the further compared values."""
CURVE = "train/loss"


def means(results: Results) -> Figure:
    """Every cell's mean and interval, its seeds as dots, the baselines as lines."""
    rows = []
    for cell in results.scored[:ROWS]:
        summary = results.primary_of(cell)
        seeds = tuple(
            trial.metrics[results.primary]
            for trial in cell.counted
            if results.primary in trial.metrics
        )
        note = f"{number(summary.mean)} {interval(summary.low, summary.high)}"
        solid = cell.verdict != "worse"
        rows.append(Row(cell.name, summary.mean, summary.low, summary.high, note, solid, seeds))
    lines = {
        name: summaries[results.primary].mean
        for name, summaries in results.baselines.items()
        if results.primary in summaries
    }
    title = f"{metric_title(results.primary)} on {split_key(results.primary)[0]}"
    caption = (
        "Mean with its 95 % interval, and each seed as a small dot. Hollow: worse than "
        f"{results.family.reference}. Filled: the others.{_cut(results)}"
    )
    label = f"{title} of every cell. Highest: {rows[0].label}, {rows[0].note}."
    return row_plot("means", caption, label, Rows(tuple(rows), title, lines))


def differences(results: Results) -> Figure:
    """Forest plot: every compared cell minus the reference."""
    pairs = results.against
    first = results.family.reference
    rows = tuple(
        Row(
            cell.name,
            -pair.effect,
            -pair.high_family,
            -pair.low_family,
            difference(-pair.effect, -pair.high_family, -pair.low_family),
            pair.different,
        )
        for cell in results.scored[:ROWS]
        if (pair := pairs.get(cell.name)) is not None
    )
    floor = results.seed_noise
    band = None if floor is None else (-floor, floor)
    title = f"{metric_title(results.primary)} minus that of {first}"
    caption = (
        f"Paired differences to {first}, with simultaneous 95 % intervals. Filled: different. "
        "Hollow: not shown to differ. The stepwise test is a little sharper than intervals can be, "
        f"so that of a filled dot may just touch zero.{_cut(results)}"
    )
    worse = sum(row.solid for row in rows)
    label = f"{title}: {worse} of {len(rows)} cells differ."
    return row_plot("differences", caption, label, Rows(rows, title, {"no difference": 0.0}, band))


def _cut(results: Results) -> str:
    """What a caption adds when not every cell is drawn."""
    return f" The first {ROWS} cells of the ranking." if len(results.scored) > ROWS else ""


def heat(results: Results) -> Figure | None:
    """The primary metric over the two compared keys with the most values; one map per rest."""
    sizes = {key: len(results.study.listed(key)) for key in results.study.compared}
    keys = sorted((key for key in sizes if sizes[key] > 1), key=lambda key: -sizes[key])
    if len(keys) < 2 or not results.scored:
        return None
    rows, columns = _rows_first(results, keys[:2])
    rest = [key for key in results.study.compared if key in keys[2:]]
    groups: dict[str, list[CellResult]] = {}
    for cell in results.scored:
        words = ", ".join(f"{key} {scalar(cell.values.get(key))}" for key in rest)
        groups.setdefault(words, []).append(cell)
    maps = [
        _heat(results, cells, (rows, columns), title)
        for title, cells in list(groups.items())[:MAPS]
    ]
    title = f"{metric_title(results.primary)} on {split_key(results.primary)[0]}"
    caption = f"{title} by {rows} and {columns}. Bright is high."
    if len(groups) > MAPS:
        caption += f" The first {MAPS} of {len(groups)} combinations of {listing(rest)}."
    return heat_maps("grid", caption, caption, maps)


def _rows_first(results: Results, keys: Sequence[str]) -> tuple[str, str]:
    """The two keys as (rows, columns): text, which is long, goes to the rows."""
    a, b = keys
    textual = [any(isinstance(v, str) for v in results.study.listed(key)) for key in keys]
    return (b, a) if textual[1] and not textual[0] else (a, b)


def _heat(results: Results, cells: Sequence[CellResult], keys: tuple[str, str], title: str) -> Heat:
    found: dict[tuple[str, str], list[float]] = {}
    for cell in cells:
        place = (scalar(cell.values.get(keys[0])), scalar(cell.values.get(keys[1])))
        found.setdefault(place, []).append(results.primary_of(cell).mean)
    rows, columns = ([scalar(v) for v in results.study.listed(key)] for key in keys)
    values = {place: fmean(means) for place, means in found.items()}
    return Heat(tuple(rows), tuple(columns), values, keys[0], keys[1], title)


def learning(results: Results) -> Figure | None:
    """Training loss by step, one panel per cell, one line per seed."""
    panels = []
    for cell in results.cells[:PANELS]:
        lines = []
        for trial in cell.counted:
            rows = results.scores.history(trial)
            points = tuple((row["step"], row[CURVE]) for row in rows if CURVE in row)
            if len(points) > 1:
                lines.append(points)
        if lines:
            panels.append(Panel(cell.name, tuple(lines)))
    if not panels:
        return None
    caption = (
        "Training loss by step, one line per seed. Axes differ: the losses and temperatures set "
        "the scale, so compare shapes, not heights."
    )
    if len(results.cells) > PANELS:
        caption += f" The first {PANELS} cells of the ranking."
    return curves("curves", caption, f"Training loss of {len(panels)} cells by step.", panels)
